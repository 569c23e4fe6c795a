"""The experiment `snn-train dynamics`: orders of Euler-Maruyama and Lyapunov exponents of LIF networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from snn_compile.compiler.analysis.slopes import Slope
from snn_compile.train.analysis.euler_maruyama import (
    Convergence,
    LifSystem,
    converge,
    noisy_voltage,
    small_loop,
    two_layers,
)
from snn_compile.train.analysis.lyapunov import lyapunov

SCHEMA = {"name": "snn-dynamics", "version": 1}
EXPECTED = {"strong": 0.5, "weak": 1.0, "mismatch": 1.0, "lyapunov at sigma = 0": 0.0}
"""Orders in the step: the paper's bounds for strong (up to logarithms) and weak; exact for the exponent."""


def _one(mu: float, sigma: float) -> LifSystem:
    return LifSystem(np.zeros((1, 1)), np.array([mu]), np.array([sigma]), np.zeros(1, np.int64))


def lyapunov_settings() -> dict[str, LifSystem]:
    """Return the systems whose exponents are printed, by name."""
    return {
        "mu 1.5, sigma 0": _one(1.5, 0.0),
        "mu 1.1, sigma 0": _one(1.1, 0.0),
        "mu 1.5, sigma 0.3": _one(1.5, 0.3),
        "mu 1.1, sigma 1.0": _one(1.1, 1.0),
        "mu 0.8, sigma 1.0": _one(0.8, 1.0),
        "two layers": two_layers(),
    }


def run_dynamics(
    paths: int = 20_000,
    levels: int = 7,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    finest: float = 2.0**-10,
) -> tuple[dict[str, Any], dict[str, Convergence]]:
    """Return the result as plain values, and the convergence of each system by name.

    `paths` of the two-layer network; the recurrent loop and the control take half as many.
    """
    began = time.process_time()
    found: dict[str, Convergence] = {}
    for name, system, count in (
        ("two_layers", two_layers(), paths),
        ("recurrent", small_loop(), max(paths // 2, 400)),
        ("voltage_noise", noisy_voltage(), max(paths // 2, 400)),
    ):
        tell(f"{name.replace('_', ' ')}: {count:,} paths, {levels} steps")
        found[name] = converge(system, count, levels, finest, horizon=2.0, seed=seed)
    tell("Lyapunov exponents")
    exponents = [
        {
            "setting": name,
            "neuron": e.neuron,
            "saltation": e.saltation,
            "perturbation": e.perturbation,
            "spikes": e.spikes,
        }
        for name, system in lyapunov_settings().items()
        for e in lyapunov(system, seed=seed)
    ]
    main = found["two_layers"].json()
    result = {
        "schema": SCHEMA,
        "preset": "dynamics",
        "seed": seed,
        **main,
        "recurrent": found["recurrent"].json(),
        "voltage_noise": found["voltage_noise"].json(),
        "lyapunov": exponents,
        "expected": EXPECTED,
        "cpu_seconds": round(time.process_time() - began, 2),
    }
    return result, found


def dynamics_text(result: dict[str, Any]) -> str:
    """Return the result as tables."""
    lines = [
        f"Euler-Maruyama, {result['paths']:,} paths at {len(result['steps'])} steps "
        f"{result['steps'][-1]:g} to {result['steps'][0]:g} against {result['reference_step']:g}",
        "",
        f"{'slope in log-log':22}{'two layers':>26}{'recurrent':>26}{'noise in v (control)':>26}",
    ]
    for item in ("strong", "weak", "mismatch", "spike_time"):
        cells = [_cell(body[item]) for body in (result, result["recurrent"], result["voltage_noise"])]
        lines.append(f"{item.replace('_', ' '):22}" + "".join(f"{cell:>26}" for cell in cells))
    lines += ["", f"{'Lyapunov exponent':22}{'neuron':>8}{'saltation':>12}{'perturbation':>14}{'spikes':>8}"]
    for row in result["lyapunov"]:
        lines.append(
            f"{row['setting']:22}{row['neuron']:>8}{row['saltation']:>12.4f}"
            f"{row['perturbation']:>14.4f}{row['spikes']:>8}"
        )
    return "\n".join(lines)


def _cell(fit: dict[str, Any]) -> str:
    return Slope(*(nan if fit[key] is None else fit[key] for key in ("slope", "low", "high"))).text()


def draw_dynamics(found: dict[str, Convergence], path: str | Path) -> None:
    """Draw errors against the step, and the crossing speeds, into a figure file, whole or not at all."""
    from matplotlib.figure import Figure

    from snn_compile.targets.output import write_whole

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2)
    titles = {"two_layers": "two layers", "recurrent": "recurrent loop", "voltage_noise": "noise in v"}
    for axis, (name, title) in zip(axes.flat, titles.items(), strict=False):
        _draw_orders(axis, found[name], title)
    axis, main = axes[1, 1], found["two_layers"]
    density = main.crossings / main.crossings.sum() / np.diff(main.speeds)
    used = main.speeds[:-1] < 1.05 * main.speeds[1:][main.crossings > 0].max()
    axis.bar(main.speeds[:-1][used], density[used], np.diff(main.speeds)[used], align="edge", color="C0")
    axis.set(xlabel="crossing speed A, thresholds per unit of time", ylabel="density", title="two layers")
    write_whole(path, lambda file: figure.savefig(file, dpi=130, format=Path(path).suffix[1:]))


def _draw_orders(axis: Any, done: Convergence, title: str) -> None:
    curves = {
        "strong": done.strong[-1],
        "weak": done.weak[-1],
        "mismatch": done.mismatch,
        "spike_time": done.spike_time_rms,
    }
    for colour, (item, values) in enumerate(curves.items()):
        fit = done.fits[item]
        label = f"{item.replace('_', ' ')}: {fit.text()}"
        axis.loglog(done.steps, values, "o-", color=f"C{colour}", ms=4, lw=1.2, label=label)
    axis.errorbar(done.steps, done.weak[-1], 1.96 * done.weak_se[-1], fmt="none", color="C1", capsize=3)
    for order, style, slope in ((0.5, ":", "1/2"), (1.0, "--", "1")):
        guide = done.steps**order * (done.strong[-1][-1] / done.steps[-1] ** order)
        axis.loglog(done.steps, guide, style, color="0.6", lw=1, label=f"slope {slope}")
    axis.set(xlabel="step h", ylabel="error, probability", title=f"{title}: slope (95 % interval)")
    axis.legend(fontsize=8)
