"""Train seven user-style classifiers and compile each by the plain command; print float, deployed, drop.

    python benchmarks/classifiers.py [--epochs N] [--folder DIR]

The command is `snn-compile net.pt --model classifier_nets.py:make_... --check data.npz`, with a plain state
dict and the test images as data. The float accuracy must be torch's own on the same samples.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classifier_nets import NETS, STEPS
from snntorch import functional, utils
from torch import nn

HERE = Path(__file__).parent
RATE = 3e-3


def digits(form: str) -> tuple[Any, Any, Any, Any]:
    """Return images (samples, steps, *shape) and labels for training, and for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images / 16
    if form == "rows":  # twice through the rows, one per step
        data = np.concatenate([images.reshape(-1, 8, 8)] * 2, 1)
    else:
        shape = (64,) if form == "flat" else (1, 8, 8)
        data = np.repeat(images.reshape(-1, 1, *shape), STEPS, 1)
    found = train_test_split(data, labels, test_size=360, random_state=0, stratify=labels)
    return found[0].astype(np.float32), found[2], found[1].astype(np.float32), found[3]


def answers(network: nn.Module, data: Any) -> Any:
    """Return spikes (steps, batch, classes) of data (batch, steps, *shape), whatever forward takes."""
    x = torch.as_tensor(data).swapaxes(0, 1)
    if not isinstance(network, nn.Sequential):
        return network(x)
    utils.reset(network)
    return torch.stack([network(now) for now in x])


def batches(count: int, generator: torch.Generator) -> Iterator[Any]:
    """Yield random batches of 64 indices."""
    order = torch.randperm(count, generator=generator)
    yield from (order[i : i + 64] for i in range(0, count, 64))


def train(network: nn.Module, data: Any, labels: Any, epochs: int) -> None:
    """Train on the cross entropy of spike counts."""
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    loss_of, generator = functional.ce_count_loss(), torch.Generator().manual_seed(0)
    network.train()
    for _ in range(epochs):
        for index in batches(len(data), generator):
            loss = loss_of(answers(network, data[index]), torch.as_tensor(labels)[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()


def run_command(arguments: list[str], folder: Path) -> str:
    """Run snn-compile in a folder and return what it prints; SystemExit with its error if it fails."""
    command = [sys.executable, "-m", "snn_compile.compiler.cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def compiled(
    name: str,
    folder: Path,
    epochs: int,
    samples: int | None = None,
    run: Callable[[list[str], Path], str] = run_command,
) -> dict[str, Any]:
    """Train one network, compile it by the plain command, and return torch's and the command's accuracies."""
    factory, form = NETS[name]
    torch.manual_seed(0)
    network = factory()
    data, labels, test, wanted = digits(form)
    test, wanted = test[:samples], wanted[:samples]
    train(network, data, labels, epochs)
    torch.save(network.state_dict(), folder / "net.pt")
    np.savez(folder / "data.npz", inputs=test, labels=wanted)
    model = f"{HERE / 'classifier_nets.py'}:{factory.__name__}"
    arguments = ["net.pt", "--model", model, "--check", "data.npz", "--json"]
    found = json.loads(run(arguments, folder))
    kept = np.setdiff1d(np.arange(len(test)), found["holdout"]["indices"])
    with torch.no_grad():
        counts = answers(network, test[kept]).sum(0)
    own = float((counts.argmax(1).numpy() == wanted[kept]).mean())
    return {"torch": own, **found["accuracy"]}


def main() -> int:
    """See the file's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="keep the files there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | torch | float | deployed | drop, points (95 %) |\n|---|---|---|---|---|")
    for name in NETS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.folder or Path(temporary)) / name.replace(" ", "-").replace(",", "")
            folder.mkdir(parents=True, exist_ok=True)
            row = compiled(name, folder, given.epochs)
        low, high = row["interval"]
        print(
            f"| {name} | {row['torch']:.2%} | {row['float']:.2%} | {row['deployed']:.2%} | "
            f"{row['drop']:+.2f} ({low:+.2f} to {high:+.2f}) |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
