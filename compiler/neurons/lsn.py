"""Liquid spiking neurons: one population of a Network in float64, and the approximation that a chip can step.

With synaptic input x, sigma the logistic function and s the spikes of the step before, one step is

    m   = sigma(w_membrane [x; v] + b_membrane)
    rho = sigma(w_adaptation [x; b] + b_adaptation)
    b   = rho b + (1 - rho) s
    v   = v + (x - v) m
    s   = v > threshold + rise b ;   v = (1 - s) v

No chip here multiplies a state by a function of all the others. `frozen` holds m and rho at their means over
calibration data: what is left is an adaptive neuron (`alif.py`), but for its reset, which takes the
threshold off instead of all. Source: Yin, Corradi and Bohte 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.special import expit

from snn_compile.compiler.network import Float, Network, Population, weight_values, with_values
from snn_compile.compiler.reference import SpikingGroup, run_float
from snn_compile.targets.errors import CompileError, UnsupportedNode


class LiquidGroup(SpikingGroup):
    """The float state of a population over a batch; `u` is what arrived, `m` and `rho` the rates."""

    def begin(self) -> None:
        """See `SpikingGroup`."""
        size = self.population.size
        self._membrane, self._adaptation = (
            self.parameters[key].reshape(size, 2 * size).T for key in ("w_membrane", "w_adaptation")
        )
        self.b = self.m = self.rho = self._last = self.v

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the spikes."""
        p = self.parameters
        self.arrive(x)
        self.m = expit(np.concatenate([self.u, self.v], 1) @ self._membrane + p["b_membrane"])
        self.rho = expit(np.concatenate([self.u, self.b], 1) @ self._adaptation + p["b_adaptation"])
        self.b = self.rho * self.b + (1 - self.rho) * self._last
        raw = self.v + (self.u - self.v) * self.m
        fires: Float = (raw > p["threshold"] + p["rise"] * self.b).astype(np.float64)
        self.v, self._last = (1 - fires) * raw, fires
        self.note(float(np.abs(raw).max()), float(raw.max()))
        return fires


def liquid_names(network: Network) -> list[str]:
    """Return the names of the populations of liquid neurons."""
    return [p.name for p in network.populations if p.model == "lsn"]


def frozen(
    network: Network, data: Mapping[str, Float] | None, approximate: bool
) -> tuple[Network, tuple[str, ...]]:
    """Return a network without liquid neurons, and what was done, in words.

    `data` are inputs (batch, steps, size) by port. Raises UnsupportedNode, naming the nodes, where there are
    liquid neurons and `approximate` is False; CompileError without data.
    """
    names = liquid_names(network)
    if not names:
        return network, ()
    called = ", ".join(map(repr, names))
    if not approximate:
        raise UnsupportedNode(
            f"node {called}: the rates of liquid spiking neurons (LSN) are functions of all states of the "
            "layer, which no chip here steps; --approximate holds them at their means over calibration data, "
            "which makes ALIF neurons of them, and the report compares with the network as it is",
            nodes=names,
        )
    if data is None:
        raise CompileError(f"node {called}: to hold liquid rates at their means takes data; use --calibrate")
    run = run_float(network, data, probes=[f"{name}.{rate}" for name in names for rate in ("m", "rho")])
    means = {probe: values.mean((0, 1)) for probe, values in run.states.items()}
    spread = {probe: float(values.std((0, 1)).mean()) for probe, values in run.states.items()}
    populations = [
        _held(p, means[f"{p.name}.m"], means[f"{p.name}.rho"]) if p.name in names else p
        for p in network.populations
    ]
    projections = [
        replace(e, weight=_scaled(e.weight, means[f"{e.target}.m"])) if e.target in names else e
        for e in network.projections
    ]
    told = tuple(
        f"{name}: liquid rates held at their means (membrane {means[f'{name}.m'].mean():.3f}, deviation "
        f"{spread[f'{name}.m']:.3f}; adaptation {means[f'{name}.rho'].mean():.3f}, deviation "
        f"{spread[f'{name}.rho']:.3f}), and the reset takes the threshold off: ALIF neurons, an approximation"
        for name in names
    )
    return replace(network, populations=tuple(populations), projections=tuple(projections)), told


def _held(p: Population, m: Float, rho: Float) -> Population:
    """Return the adaptive neurons that liquid ones are at fixed rates; their input is to be scaled by m."""
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
