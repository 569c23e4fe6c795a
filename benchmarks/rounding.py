"""Rounding methods at few bits: nearest and calibrated, on the digits network and its whole test set.

    python benchmarks/rounding.py [--seeds 0 1 2] [--bits 4 3]

Trains the preset in floats, so that nothing is trained for the integers, compiles it with one table per
projection and prints, for each method, the accuracy, the paired difference to nearest rounding, and how many
of the hidden layer's spikes differ from the float network's, neuron by neuron and step by step, in shares of
those that it has.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from snn_compile import compiler, runtime, train
from snn_compile.runtime.reports.accuracy import score

METHODS = ("nearest", "reconstruct")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    arguments = parser.parse_args()
    print("| bits | seed | method | float | on the chip | over nearest | spikes that differ |")
    print("|---|---|---|---|---|---|---|")
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            train.fit(train.read_config("digits", ["weight_bits=0", "copies=0", f"seed={seed}"]), path)
            checkpoint = train.load_checkpoint(path)
        for bits in arguments.bits:
            for row in _rows(checkpoint, bits):
                print(f"| {bits} | {seed} | {row} |", flush=True)


def _rows(checkpoint: Any, bits: int) -> list[str]:
    options = checkpoint.data["options"]
    data, calibration = (
        runtime.load_data(checkpoint.data["name"], s, **options) for s in ("test", "calibration")
    )
    network = compiler.lower(checkpoint.graph)
    wanted = runtime.reference(network, data.inputs, record=("hidden",))
    spikes, right = wanted.spikes("hidden"), wanted.predictions == data.labels
    rows: list[str] = []
    nearest = None
    for method in METHODS:
        chosen = compiler.Options(weight_bits=bits, tables="one", rounding=method)
        program = compiler.compile_graph(checkpoint.graph, options=chosen, calibration=calibration.inputs)
        found = runtime.simulate(program, data.inputs, record=("hidden",))
        nearest = found.predictions if nearest is None else nearest
        against = score(found.predictions, data.labels, nearest)
        low, high = (-end for end in against.interval[::-1])
        wrong = float((found.spikes("hidden") != spikes).mean() / spikes.mean())
        rows.append(
            f"{method} | {right.mean():.2%} | {against.deployed:.2%} | {-against.drop:+.2f} "
            f"({low:.2f} to {high:.2f}) | {wrong:.2%}"
        )
    return rows


if __name__ == "__main__":
    main()
