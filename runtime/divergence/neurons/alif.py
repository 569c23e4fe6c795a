"""Adaptive leaky neurons in `diverge`: registers and error bounds.

Equations of the network stand in `compiler/neurons/alif.py`, those of the program in the oracle. A spike is
as uncertain as e_v + e_theta, the bounds of the membrane and of its threshold.
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
    "voltage_decay": Item("decay rounding", "voltage decay"),
    "threshold": Item("threshold rounding", "threshold"),
    "adaptation_decay": Item("decay rounding", "adaptation decay"),
    "adaptation_step": Item("threshold rounding", "adaptation step"),
    "reset_size": Item("threshold rounding", "reset size"),
}


def registers(
    p: Neurons, made: IntegerPopulation | None, scale: float, formats: Formats
) -> Iterator[tuple[str, Register]]:
    """Yield the program's side of every tensor."""
    assert made is not None
    held, one = made.parameters, float(formats.decay_one)
    yield "voltage_decay", Register(one, held["delta_v"])
    yield "threshold", Register(scale, held["theta_0"])
    yield "adaptation_decay", Register(one, held["delta_theta"])
    yield "adaptation_step", Register(scale, held["theta_step"])
    yield "reset_size", Register(1.0, held["reset_exp"] + 1, 0.5)


class AdaptiveErrors:
    """Error bounds of one population's states, in the program's units; see `Errors`."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], spikes: Float
    ) -> None:
        self.of = {item: side.parameters[item, name].ideal for item in ITEMS}
        self.slack, self.spikes, scale = slack, spikes, side.scale[name]
        self.one, self.unit = side.formats.decay_one, side.formats.threshold_unit
        self.theta = traces["limit"] * scale
        self.v = np.abs(traces["v"] * scale - spikes * self.of["reset_size"] * self.theta)
        self.e_v = np.zeros(self.v.shape[::2])
        self.e_theta = self.e_v + slack["threshold"]

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t; return the bound of the distance to the threshold."""
        of, slack, spikes = self.of, self.slack, self.spikes[:, t]
        v = self.v[:, t - 1] if t else np.zeros_like(self.e_v)
        lost = slack["voltage_decay"] / self.one
        kept = 1 - of["voltage_decay"] / self.one + lost
        self.e_v = kept * self.e_v + v * lost + self.unit * e_a + 1
        bound: Float = self.e_v + self.e_theta
        self.e_v = self.e_v + of["reset_size"] * spikes * self.e_theta
        above, gone = self.theta[:, t] - of["threshold"], slack["adaptation_decay"] / self.one
        kept = 1 - of["adaptation_decay"] / self.one + gone
        self.e_theta = (
            kept * (self.e_theta + slack["threshold"])
            + slack["threshold"]
            + above * gone
            + spikes * slack["adaptation_step"]
            + 1
        )
        return bound


MODELS = (
    FollowedModel(
        "alif", registers, ITEMS, AdaptiveErrors, traces=("u", "v", "limit"), moving_threshold=True
    ),
)
