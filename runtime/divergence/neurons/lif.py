"""Leaky neurons and integrators in `diverge`: registers and error bounds.

From the error e_a of the synaptic input (`near_threshold.py`), with one unit for every truncation,

    e_u = keep_u e_u + |u| decay error + 64 e_a + 1
    e_v = keep_v e_v + |v| decay error + e_u + bias error + 1

where 64 stands for the units of a state per unit of synaptic input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from snn_compile.compiler.neurons.base import Neurons
from snn_compile.runtime.divergence.neurons.base import FollowedModel, Item, Register
from snn_compile.runtime.divergence.pair import Float, Pair
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.population import Population as IntegerPopulation

ITEMS = {
    "current_decay": Item("decay rounding", "current decay"),
    "voltage_decay": Item("decay rounding", "voltage decay"),
    "bias": Item("bias rounding", "bias"),
    "v_init": Item("initial state rounding", "initial state"),
    "threshold": Item("threshold rounding", "threshold"),
    "v_min": Item("initial state rounding", "lower clip"),
}


def registers(
    p: Neurons, made: IntegerPopulation | None, scale: float, formats: Formats
) -> Iterator[tuple[str, Register]]:
    """Yield the program's side of every tensor; without a population both sides are the network's."""
    held: Mapping[str, Any] = made.parameters if made else {}
    du, exponent = held.get("du"), int(held["bias_exp"].max()) if made else 0
    one = float(formats.decay_one)
    yield "current_decay", Register(one, None if du is None else du.astype(np.float64) + 1)
    yield "voltage_decay", Register(one, held.get("dv"))
    yield "bias", Register(scale, made.bias if made else None, 2.0**exponent)
    yield "v_init", Register(scale, held.get("v_init"))
    if p.spiking:
        yield "threshold", Register(scale / formats.threshold_unit, held.get("vth"))
        yield "v_min", Register(scale, held.get("v_min"), least=-float(formats.state_max))


class LeakyErrors:
    """Error bounds of one population's states, in the program's units; see `Errors`."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], spikes: Float
    ) -> None:
        population, scale, formats = side.network.population(name), side.scale[name], side.formats
        self.rule, self.spiking, self.unit = population.rule, population.spiking, formats.threshold_unit
        self.u, self.v = (np.abs(traces[s]) * scale for s in "uv")
        self.spikes = spikes
        decays = ("current_decay", "voltage_decay")
        self.keep = {d: 1 - side.parameters[d, name].ideal / formats.decay_one for d in decays}
        self.lost = {d: slack[d] / formats.decay_one for d in decays}
        self.bias = slack["bias"]
        self.theta = self.unit * slack.get("threshold", np.zeros(1))
        start = np.abs(side.parameters["v_init", name].ideal)
        self.start = np.broadcast_to(start, self.u.shape[::2])
        self.e_u = np.zeros(self.u.shape[::2])
        self.e_v = self.e_u + slack["v_init"]

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t; return the bound of v before the reset."""
        if self.spiking and t and self.rule.reset_timing.startswith("next"):
            self._reset(self.spikes[:, t - 1])
        before = self.e_u
        u = self.u[:, t - 1] if t else np.zeros_like(before)
        arrived = self.unit * e_a + 1
        self.e_u = self.keep["current_decay"] * self.e_u + u * self.lost["current_decay"] + arrived
        drive = self.e_u
        if self.rule.current_decay == "after":  # a wider bound: what acts has not decayed yet
            drive = before + arrived
        drive = np.maximum(drive, before) if self.rule.update_order == "membrane_first" else drive
        v = self.v[:, t - 1] if t else self.start
        keep, lost = self.keep["voltage_decay"], self.lost["voltage_decay"]
        bound = np.asarray(keep * self.e_v + v * lost + drive + self.bias + 1)
        self.e_v = bound
        if self.spiking and not self.rule.reset_timing.startswith("next"):
            self._reset(self.spikes[:, t])
        return bound

    def _reset(self, spikes: Float) -> None:
        if self.rule.reset == "value":
            self.e_v = np.where(spikes != 0, 0.0, self.e_v)
        elif self.rule.reset == "subtract":
            self.e_v = self.e_v + spikes * self.theta


MODELS = tuple(FollowedModel(name, registers, ITEMS, LeakyErrors) for name in ("lif", "li"))
