"""The tables of docs/experiments.md from the rows of benchmarks/resonators.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_compile.train.analysis.convergence import Convergence, best_rates

Row = dict[str, Any]

PAIRS = (
    ("QT-ECG", "qt-ecg-brf", "qt-ecg-brf neuron=rf"),
    ("14x14", "smnist14-brf", "smnist14-rf"),
    ("28x28", "smnist28-brf", "smnist28-rf"),
    ("14x14, permuted", "smnist14-brf permuted=true", "smnist14-rf permuted=true"),
)
"""Balanced and plain resonators on the same task."""

REACHED = 0.6
FLAGS = ("refractory", "smooth_reset", "boundary")


def accuracy_table(rows: list[Row]) -> str:
    """Return a row for each case: test accuracies by seed, their mean, the aim, spikes and neurons."""
    lines = [
        head("run", "epochs", "test accuracy by seed", "mean", "aim", "spikes per neuron and step", "growing")
    ]
    for name, mine in grouped(rows).items():
        aim = mine[0]["aim"]
        by_seed = [tested(row) for row in mine]
        values = [row["test_accuracy"] for row in mine if row["test_accuracy"] is not None]
        mean = percent(float(np.mean(values))) if len(values) == len(mine) else "none"
        cells = [f"`{name}`", mine[0]["config"]["epochs"], ", ".join(by_seed), mean]
        cells += ["none" if aim is None else f"{aim:.0%}", listed(mine, "spike_rate", ".3f")]
        lines.append(line(*cells, listed(mine, "growing", "d")))
    return "\n".join(lines)


def spike_table(rows: list[Row]) -> str:
    """Return how often balanced resonators spike, as a share of plain ones, seed by seed."""
    found = {(row["name"], row["seed"]): row for row in rows if row["spike_rate"]}
    lines = [head("task", "BRF", "RF", "BRF / RF by seed")]
    for task, *names in PAIRS:
        both = [[row for (name, _), row in found.items() if name == one] for one in names]
        seeds = [row["seed"] for row in both[0] if (names[1], row["seed"]) in found]
        if seeds:
            pairs = [tuple(found[name, seed]["spike_rate"] for name in names) for seed in seeds]
            ratios = ", ".join(f"{one / two:.2f}" for one, two in pairs)
            lines.append(line(task, *(listed(some, "spike_rate", ".3f") for some in both), ratios))
    return "\n".join(lines)


def curves(rows: list[Row]) -> list[Convergence]:
    """Return the rows as the library's runs."""
    keys = ("preset", "learning_rate", "seed")
    return [
        Convergence(*(row["config"][k] for k in keys), tuple(row["accuracies"]), bool(row["diverged"]))
        for row in rows
    ]


def convergence_table(rows: list[Row]) -> str:
    """Return the epochs that each rate of each grid took, the best of a grid in bold."""
    runs = curves(rows)
    best = best_rates(runs, REACHED)
    lines = [
        head("preset", "learning rate", "epochs", f"epochs to {REACHED:.0%} by seed", "accuracy at the end")
    ]
    for name, rate in dict.fromkeys((one.name, one.learning_rate) for one in runs):
        mine = [one for one in runs if (one.name, one.learning_rate) == (name, rate)]
        values = ", ".join(str(one.epochs_to(REACHED) or "never") for one in mine)
        last = ", ".join(percent(one.accuracies[-1]) if one.accuracies else "none" for one in mine)
        shown = f"**{values}**" if best[name][0] == rate else values
        most = max(len(one.accuracies) for one in mine)
        lines.append(line(f"`{name}`", f"{rate:g}", most, shown, last))
    return "\n".join(lines)


def landscape_table(rows: list[Row]) -> str:
    """Return the numbers of the landscapes, a row for each network."""
    steps = [f"{scale['step']:g}" for scale in rows[0]["scales"]]
    kinds = ("negative curvature", "minima", "roughness")
    every = [f"{kind} at {step}" for step in steps for kind in kinds]
    lines = [head("network", "seed", "validation accuracy", *every, "losses")]
    for row in rows:
        low, high = row["losses"]
        cells = [f"`{row['name']}`", row["seed"], percent(row["accuracies"][-1])]
        for scale in row["scales"]:
            cells += [f"{scale['negative_curvature']:.0%}", scale["minima"], f"{scale['roughness']:.4f}"]
        lines.append(line(*cells, f"{low:.2f} to {high:.2f}"))
    return "\n".join(lines)


def ablation_table(rows: list[Row]) -> str:
    """Return a row for each kind of neuron."""
    names = (
        "refractory period",
        "smooth reset",
        "boundary",
        "test accuracy by seed",
        "after the first epoch",
    )
    lines = [head(*names, "spikes per neuron and step", "clamped", "growing")]
    for mine in grouped(rows).values():
        cells = ["yes" if mine[0]["config"][flag] else "no" for flag in FLAGS]
        cells.append(", ".join(map(tested, mine)))
        cells.append(
            ", ".join(percent(row["accuracies"][0]) if row["accuracies"] else "none" for row in mine)
        )
        cells += [
            listed(mine, "spike_rate", ".3f"),
            listed(mine, "clamped", "d"),
            listed(mine, "growing", "d"),
        ]
        lines.append(line(*cells))
    return "\n".join(lines)


def grouped(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows by name."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return found


def tested(row: Row) -> str:
    """Return the test accuracy of a run, or in which epoch it diverged."""
    if row["diverged"]:
        return f"diverged in epoch {len(row['accuracies']) + 1}"
    return percent(row["test_accuracy"])


def listed(rows: list[Row], key: str, form: str) -> str:
    """Return the values of a key with commas between them."""
    return ", ".join("none" if row[key] is None else format(row[key], form) for row in rows)


def percent(value: float | None) -> str:
    """Return a share in percent, cut rather than rounded to one or two digits: 0.92949 is no 93 %."""
    return "none" if value is None else f"{int(value * 10000 + 1e-6) / 100:.2f} %"


def head(*cells: str) -> str:
    """Return the head of a table."""
    return f"{line(*cells)}\n{'|---' * len(cells)}|"


def line(*cells: object) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, cells))} |"
