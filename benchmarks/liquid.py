"""Liquid spiking neurons on a chip: accuracy of trained networks, and random programs on every device.

    python benchmarks/liquid.py accuracy [--seeds 0 1 2 3 4] [--kinds dense convolutions]
    python benchmarks/liquid.py programs [--count 120] [--first 0]

`accuracy` trains by forward propagation through time on the 8x8 digits, a recurrent layer of 128 neurons that
reads a row per step and two layers of convolutions that are shown the image for 8 steps, compiles with
default settings on the calibration split and runs the whole test split. `programs` compares random programs
with liquid neurons: the oracle, `loihi2-sim` on one and two threads and Lava's processes, after saving and
loading.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from snn_compile import compiler, runtime, train
from snn_compile.runtime.reports.accuracy import score
from snn_compile.train.algorithms import fptt

COMMON = ["readout=leaky", "tau_readout=5,1", "flip=false", "alpha=0.1"]
KINDS = {
    "dense": [
        "data=digits", "layout=rows", "channels=", "hidden=128", "recurrent=true", "block=0", "parts=4",
        "optimizer=adam", "learning_rate=0.005", "epochs=80",
    ],
    "convolutions": ["channels=8,16", "hidden=64", "epochs=30"],
}  # fmt: skip


def main() -> None:
    """Run one of the two and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "programs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what == "programs":
        compare_programs(arguments.first, arguments.count)
        return
    print("| network | seed | float | on the chip | drop, points | other predictions | spikes that differ |")
    print("|---|---|---|---|---|---|---|")
    for kind in arguments.kinds:
        deploy(kind, arguments.seeds)


def deploy(kind: str, seeds: list[int]) -> None:
    """Train, compile and run a network of every seed; print a row each and one of all together."""
    ideal, found, labels = [], [], []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            data = [f"data={images(Path(folder))}"] if kind == "convolutions" else []
            path = Path(folder) / "model.pt"
            words = [*COMMON, *KINDS[kind], *data, f"seed={seed}"]
            fptt.fit(train.read_config("fashion-lsn-fptt", words), path)
            held = train.load_checkpoint(path)
            options = held.data["options"]
            test, calibration = (
                runtime.load_data(held.data["name"], part, **options) for part in ("test", "calibration")
            )
        network = compiler.lower(held.graph)
        names = [p.name for p in network.populations if p.model == "lsn"]
        program = compiler.compile_graph(held.graph, calibration=calibration.inputs)
        wanted = runtime.reference(network, test.inputs, record=names)
        record = runtime.simulate(program, test.inputs, record=names)
        apart = sum(float((record.spikes(n) != wanted.spikes(n)).sum()) for n in names)
        share = apart / sum(float(wanted.spikes(n).sum()) for n in names)
        ideal.append(wanted.predictions)
        found.append(record.predictions)
        labels.append(test.labels)
        print(row(kind, str(seed), found[-1], labels[-1], ideal[-1], f"{share:.1%}"), flush=True)
    everything = (np.concatenate(x) for x in (found, labels, ideal))
    print(row(kind, "all", *everything, ""), flush=True)


def row(kind: str, seed: str, found: Any, labels: Any, ideal: Any, share: str) -> str:
    """Return a row of the table, with the paired 95 % interval of the drop."""
    a = score(found, labels, ideal)
    assert a.reference is not None and a.drop is not None and a.interval is not None
    low, high = a.interval
    other = f"{(found != ideal).sum()} of {len(found)}"
    drop = f"{a.drop:+.2f} ({low:+.2f} to {high:+.2f})"
    return f"| {kind} | {seed} | {a.reference:.2%} | {a.deployed:.2%} | {drop} | {other} | {share} |"


def images(folder: Path) -> Path:
    """Write the digits as images of (1, 8, 8), each shown for 8 steps, and return the file."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    shown = np.repeat((digits.images[order] / 16).astype(np.float32)[:, None, None], 8, axis=1)
    np.savez(folder / "digits.npz", inputs=shown, labels=digits.target[order])
    return folder / "digits.npz"


def compare_programs(first: int, count: int) -> None:
    """Compare `count` random programs; raise AssertionError, naming the seed, at the first difference."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support import comparing, random_programs

    limits = random_programs.Limits(neurons=16, steps=20, models=random_programs.LIQUID)
    populations: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            case = random_programs.case(seed, limits)
            comparing.check_everywhere(case, Path(folder) / "program", f"seed {seed}")
            for p in case.program.populations:
                populations[p.model] = populations.get(p.model, 0) + 1
    held = ", ".join(f"{number} {model}" for model, number in sorted(populations.items()))
    print(f"{count} programs are equal on every device; populations: {held}")


if __name__ == "__main__":
    main()
