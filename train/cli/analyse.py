"""snn-train analyse: why recurrent and feedback networks converge, in numbers and figures.

    boundary      spectral radius over the (omega, b) plane, with the divergence boundary
    gradient      norm of a gradient through time, below, on and above the boundary
    landscape     error landscape of a checkpoint around its input and recurrent weights
    convergence   epochs to an accuracy, over seeds, with a grid of learning rates for each preset
    equilibrium   how rates of a feedback network approach their equilibrium, and accuracy against steps

Each prints its numbers, as a table or as JSON, and with -o writes its figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.targets.errors import SnnCompileError
from snn_compile.targets.output import check_writable
from snn_compile.train.cli.analyse_equilibrium import add_arguments
from snn_compile.train.cli.answer import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from snn_compile.train.algorithms.training import Progress
    from snn_compile.train.analysis.convergence import Convergence
    from snn_compile.train.analysis.landscape import Landscape

FAINT = "#c4cad2"
DELTAS = (1e-9, 1e9)
"""Lengths of a step in seconds that are analysed."""
SMALLEST = 2.0**-1022
"""The smallest number that float64 holds to full precision."""
LARGEST_NORM = 1e150
"""Its square is still a number of float64."""


def analyse(argv: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Run `snn-train analyse` with its arguments; return the result and whether to print it as JSON."""
    arguments = parser().parse_args(argv)
    if arguments.output is not None and arguments.output.suffix != ".png":
        raise SnnCompileError(f"-o {arguments.output}: a figure is written as .png")
    if arguments.output is not None:
        check_writable(arguments.output)
    found, draw = arguments.run(arguments)
    if arguments.output is not None:
        _write(arguments.output, draw)
        found["figure"] = str(arguments.output)
    schema = {"name": f"snn-train-analyse-{arguments.analysis}", "version": 1}
    return {"schema": schema, **found}, arguments.json


def parser() -> argparse.ArgumentParser:
    """Return the parser of the analyses."""
    made = argparse.ArgumentParser(prog="snn-train analyse", description=(__doc__ or "").partition("\n")[2])
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = made.add_subparsers(dest="analysis", required=True, metavar="ANALYSIS")

    def add(name: str, run: Callable[[argparse.Namespace], Answer], text: str) -> argparse.ArgumentParser:
        one = kinds.add_parser(name, help=text, description=text)
        one.add_argument("-o", "--output", metavar="FIGURE.png", type=Path, help="where the figure goes")
        one.add_argument("--json", action="store_true", help="print the result as one JSON object")
        one.set_defaults(run=run)
        return one

    plane = add("boundary", _boundary, "spectral radius over the (omega, b) plane")
    plane.add_argument("--points", type=int, default=201, help="points on each axis (default 201)")
    times = add("gradient", _gradient, "norm of a gradient through time")
    times.add_argument("--omega", type=float, default=10.0, help="rad/s (default 10)")
    times.add_argument("--steps", type=int, default=1000, help="steps back in time (default 1000)")
    for one in (plane, times):
        one.add_argument("--delta", type=float, default=0.01, help="seconds a step (default 0.01)")
    land = add("landscape", _landscape, "error landscape of a checkpoint that snn-train wrote")
    land.add_argument("model", metavar="MODEL.pt", type=Path)
    land.add_argument("--data", metavar="DATA", help="another place of the data it was trained on")
    land.add_argument("--points", type=int, default=51, help="points on each axis (default 51)")
    land.add_argument("--samples", type=int, default=256, help="samples of the test split (default 256)")
    land.add_argument("--seed", type=int, default=0, help="of the two directions")
    runs = add("convergence", _convergence, "epochs to an accuracy, over seeds and learning rates")
    runs.add_argument("presets", nargs="+", metavar="PRESET[=RATE,RATE...]", help="with its learning rates")
    runs.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    runs.add_argument("--level", type=float, default=0.6, help="validation accuracy to reach (default 0.6)")
    runs.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="as in snn-train")
    add_arguments(add("equilibrium", _equilibrium, "rates on their way to the equilibrium"))
    return made


def _equilibrium(arguments: argparse.Namespace) -> Answer:
    from snn_compile.train.cli.analyse_equilibrium import equilibrium

    return equilibrium(arguments)


