"""ONNX to spikes on Fashion-MNIST: train two ReLU networks, export, convert, compare.

    apt-get install dataset-fashion-mnist
    python benchmarks/onnx_fashion.py --train            # CPU minutes per network; writes two .onnx files
    python benchmarks/onnx_fashion.py --samples 10000    # converts, runs on loihi2-sim, prints the curves

`lenet` is LeNet-style: two convolutions, an average pool, three dense layers. `residual` has two
convolutions, two residual blocks and global average pooling. Both have batch normalization, plain ReLUs, and
layers that fit a core's 4096 input axons. Float accuracies are onnxruntime's on all 10,000 test images.
The same as commands: `snn-compile onnx-fashion/lenet.onnx --calibrate fashion-mnist --check fashion-mnist`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from snn_compile.compiler import ConversionOptions, compile_graph, read_onnx
from snn_compile.compiler.cli.conversion_tables import conversion_text
from snn_compile.runtime.data.formats.idx import read_images
from snn_compile.runtime.data.registry import FASHION_FOLDER, load_data
from snn_compile.runtime.evaluation.conversion import prepare
from snn_compile.runtime.evaluation.step_curve import float_record

DATA = "fashion-mnist"
NAMES = ("lenet", "residual")


def network(name: str) -> Any:
    """Return the torch module of one of `NAMES`."""
    from torch import nn

    def block(inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0) -> list[Any]:
        return [
            nn.Conv2d(inputs, outputs, size, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    class Residual(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *block(channels, channels, 3, 1, 1), *block(channels, channels, 3, 1, 1)[:2]
            )
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(self.body(x) + x)

    if name == "lenet":
        dense = [nn.Linear(1000, 120), nn.ReLU(), nn.Dropout(0.3), nn.Linear(120, 84), nn.ReLU()]
        return nn.Sequential(
            *block(1, 20, 5, 2, 2),
            *block(20, 40, 5),
            nn.AvgPool2d(2),
            nn.Flatten(),
            *dense,
            nn.Linear(84, 10),
        )
    return nn.Sequential(
        *block(1, 20, 5, 2, 2),
        *block(20, 40, 3, 2, 1),
        Residual(40),
        Residual(40),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 10),
    )


def train(name: str, path: Path, epochs: int, seed: int = 0) -> None:
    """Train one network on 60,000 images, mirrored and shifted at random, and write it as ONNX."""
    import torch
    from torch.nn.functional import cross_entropy, pad

    torch.manual_seed(seed)
    module = network(name)
    pixels, labels = read_images(FASHION_FOLDER, "train")
    x = torch.from_numpy(pixels.astype(np.float32)[:, None] / 255)
    y = torch.from_numpy(labels.astype(np.int64))
    batch = 128
    rate = 4e-3
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.02)
    per_epoch = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * per_epoch)
    for epoch in range(epochs):
        began, order, right = time.process_time(), torch.randperm(len(x)), 0
        for i in range(per_epoch):
            chosen = order[i * batch : (i + 1) * batch]
            shift = torch.randint(0, 3, (2,)).tolist()
            shown = pad(x[chosen], (1, 1, 1, 1))[..., shift[0] : shift[0] + 28, shift[1] : shift[1] + 28]
            shown = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, shown, shown.flip(-1))
            scores = module(shown)
            loss = cross_entropy(scores, y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            right += int((scores.argmax(1) == y[chosen]).sum())
        print(
            f"{name} epoch {epoch + 1}/{epochs}: {right / per_epoch / batch:.2%} of training images, "
            f"{time.process_time() - began:.0f} CPU s",
            file=sys.stderr,
        )
    export(module.eval(), path)


def export(module: Any, path: Path) -> None:
    """Write a module as ONNX with torch's own exporter, batch size left open."""
    import torch

    torch.onnx.export(
        module,
        (torch.zeros(1, 1, 28, 28),),
        str(path),
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
        dynamo=False,
    )


def measure(name: str, path: Path, samples: int, steps: int) -> dict[str, Any]:
    """Convert one model, run `samples` test images for `steps` steps, print and return what came out."""
    network = read_onnx(path)
    test = load_data(DATA, "test", steps=1)
    assert test.labels is not None
    right = float_record(network, test.inputs[:, 0]).predictions == test.labels
    prepared = prepare(network, DATA, DATA, ConversionOptions(steps))
    assert prepared.checked is not None
    few = replace(prepared.checked, inputs=test.inputs[:samples], labels=test.labels[:samples])
    prepared = replace(prepared, checked=few)
    program = compile_graph(prepared.conversion.network, calibration=prepared.conversion.shown_calibration())
    _, report, curve = prepared.measure(program, None)
    result = {
        "float_10000": float(right.mean()),
        "cores": len(program.cores),
        "accuracy": report.json()["accuracy"],
        "overflows": report.json()["overflows"],
        **prepared.json(curve),
    }
    print(f"{name}: {right.mean():.2%} of 10,000 by onnxruntime; {len(program.cores)} cores")
    print(conversion_text(result["conversion"], result["curve"]))
    return result


def main() -> None:
    """Train or measure, as the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", action="store_true", help="train the networks instead of converting them")
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--folder", type=Path, default=Path("onnx-fashion"), help="where the .onnx files are")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--samples", type=int, default=10000, help="test images that run as spikes")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in options.networks:
        path = options.folder / f"{name}.onnx"
        if options.train:
            train(name, path, options.epochs)
        else:
            results[name] = measure(name, path, options.samples, options.steps)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
