"""Fashion-MNIST: a convolutional network in floats, deployed after training, and trained as integers.

    python benchmarks/fashion.py --output fashion      Debian's package dataset-fashion-mnist is needed

Trains the preset fashion-conv in floats, then fine-tunes that checkpoint in the chip's integers with 4-bit
weights, by the command snn-train; a checkpoint already in the folder, with its training's output, is
used as it is. Compiles the float checkpoint with weights of 8 and of 4 bits chosen after training
(on the 128 calibration samples) and the fine-tuned one with the integers it was trained with, runs each
program on all 10,000 test images, and compares every spike of the fine-tuned program with the training graph.
Exit code 1 if a spike differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from snn_compile import compiler, runtime, train
from snn_compile.train.networks.feedforward import NetworkConfig, SpikingNetwork

MESSAGES = Console(stderr=True)
BATCH = 500
FINE_TUNED = ("weight_bits=4", "epochs=4", "learning_rate=0.001")


def main() -> int:
    """Train what is missing, measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("fashion"), help="folder of the checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    seed = f"seed={arguments.seed}"
    first, second = arguments.output / "float.pt", arguments.output / "integers-4.pt"
    trained = trained_by_command(first, [seed])
    tuned = trained_by_command(second, [seed, *FINE_TUNED, f"init={first}"])
    rows = [
        {"network": "float", "accuracy": trained["metric"]["value"], "cpu_seconds": trained["cpu_seconds"]},
        deployed("8 bits, after training", first, 8),
        deployed("4 bits, after training", first, 4),
        {
            **deployed("4 bits, trained as integers", second, 4),
            "cpu_seconds": tuned["cpu_seconds"],
            "trained_accuracy": tuned["metric"]["value"],
            **equality(second),
        },
    ]
    for row in rows:
        row["drop"] = 100 * (rows[0]["accuracy"] - row["accuracy"])
    if arguments.json:
        print(json.dumps({"schema": {"name": "snn-compile-fashion", "version": 1}, "rows": rows}))
    else:
        show(rows)
    return 0 if rows[-1]["spikes_differ"] == 0 else 1


def trained_by_command(path: Path, settings: list[str]) -> dict[str, Any]:
    """Return what snn-train printed for a checkpoint, training it if it is not there."""
    output = path.with_suffix(".json")
    if not (path.exists() and output.exists()):
        command = [sys.executable, "-m", "snn_compile.train.cli", "fashion-conv", "-o", str(path), "--json"]
        command += [word for setting in settings for word in ("--set", setting)]
        MESSAGES.print(" ".join(command[1:]))
        output.write_text(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def compiled(path: Path, bits: int) -> tuple[train.Checkpoint, Any]:
    """Return a checkpoint and what compiling it made."""
    checkpoint = train.load_checkpoint(path)
    calibration = runtime.load_data("fashion-mnist", "calibration", **checkpoint.data["options"])
    options = compiler.Options(weight_bits=bits)
    return checkpoint, compiler.compile_stages(checkpoint.graph, "loihi2-sim", options, calibration.inputs)


def deployed(title: str, path: Path, bits: int) -> dict[str, Any]:
    """Compile a checkpoint and return its program's results on the test images."""
    MESSAGES.print(f"{title}: compiling and running")
    checkpoint, done = compiled(path, bits)
    test = runtime.load_data("fashion-mnist", "test", **checkpoint.data["options"])
    found = runtime.compare(done.program, done.network, test.inputs, test.labels, data=test.spec()).json()
    return {
        "network": title,
        "accuracy": found["accuracy"]["deployed"],
        "samples": found["accuracy"]["samples"],
        "cores": len(done.program.cores),
        "memory_bits": sum(core.use["memory_bits"] for core in done.program.cores),
        "spikes": found["counts"]["per_sample"]["spikes"],
        "synops": found["counts"]["per_sample"]["synops"],
    }


def equality(path: Path) -> dict[str, Any]:
    """Count the spikes that differ between the training graph and its program, on every test image."""
    MESSAGES.print(f"{path.name}: every spike against the training graph")
    checkpoint, done = compiled(path, 4)
    network = SpikingNetwork(NetworkConfig.from_dict(checkpoint.config["network"]))
    network.load_state_dict(dict(checkpoint.state_dict))
    test = runtime.load_data("fashion-mnist", "test", **checkpoint.data["options"])
    formats, differ, compared = network.formats(), 0, 0
    for first in range(0, len(test.inputs), BATCH):
        inputs = test.inputs[first : first + BATCH].copy()
        with torch.no_grad():
            run = network.run(torch.from_numpy(inputs), formats)
        record = runtime.simulate(done.program, inputs, record=tuple(run.spikes))
        for name, spikes in run.spikes.items():
            mine = spikes.numpy()
            differ += int(np.count_nonzero(record.spikes(name).reshape(mine.shape) != mine))
            compared += mine.size
    return {"spikes_differ": differ, "spikes_compared": compared}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(box=box.SIMPLE_HEAD)
    heads = ("", "accuracy", "drop, points", "cores", "Mbit", "synops", "CPU min")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['accuracy']:.2%}",
            f"{row['drop']:+.2f}" if row["drop"] else "",
            str(row.get("cores", "")),
            f"{row['memory_bits'] / 1e6:.2f}" if "memory_bits" in row else "",
            f"{row['synops']:,.0f}" if "synops" in row else "",
            f"{row['cpu_seconds'] / 60:.1f}" if "cpu_seconds" in row else "",
        )
    out = Console(width=120, highlight=False)
    out.print(table)
    last = rows[-1]
    out.print(
        f"{last['samples']:,} test images. Trained as integers: the training graph scores "
        f"{last['trained_accuracy']:.2%}; in its program {last['spikes_differ']:,} of "
        f"{last['spikes_compared']:,} neuron steps spike differently."
    )


if __name__ == "__main__":
    sys.exit(main())