def table(found: dict[str, Any]) -> str:
    """Return a result as lines of text."""
    hidden = ("schema", "interrupted")
    rows = {key.replace("_", " "): value for key, value in found.items() if key not in hidden}
    width = max(map(len, rows))
    lines = []
    for key, value in rows.items():
        parts = value if isinstance(value, list) else [value]
        lines += [f"{key if not i else '':{width}}  {_text(part)}" for i, part in enumerate(parts)]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k.replace('_', ' ')} {_text(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else ("never" if value is None else str(value))


def _write(path: Path, draw: Callable[[Figure], None]) -> None:
    from matplotlib.figure import Figure

    from snn_compile.runtime.reports.report import write_report

    figure, out = Figure(figsize=(7, 4.5), layout="constrained"), BytesIO()
    draw(figure)
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    write_report(path, out.getvalue())


def _check_delta(delta: float) -> None:
    least, most = DELTAS
    if not least <= delta <= most:
        raise SnnCompileError(
            f"--delta {delta:g}: a step's length must be from {least:g} to {most:g} seconds"
        )


def _boundary(arguments: argparse.Namespace) -> Answer:
    import numpy as np

    from snn_compile.train.analysis.convergence import spectral_radius
    from snn_compile.train.neurons.rf_brf import divergence_boundary

    delta, points = arguments.delta, arguments.points
    _check_delta(delta)
    if points < 2:
        raise SnnCompileError(f"--points {points}: give at least 2")
    omega = np.linspace(0, 1 / delta, points)
    b = np.linspace(-1.2 / delta, 0.2 / delta, points)
    radius = spectral_radius(omega[None], b[:, None], delta)
    on = spectral_radius(omega[:-1], divergence_boundary(omega[:-1], delta), delta)
    found = {
        "delta": delta,
        "points": points,
        "share_that_diverges": float((radius > 1).mean()),
        "largest_deviation_from_1_on_the_boundary": float(np.abs(on - 1).max()),
    }

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        shown = axis.pcolormesh(omega, b, radius, cmap="RdBu_r", vmin=0, vmax=2, shading="auto")
        axis.plot(omega, divergence_boundary(omega, delta), color="black", label="p(ω), radius 1")
        for height, word in ((0.1, "grows"), (-0.5, "decays")):
            axis.text(0.05 / delta, height / delta, word, va="center")
        figure.colorbar(shown, ax=axis, label="spectral radius |1 + δ(b + iω)|")
        axis.set(xlabel="ω, rad/s", ylabel="b, 1/s", title=f"divergence boundary, δ = {delta:g} s")
        axis.legend(loc="lower left", framealpha=1)

    return found, draw


def _gradient(arguments: argparse.Namespace) -> Answer:
    import numpy as np

    from snn_compile.train.analysis.convergence import gradient_norms, spectral_radius
    from snn_compile.train.neurons.rf_brf import EDGE, divergence_boundary

    omega, delta, steps = arguments.omega, arguments.delta, arguments.steps
    _check_delta(delta)
    if not (omega >= 0 and delta * omega <= EDGE):
        raise SnnCompileError(
            f"--omega {omega:g} --delta {delta:g}: omega must be at least 0, and omega delta below 1"
        )
    if steps < 1:
        raise SnnCompileError(f"--steps {steps}: give at least 1")
    away = np.array([-1.0, -0.1, 0.0, 0.1])
    b = divergence_boundary(omega, delta) + away
    with np.errstate(over="ignore"):
        wanted = spectral_radius(omega, b, delta) ** np.arange(steps + 1)[:, None]
    if not wanted.max() < LARGEST_NORM:
        raise SnnCompileError(
            f"--delta {delta:g} --steps {steps}: the gradient off the boundary grows past {LARGEST_NORM:g}; "
            "give fewer steps or a smaller delta"
        )
    norms = gradient_norms(np.full(4, omega), b, delta, steps)
    deviation = np.abs(norms - wanted) / np.maximum(wanted, SMALLEST)
    found = {
        "omega": omega,
        "delta": delta,
        "steps": steps,
        "norms": [{"b_minus_p": float(a), "norm": float(n)} for a, n in zip(away, norms[-1], strict=True)],
        "largest_relative_deviation_from_the_power": float(deviation.max()),
    }

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for distance, norm in zip(away, norms.T, strict=True):
            sign = "+" if distance > 0 else "−"  # noqa: RUF001
            axis.plot(norm, label=f"b = p(ω) {sign} {abs(distance):g} /s" if distance else "b = p(ω)")
        axis.set(xlabel="steps back in time", ylabel="norm of the gradient", yscale="log")
        axis.set_title(f"gradient through time, ω = {omega:g} rad/s, δ = {delta:g} s")
        axis.legend()

    return found, draw


def _landscape(arguments: argparse.Namespace) -> Answer:
    from snn_compile.runtime.data.registry import load_data
    from snn_compile.train.analysis.landscape import error_landscape
    from snn_compile.train.checkpoints.checkpoint import load_checkpoint
    from snn_compile.train.configs.recurrent import RECURRENT
    from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork

    held = load_checkpoint(arguments.model)
    if held.config.get("neuron") not in RECURRENT or held.data is None:
        raise SnnCompileError(
            f"{arguments.model}: not a recurrent network of snn-train ({', '.join(RECURRENT)}); its neurons "
            f"are {held.config.get('neuron')}"
        )
    network = RecurrentNetwork(RecurrentConfig.from_dict(held.config["network"]))
    network.load_state_dict(dict(held.state_dict))
    data = load_data(arguments.data or held.data["name"], "test", **held.data["options"])
    some = slice(0, arguments.samples)
    if arguments.samples < 1 or data.labels is None:
        raise SnnCompileError(f"data {data.name}: give at least one sample, and labels")
    made = error_landscape(
        network, data.inputs[some], data.labels[some], points=arguments.points, seed=arguments.seed
    )
    found = {
        "model": str(arguments.model),
        "neuron": network.config.neuron,
        "points": arguments.points,
        "samples": len(data.inputs[some]),
        "negative_curvature": made.negative_curvature(),
        "interior_minima": made.minima(),
        "roughness": made.roughness(),
        "loss_here": float(made.losses[arguments.points // 2, arguments.points // 2]),
        "loss_range": [float(made.losses.min()), float(made.losses.max())],
    }

    def draw(figure: Figure) -> None:
        draw_landscape(figure.subplots(), made, f"error landscape, {network.config.neuron}")

    return found, draw


def draw_landscape(axis: Axes, made: Landscape, title: str) -> None:
    """Draw the contours of a landscape, a cross where the network itself is."""
    from matplotlib.ticker import MaxNLocator

    levels = MaxNLocator(24).tick_values(made.losses.min(), made.losses.max())
    shown = axis.contourf(made.alphas, made.betas, made.losses.T, levels=levels, cmap="viridis")
    axis.contour(made.alphas, made.betas, made.losses.T, levels=levels, colors="white", linewidths=0.2)
    axis.plot(0, 0, "x", color="white")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.figure.colorbar(shown, ax=axis, label="loss", ticks=MaxNLocator(8))
    axis.set(xlabel="α", ylabel="β", title=title, aspect="equal")


def _convergence(arguments: argparse.Namespace) -> Answer:
    from snn_compile.train.analysis.convergence import best_rates, convergence
    from snn_compile.train.cli.progress import progress_bar
    from snn_compile.train.configs.bptt import TrainConfig
    from snn_compile.train.configs.presets import read_config

    configs = {}
    rates: dict[str, Sequence[float]] = {}
    for text in arguments.presets:
        name, _, grid = text.partition("=")
        config = read_config(name, arguments.set)
        if not isinstance(config, TrainConfig):
            raise SnnCompileError(
                f"{name} is trained by {config.algorithm}; convergence compares bptt presets"
            )
        configs[name] = config
        try:
            rates[name] = tuple(float(rate) for rate in grid.split(",") if rate)
        except ValueError as error:
            raise SnnCompileError(f"{text}: learning rates are numbers with commas between") from error
    runs: list[Convergence] = []
    interrupted = False

    def watch(name: str, rate: float, seed: int) -> AbstractContextManager[Callable[[Progress], None]]:
        return progress_bar(configs[name].epochs, f"{name}, rate {rate:g}, seed {seed}")

    try:
        convergence(configs, arguments.seeds, rates, runs.append, watch)
    except KeyboardInterrupt:
        if not runs:
            raise
        interrupted = True
    best = best_rates(runs, arguments.level)
    found = {
        "level": arguments.level,
        "seeds": arguments.seeds,
        "best": [{"preset": n, "learning_rate": r, "epochs": e} for n, (r, e) in best.items()],
        "runs": [
            {
                "preset": r.name,
                "learning_rate": r.learning_rate,
                "seed": r.seed,
                "diverged": r.diverged,
                "accuracies": r.accuracies,
            }
            for r in runs
        ],
        "interrupted": interrupted,
    }

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        draw_convergence(axis, runs, {name: rate for name, (rate, _) in best.items()}, arguments.level)
        axis.set_title("mean and range over seeds, best rate of each grid", fontsize=10)

    return found, draw


def draw_convergence(
    axis: Axes, runs: Sequence[Convergence], rates: Mapping[str, float], level: float
) -> None:
    """Draw the validation accuracy over epochs of each name at one learning rate, mean and range of seeds."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for name, rate in rates.items():
        mine = [r for r in runs if (r.name, r.learning_rate) == (name, rate) and not r.diverged]
        lines = [r.accuracies for r in mine]
        if not lines:
            continue
        epochs, label = np.arange(1, len(lines[0]) + 1), f"{name}, rate {rate:g}, {len(lines)} seeds"
        (line,) = axis.plot(epochs, np.mean(lines, axis=0), ".-", label=label)
        low, high = np.min(lines, axis=0), np.max(lines, axis=0)
        axis.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2)
    axis.axhline(level, color=FAINT, label=f"{level:.0%}", zorder=0)
    axis.set(xlabel="epoch", ylabel="validation accuracy")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.legend()
