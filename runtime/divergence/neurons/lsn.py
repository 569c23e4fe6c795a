"""Liquid neurons and the populations that send their states in `diverge`: registers, bounds, rates.

Equations of the network stand in `compiler/neurons/lsn.py`, those of the program in the oracle. A rate is off
by what its gate is, at a slope of at most 1/4, and by the table, of which a place stands for all gate inputs
in it:

    e_m = e_gate / 4 + table error
    e_b = (rho + e_rho) e_b + |s - b| e_rho + 1                             b and its error in 2**-bits
    e_r = (1 - m + e_m) e_v + (m + e_m) (64 e_a + bias error) + |u - v| e_m + 1

A spike is as uncertain as e_r and the error of the threshold; it sets the membrane, and e_v, to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from snn_compile.compiler.neurons.base import Neurons
from snn_compile.compiler.neurons.lsn import REGISTERS
from snn_compile.runtime.divergence.neurons.base import FollowedModel, Item, Register
from snn_compile.runtime.divergence.pair import Float, Pair, Tensor
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.models.lsn import adaptation_bits
from snn_compile.targets.program.population import Population as IntegerPopulation

ITEMS = {
    "threshold": Item("threshold rounding", "threshold"),
    "rise": Item("threshold rounding", "threshold rise"),
    "bias": Item("bias rounding", "bias"),
    "membrane_bias": Item("bias rounding", "membrane gate bias"),
    "adaptation_bias": Item("bias rounding", "adaptation gate bias"),
}


def registers(
    p: Neurons, made: IntegerPopulation | None, scale: float, formats: Formats
) -> Iterator[tuple[str, Register]]:
    """Yield the program's side of every tensor."""
    assert made is not None
    for item, (register, fine) in REGISTERS.items():
        if item in p.parameters:
            gain = scale if fine else scale / formats.threshold_unit
            yield item, Register(gain, made.parameters[register])


def place_width(made: IntegerPopulation, formats: Formats) -> float:
    """Return the width of a place of a table of rates, in the network's units of a gate's input."""
    return 2.0 ** int(made.parameters["rate_shift"][0]) * formats.threshold_unit / made.scale


def table_errors(made: IntegerPopulation, formats: Formats) -> tuple[Float, Float]:
    """Return how far each value of a table is from the logistic function at its place, and may be.

    In units of a rate of 1; it may be off by half of a place and of a last bit.
    """
    held = made.parameters["rates"].astype(np.float64) / formats.decay_one
    width = place_width(made, formats)
    ends = (np.arange(held.size + 1) - held.size // 2) * width
    middle: Float = expit(ends[:-1] + width / 2)
    return np.abs(held - middle), np.maximum(np.diff(expit(ends)), 1.0 / formats.decay_one)


class _RateErrors:
    """The error of rates, by the error of their gate's input."""

    def __init__(self, side: Pair, name: str, slack: Mapping[str, Float]) -> None:
        made, formats = side.made[name], side.formats
        assert made is not None
        off, may = table_errors(made, formats)
        # A whole place: the value in its middle stands for both of its ends. Beyond the table: its last one.
        beyond = float(expit(-made.parameters["rates"].size / 2 * place_width(made, formats)))
        self.table = float(may.max()) + (float(off.max()) if (off <= may).all() else 0.0) + beyond
        self.slack, self.gain = slack, made.scale / formats.threshold_unit

    def of(self, gate: str, e_gate: Any) -> Float:
        """Return the error of a rate; `e_gate` is that of its summed input, in the program's units."""
        off: Float = np.minimum((e_gate + self.slack[f"{gate}_bias"]) / self.gain / 4 + self.table, 1.0)
        return off


class AdaptationErrors:
    """Error bounds of adaptations, in the program's units; see `Errors`."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], sent: Float
    ) -> None:
        self.rates, self.whole = _RateErrors(side, name, slack), float(1 << adaptation_bits(side.formats))
        self.b, self.rho = traces["b"], traces["rho"]
        self.e_b = np.zeros(self.b.shape[::2])

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t; `e_a` are the errors of spikes and gate; return the bound of b."""
        return self.adapt(t, e_a[1])

    def adapt(self, t: int, e_gate: Any) -> Float:
        """Return the bound of the adaptation after step t."""
        e_rho = self.rates.of("adaptation", e_gate)
        # Between b and the spike lies at most 1.
        self.e_b = np.minimum((self.rho[:, t] + e_rho) * self.e_b + self.whole * e_rho + 1, self.whole)
        return self.e_b


class LiquidErrors(AdaptationErrors):
    """Error bounds of liquid neurons, in the program's units; see `Errors`."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], sent: Float
    ) -> None:
        super().__init__(side, name, traces, slack, sent)
        scale, self.unit, self.slack = side.scale[name], side.formats.threshold_unit, slack
        self.rise = side.parameters["rise", name].ideal
        self.fires, self.m = traces["v"] > traces["limit"], traces["m"]
        self.u, self.v = traces["u"] * scale, np.where(self.fires, 0.0, traces["v"] * scale)
        self.e_v = np.zeros_like(self.e_b)

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t; `e_a` are the errors of input and gates; return the bound of v."""
        v = self.v[:, t - 1] if t else np.zeros_like(self.e_v)
        e_m, m = self.rates.of("membrane", e_a[1]), self.m[:, t]
        e_u = self.unit * e_a[0] + self.slack["bias"]
        e_r = (1 - m + e_m) * self.e_v + (m + e_m) * e_u + np.abs(self.u[:, t] - v) * e_m + 1
        e_b = self.adapt(t, e_a[2]) / self.whole
        lifted = (self.rise + self.slack["rise"]) * e_b + self.slack["rise"] * self.b[:, t] + 1
        bound: Float = e_r + self.slack["threshold"] + lifted
        self.e_v = np.where(self.fires[:, t], 0.0, e_r)
        return bound


def causes(side: Pair, name: str, rounded: Callable[[Tensor], Any]) -> Iterator[dict[str, Any]]:
    """Yield the table of rates as a cause: of rounding, or one that is not that of the logistic function."""
    made = side.made[name]
    assert made is not None
    off, may = table_errors(made, side.formats)
    size, worst = off.size, int((off - may).argmax())
    held = made.parameters["rates"][worst] / side.formats.decay_one
    yield {
        "kind": "rate rounding" if (off <= may).all() else "wrong rates",
        "place": name,
        "effects": {("rates", name): True},
        "detail": f"a table of {size} rates, one of which stands for {may.max():.2g} at most"
        if (off <= may).all()
        else f"place {worst} of {size} holds {held:.4g}, off by {off[worst]:.3g}",
        "size": float(off[worst] * side.formats.decay_one),
        "values": size,
    }


_TRACES = ("u", "v", "m", "rho", "b", "limit")

MODELS = (
    *(
        FollowedModel(
            model, registers, ITEMS, LiquidErrors, traces=_TRACES, moving_threshold=True, causes=causes
        )
        for model in ("lsn", "lsn_membrane")
    ),
    FollowedModel(
        "lsn_adaptation", registers, ITEMS, AdaptationErrors, traces=("v", "rho", "b"), causes=causes
    ),
)
