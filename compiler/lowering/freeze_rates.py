"""Freeze the rates of liquid spiking neurons at their means, which makes adaptive neurons of them.

The rates m and rho of a liquid neuron (`neurons/lsn.py`) are functions of all states of the layer, which no
chip here steps. At their means over calibration data an adaptive neuron is left (`neurons/alif.py`), except
for the reset, which subtracts the threshold instead of setting the membrane to 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from snn_compile.compiler.network import Float, Network, Population, weight_values, with_values
from snn_compile.compiler.reference import run_float
from snn_compile.targets.errors import CompileError, UnsupportedNode


def liquid_names(network: Network) -> list[str]:
    """Return the names of the populations of liquid neurons."""
    return [p.name for p in network.populations if p.model == "lsn"]


def freeze_rates(
    network: Network, data: Mapping[str, Float] | None, approximate: bool
) -> tuple[Network, tuple[str, ...]]:
    """Return a network without liquid neurons, and messages that say what was approximated.

    `data` are inputs (batch, steps, size) by port. Raises UnsupportedNode, naming the nodes, where there are
    liquid neurons and `approximate` is False; CompileError without data.
    """
    names = liquid_names(network)
    if not names:
        return network, ()
    nodes = ", ".join(map(repr, names))
    if not approximate:
        raise UnsupportedNode(
            f"node {nodes}: the rates of liquid spiking neurons (LSN) are functions of all states of the "
            "layer, which no chip here steps; --approximate holds them at their means over calibration data, "
            "which makes ALIF neurons of them, and the report compares with the network as it is",
            nodes=names,
        )
    if data is None:
        raise CompileError(f"node {nodes}: to hold liquid rates at their means takes data; use --calibrate")
    run = run_float(network, data, probes=[f"{name}.{rate}" for name in names for rate in ("m", "rho")])
    means = {probe: values.mean((0, 1)) for probe, values in run.states.items()}
    spread = {probe: float(values.std((0, 1)).mean()) for probe, values in run.states.items()}
    populations = [
        _frozen(p, means[f"{p.name}.m"], means[f"{p.name}.rho"]) if p.name in names else p
        for p in network.populations
    ]
    projections = [
        replace(e, weight=_scaled(e.weight, means[f"{e.target}.m"])) if e.target in names else e
        for e in network.projections
    ]
    messages = tuple(
        f"{name}: liquid rates held at their means (membrane {means[f'{name}.m'].mean():.3f}, deviation "
        f"{spread[f'{name}.m']:.3f}; adaptation {means[f'{name}.rho'].mean():.3f}, deviation "
        f"{spread[f'{name}.rho']:.3f}), and the reset takes the threshold off: ALIF neurons, an approximation"
        for name in names
    )
    return replace(network, populations=tuple(populations), projections=tuple(projections)), messages


def _frozen(p: Population, m: Float, rho: Float) -> Population:
    """Return liquid neurons at fixed rates as adaptive ones, whose input has to be scaled by m."""
    parameters = {
        "voltage_decay": m,
        "threshold": p.parameters["threshold"],
        "adaptation_decay": 1 - rho,
        "adaptation_step": p.parameters["rise"] * (1 - rho),
        "reset_size": np.ones(1),
        "input_bias": p.parameters["input_bias"] * m,
        "offset": np.zeros(1),
    }
    return replace(p, model="alif", parameters=parameters)


def _scaled(weight: object, rows: Float) -> object:
    """Return a weight (target, source) with every row multiplied."""
    values = weight_values(weight)
    if values.ndim == 2:
        return values * rows[:, None]
    table = weight.tocsr()  # type: ignore[attr-defined]
    return with_values(table, table.data * np.repeat(rows, np.diff(table.indptr)))
