"""snn-train analyse equilibrium: rates on their way to the equilibrium, and accuracy against steps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.targets.errors import SnnCompileError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from snn_compile.train.analysis.equilibrium import Approach, Steps
    from snn_compile.train.cli.answer import Answer

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Steps at which numbers are printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the analysis."""
    parser.add_argument("model", metavar="MODEL.pt", type=Path)
    parser.add_argument("--data", metavar="DATA", help="another place of the data it was trained on")
    parser.add_argument("--times", type=int, default=100, help="steps of the approach (default 100)")
    parser.add_argument(
        "--samples", type=int, default=256, help="samples of the test split for it (default 256)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        nargs="+",
        metavar="T",
        help="steps at which accuracy is measured, on all samples",
    )


def equilibrium(arguments: argparse.Namespace) -> Answer:
    """Return the result of the analysis, and the function that draws it."""
    from snn_compile.runtime.data.registry import load_data
    from snn_compile.train.algorithms.batches import labelled, tensors
    from snn_compile.train.algorithms.training import single_thread
    from snn_compile.train.analysis.equilibrium import accuracy_by_steps, approach, load_feedback
    from snn_compile.train.checkpoints.checkpoint import load_checkpoint

    if arguments.times < 1 or arguments.samples < 1:
        raise SnnCompileError(
            f"{arguments.times} steps, {arguments.samples} samples: give at least one of both"
        )
    held = load_checkpoint(arguments.model)
    network = load_feedback(held, str(arguments.model))
    if held.data is None:
        raise SnnCompileError(f"{arguments.model}: does not say what data it was trained on")
    data = labelled(load_data(arguments.data or held.data["name"], "test", **held.data["options"]))
    trained = data.inputs.shape[1]
    steps = sorted(set(arguments.steps or (1, 2, 3, trained, 2 * trained, 4 * trained)))
    with single_thread():
        inputs, _ = tensors(data)
        way = approach(network, inputs[: arguments.samples], arguments.times)
        curve = accuracy_by_steps(network, data, steps)
    bound = network.restriction()
    names = network.layer_names
    shown = [t for t in SHOWN if t < arguments.times] + [arguments.times]

    def rows(values: Any) -> list[dict[str, Any]]:
        return [{"step": t} | dict(zip(names, values[t - 1].tolist(), strict=True)) for t in shown]

    found: dict[str, Any] = {
        "model": str(arguments.model),
        "samples": len(inputs[: arguments.samples]),
        "norms": list(bound.norms),
        "norm_product": bound.product,
        "norm_bound": bound.bound,
        "one_equilibrium": bound.holds,
        "residual": rows(way.residuals),
        "distance": way.missing if way.distances is None else rows(way.distances),
        "trained_steps": trained,
        "accuracy": [
            {"steps": one.steps, "accuracy": one.accuracy, "spike_rate": one.spike_rate} for one in curve
        ],
    }

    return found, lambda figure: _draw(figure, names, way, curve, trained)


def _draw(figure: Figure, names: Sequence[str], way: Approach, curve: Sequence[Steps], trained: int) -> None:
    left, right = figure.subplots(1, 2)
    times = range(1, len(way.residuals) + 1)
    for number, name in enumerate(names):
        (line,) = left.plot(times, way.residuals[:, number], label=f"{name}, equation")
        if way.distances is not None:
            left.plot(times, way.distances[:, number], "--", color=line.get_color(), label=f"{name}, a*")
    left.set(xscale="log", yscale="log", xlabel="steps", ylabel="relative distance")
    left.set_title("rates to the equilibrium", fontsize=10)
    left.legend(fontsize=8)
    steps = [one.steps for one in curve]
    right.plot(steps, [one.accuracy for one in curve], "o-")
    right.axvline(trained, color="#c4cad2")
    right.set(xscale="log", xlabel="steps", ylabel="test accuracy")
    right.set_xticks(steps, labels=[str(count) for count in steps])
    right.minorticks_off()
    right.set_title(f"trained with {trained} steps", fontsize=10)
