"""Resonators against plain ones, adaptive neurons and an LSTM: accuracy, spikes, convergence, landscapes.

    python benchmarks/resonators.py accuracy --data mnist-10k:FOLDER qt-ecg:FOLDER --seeds 0 1 2
    python benchmarks/resonators.py convergence | landscape | ablations      the same options

`accuracy` trains the presets, `convergence` a grid of learning rates for each kind of neuron,
`ablations` the eight balanced neurons with and without refractory period, smooth reset and divergence
boundary; `landscape` trains until the validation accuracy is 50 % and computes the losses around the
weights. A run is what snn-train does with its preset and settings. Each run leaves a checkpoint and its
measurements in the folder `--output`; a run that is already there with the same configuration is skipped, so
an interrupted benchmark resumes. Prints the tables of docs/experiments.md; the rows are in
PART.json, the figures in PART.png. `--only PATTERN` runs the cases whose name has a match.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from resonators_tables import (
    FLAGS,
    REACHED,
    Row,
    ablation_table,
    accuracy_table,
    convergence_table,
    curves,
    landscape_table,
    percent,
    spike_table,
)
from rich.console import Console

from snn_compile import runtime, train
from snn_compile.runtime.reports.report import write_report
from snn_compile.targets.errors import TrainingDiverged
from snn_compile.train.algorithms.bptt import fit
from snn_compile.train.analysis.convergence import best_rates, spectral_radius
from snn_compile.train.analysis.landscape import Landscape, error_landscape
from snn_compile.train.cli.analyse import draw_convergence, draw_landscape
from snn_compile.train.configs.config import RunConfig
from snn_compile.train.configs.presets import read_config
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork
from snn_compile.train.neurons.rf_brf import damping

MESSAGES = Console(stderr=True)
SCHEMA = {"name": "snn-compile-resonators", "version": 1}


@dataclass(frozen=True)
class Case:
    """A preset with settings, and the test accuracy that was aimed at."""

    preset: str
    settings: tuple[str, ...] = ()
    aim: float | None = None

    @property
    def name(self) -> str:
        """The preset, and what was set."""
        return " ".join([self.preset, *self.settings])


CASES = (
    Case("qt-ecg-brf", ("epochs=6",), 0.78),
    Case("qt-ecg-brf", (), 0.84),
    Case("qt-ecg-brf", ("learning_rate=0.2",)),
    Case("qt-ecg-brf", ("epochs=400",)),
    Case("qt-ecg-brf", ("neuron=rf",)),
    Case("smnist14-brf", (), 0.93),
    Case("smnist14-rf"),
    Case("smnist14-alif"),
    Case("smnist14-lstm"),
    Case("smnist28-brf", (), 0.93),
    Case("smnist28-rf"),
    Case("smnist14-brf", ("permuted=true",)),
    Case("smnist14-rf", ("permuted=true",)),
)

GRIDS = {
    "smnist14-brf": ((0.03, 0.1, 0.3), 8),
    "smnist14-rf": ((0.03, 0.1, 0.3), 8),
    "smnist14-alif": ((0.003, 0.01, 0.03, 0.1), 30),
    "smnist14-lstm": ((0.003, 0.01, 0.03), 20),
}
"""Learning rates and epochs."""

SLOWLY = ("batch_size=256", "learning_rate=0.015")
HALFWAY = (
    Case("smnist14-brf", SLOWLY),
    Case("smnist14-rf", SLOWLY),
    Case("smnist14-alif"),
    Case("smnist14-brf", ("batch_size=256",)),
    Case("smnist14-rf", ("batch_size=256",)),
)
"""How the networks of the landscapes are trained, so that an epoch is short enough to stop near 50 %; the
last two at the published batch and learning rate, of which one epoch may go past it."""
STOPPED_AT, SHOWN, POINTS = 0.5, 256, 51
SCALES = (1, 5)
"""Steps, in points, at which smoothness is reported: between neighbors, single spikes outweigh the shape."""

ABLATED = ("epochs=10",)


class Evaluator:
    """Trains and measures each case and keeps the results in a folder."""

    def __init__(self, folder: Path, data: Iterable[str], seeds: Sequence[int], only: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seeds, self.only = folder, seeds, only
        self.data = {name.partition(":")[0]: name for name in data}

    def trained(self, case: Case, seed: int, until: float | None = None) -> Row:
        """Return what a training gave: as it stands in the folder, or trained now.

        With `until` it stops after the first epoch that reaches this validation accuracy.
        """
        base, *settings = case.preset, *case.settings, f"seed={seed}"
        plain = read_config(base, settings).plain()
        words = [base, *settings] if until is None else [base, *settings, f"until={until}"]
        file = self.folder / f"{'-'.join(words).replace('=', '-').replace(',', '-')}.json"
        wanted = json.loads(json.dumps({**plain, "until": until}))
        if file.exists():
            row: Row = json.loads(file.read_text(encoding="utf-8"))
            if row["config"] == wanted:
                return row
            MESSAGES.print(f"{file.name}: of another configuration; run again")
        MESSAGES.print(f"{case.name}, seed {seed}")
        place = self.data.get(plain["data"], plain["data"])
        config = read_config(base, [*settings, f"data={place}"])
        row = {
            "name": case.name,
            "seed": seed,
            "checkpoint": file.with_suffix(".pt").name,
            "config": wanted,
            **run(config, file.with_suffix(".pt"), until),
        }
        write_report(file, (json.dumps(row) + "\n").encode())
        MESSAGES.print(f"  best validation accuracy {percent(max(row['accuracies'], default=None))}")
        return row

    def rows(self, cases: Iterable[Case], until: float | None = None) -> list[Row]:
        """Return the rows of some cases, every seed of each."""
        some = [case for case in cases if re.search(self.only, case.name)]
        return [{**self.trained(case, s, until), "aim": case.aim} for case in some for s in self.seeds]

    def write(self, part: str, rows: list[Row], **more: Any) -> None:
        """Write the rows of a part."""
        text = json.dumps({"schema": SCHEMA, "part": part, **more, "rows": rows}, indent=1)
        write_report(self.folder / f"{part}.json", (text + "\n").encode())

    def draw(self, part: str, figure: Figure) -> None:
        """Write the figure of a part."""
        out = BytesIO()
        figure.savefig(out, format="png", dpi=100, metadata={"Software": None})
        write_report(self.folder / f"{part}.png", out.getvalue())


def run(config: RunConfig, path: Path, until: float | None = None) -> Row:
    """Train and return what was measured; a diverged training has no test accuracy."""
    accuracies: list[float] = []

    def note(progress: train.training.Progress) -> None:
        accuracies.append(progress.value)
        if until is not None and progress.value >= until:
            raise KeyboardInterrupt

    started, diverged, metrics = time.process_time(), "", {}
    try:
        training = fit(config, path, note)
        if training.interrupted and (until is None or accuracies[-1] < until):
            raise KeyboardInterrupt
        metrics = training.metrics
    except TrainingDiverged as error:
        diverged = str(error)
    spiking = metrics.get("spike_rates")  # an LSTM has none
    return {
        "test_accuracy": metrics.get("test_accuracy"),
        "best_epoch": metrics.get("epoch"),
        "spike_rate": metrics["spike_rate"] if spiking else None,
        "clamped": metrics.get("clamped_neurons", 0),
        "growing": growing(path) if metrics else None,
        "accuracies": accuracies,
        "diverged": diverged,
        "cpu_seconds": round(time.process_time() - started, 2),
    }


def restored(path: Path) -> tuple[RecurrentNetwork, train.Checkpoint]:
    """Return the network of a checkpoint."""
    held = train.load_checkpoint(path)
    network = RecurrentNetwork(RecurrentConfig.from_dict(held.config["network"]))
    network.load_state_dict(dict(held.state_dict))
    return network, held


def growing(path: Path) -> int | None:
    """Return how many resonators of a checkpoint grow by themselves: spectral radius above 1."""
    network, _ = restored(path)
    if network.config.neuron not in ("rf", "brf"):
        return None
    with torch.no_grad():
        omega, b = damping(network.omega.double(), network.offset.double(), network.config.resonance())
    return int((spectral_radius(omega.numpy(), b.numpy(), network.config.delta) > 1 + 1e-9).sum())


def accuracy(evaluator: Evaluator) -> None:
    """Train the presets; tables of accuracies and of spikes."""
    rows = evaluator.rows(CASES)
    evaluator.write("accuracy", rows)
    print(accuracy_table(rows))
    print()
    print(spike_table(rows))


def convergence(evaluator: Evaluator) -> None:
    """Train the grids; a table of epochs to an accuracy, and the curves of the best rates."""
    rows = []
    for preset, (rates, epochs) in GRIDS.items():
        rows += evaluator.rows(Case(preset, (f"learning_rate={rate}", f"epochs={epochs}")) for rate in rates)
    evaluator.write("convergence", rows, level=REACHED)
    print(convergence_table(rows))
    runs = curves(rows)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    best = {name: rate for name, (rate, _) in best_rates(runs, REACHED).items()}
    draw_convergence(axis, runs, best, REACHED)
    evaluator.draw("convergence", figure)


def landscape(evaluator: Evaluator) -> None:
    """Train halfway and compute the landscapes; a table, and the contours of the first seed."""
    rows, first = [], {}
    for case in HALFWAY:
        for row in evaluator.rows([case], STOPPED_AT):
            made = surface(evaluator.folder / row["checkpoint"])
            first.setdefault(case.preset, made)
            rows.append(
                {
                    **{key: row[key] for key in ("name", "seed", "config", "accuracies")},
                    "scales": [smoothness(made, every) for every in SCALES],
                    "losses": [float(made.losses.min()), float(made.losses.max())],
                    "loss_here": float(made.losses[POINTS // 2, POINTS // 2]),
                }
            )
    evaluator.write("landscape", rows, points=POINTS, samples=SHOWN)
    print(landscape_table(rows))
    figure = Figure(figsize=(4.2 * len(first), 3.6), layout="constrained")
    axes = figure.subplots(1, len(first), squeeze=False)[0]
    for axis, (preset, made) in zip(axes, first.items(), strict=True):
        draw_landscape(axis, made, preset)
    evaluator.draw("landscape", figure)


def smoothness(made: Landscape, every: int) -> Row:
    """Return the numbers of a landscape of which so many points are one step."""
    thin = Landscape(made.alphas[::every], made.betas[::every], made.losses[::every, ::every])
    return {
        "step": round(float(thin.alphas[1] - thin.alphas[0]), 6),
        "negative_curvature": thin.negative_curvature(),
        "minima": thin.minima(),
        "roughness": thin.roughness(),
    }


def surface(path: Path) -> Landscape:
    """Return the landscape of a checkpoint, computed unless its file is newer than the checkpoint."""
    kept = path.with_suffix(".npz")
    if not (kept.exists() and kept.stat().st_mtime >= path.stat().st_mtime):
        MESSAGES.print(f"{path.name}: landscape of {POINTS}x{POINTS} points")
        network, held = restored(path)
        assert held.data is not None
        test = runtime.load_data(held.data["name"], "test", **held.data["options"])
        assert test.labels is not None
        made = error_landscape(network, test.inputs[:SHOWN], test.labels[:SHOWN], points=POINTS)
        out = BytesIO()
        np.savez(out, alphas=made.alphas, betas=made.betas, losses=made.losses)
        write_report(kept, out.getvalue())
    with np.load(kept) as found:
        return Landscape(found["alphas"], found["betas"], found["losses"])


def ablations(evaluator: Evaluator) -> None:
    """Train the eight kinds of neuron; a table."""
    kinds = list(product(("true", "false"), repeat=3))
    settings = [tuple(f"{flag}={value}" for flag, value in zip(FLAGS, kind, strict=True)) for kind in kinds]
    rows = evaluator.rows(Case("smnist14-brf", (*some, *ABLATED)) for some in settings)
    evaluator.write("ablations", rows)
    print(ablation_table(rows))


PARTS = {"accuracy": accuracy, "convergence": convergence, "landscape": landscape, "ablations": ablations}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a part and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME:FOLDER", help="where data sets are")
    parser.add_argument("--output", type=Path, default=Path("resonators"), help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="cases by their name")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    PARTS[arguments.part](Evaluator(arguments.output, arguments.data, arguments.seeds, arguments.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
