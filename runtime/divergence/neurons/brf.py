"""Balanced resonators in `diverge`: registers, error bounds, and causes that cosine and sine show together.

Equations of the network stand in `compiler/neurons/brf.py`, those of the program in the oracle. r is the
network's q in units of the membrane, and "damping" what one unit of r takes off the cosine. The bound of
rounding follows the length of the state, because a step is a rotation that shrinks:

    e_r = keep e_r + |r| decay error + rise error of a spike + 1
    e_d = damping e_r + |r| damping error + 1                                   in 2**-DAMPING_BITS
    e   = |c, s| e + |u, v| |cosine error + e_d, sine error| + 64 e_a + sqrt 2

where 64 stands for the units of a state per unit of synaptic input; a spike is as uncertain as e + e_r.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from snn_compile.compiler.neurons.base import Neurons
from snn_compile.compiler.neurons.brf import ResonatorGroup, polar_registers
from snn_compile.runtime.divergence.neurons.base import FollowedModel, Item, Register
from snn_compile.runtime.divergence.pair import Float, Pair, Tensor
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.models.brf import DAMPING_BITS
from snn_compile.targets.program.population import Population as IntegerPopulation

ITEMS = {
    "cosine": Item("decay rounding", "cosine"),
    "sine": Item("decay rounding", "sine"),
    "threshold": Item("threshold rounding", "threshold"),
    "rise": Item("threshold rounding", "refractory rise"),
    "refractory": Item("threshold rounding", "refractoriness"),
    "recovery": Item("decay rounding", "refractory decay"),
    "damping": Item("decay rounding", "smooth reset"),
}
DAMPING_ONE = float(1 << DAMPING_BITS)
"""What stands for a coefficient of 1 in sums of products."""


def registers(
    p: Neurons, made: IntegerPopulation | None, scale: float, formats: Formats
) -> Iterator[tuple[str, Register]]:
    """Yield the program's side of every tensor."""
    assert made is not None
    held, one = made.parameters, float(formats.decay_one)
    network = ResonatorGroup.tensors(p)
    pair = np.broadcast_arrays(network["cosine"], network["sine"])
    nearest = polar_registers(pair[0], pair[1], formats.decay_one)
    # The nearest point within the boundary may be more than one step of a register away.
    for item, exact, best in zip(("cosine", "sine"), pair, nearest, strict=True):
        register = held["cos_decay" if item == "cosine" else "sin_decay"]
        yield item, Register(one, register, np.maximum(1.0, np.abs(best - exact * one)))
    yield "threshold", Register(scale / formats.threshold_unit, held["vth"])
    rise = network["rise"]
    yield "rise", Register(scale, held["r_step"])
    yield "refractory", Register(1.0, held["refractory"], 0.5)
    yield "recovery", Register(one, held["delta_r"])
    last = 2.0 ** -held["damping_exp"].astype(np.float64)
    # The rise that the damping is relative to is itself rounded.
    moved = network["damping"] * DAMPING_ONE / scale * 0.5 / np.maximum(rise * scale, 1.0)
    yield "damping", Register(DAMPING_ONE / scale, held["damping"] * last, last + moved)


class ResonatorErrors:
    """Error bounds of one population's states, in the program's units; see `Errors`."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], spikes: Float
    ) -> None:
        self.of = {item: side.parameters[item, name].ideal for item in ITEMS}
        self.slack, self.spikes, scale = slack, spikes, side.scale[name]
        self.one, self.unit = side.formats.decay_one, side.formats.threshold_unit
        self.length = np.hypot(traces["v"], traces["imag"]) * scale
        self.r = traces["r"] * scale
        self.e = self.e_r = np.zeros(self.r.shape[::2])

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t; return the bound of the distance to the threshold."""
        of, slack, one = self.of, self.slack, self.one
        r, length = (x[:, t - 1] if t else np.zeros_like(self.e) for x in (self.r, self.length))
        cosine = of["cosine"] / one - of["damping"] * r / DAMPING_ONE
        e_d = ((of["damping"] + slack["damping"]) * self.e_r + r * slack["damping"] + 1) / DAMPING_ONE
        e_c, e_s = slack["cosine"] / one + e_d, slack["sine"] / one
        # Of the program's own step, not the network's: its errors are added to the length.
        grown = np.hypot(cosine, of["sine"] / one) + np.hypot(e_c, e_s)
        self.e = grown * self.e + length * np.hypot(e_c, e_s) + self.unit * e_a + np.sqrt(2)
        bound: Float = self.e + of["refractory"] * self.e_r + self.unit * slack["threshold"]
        kept = 1 - of["recovery"] / one + slack["recovery"] / one
        lost = r * slack["recovery"] / one
        self.e_r = kept * self.e_r + lost + slack["rise"] * self.spikes[:, t] + 1
        return bound


def causes(side: Pair, name: str, rounded: Callable[[Tensor], Any]) -> Iterator[dict[str, Any]]:
    """Yield causes, as fields of a `Cause`, of a wrong rotation and of the end of the smooth reset.

    With dt the step, `sine` is omega dt, and `cosine` is sqrt(1 - sine**2) - b dt: where a sine is off, the
    frequency is; where only the cosine is, or both are by one factor, the damping b is.
    """
    cosine, sine = side.parameters["cosine", name], side.parameters["sine", name]
    exact, kept = (c + 1j * s for c, s in ((cosine.ideal, sine.ideal), (cosine.kept, sine.kept)))
    least = 1.5 * np.sqrt(2) / np.maximum(np.abs(kept), 1.0)  # radians by which rounding may rotate
    angle = np.abs(np.angle(kept * np.conj(exact)))
    of_sine = ~rounded(sine) & (angle > least)
    others = ~(rounded(sine) & rounded(cosine)) & ~of_sine
    for kind, off in (("wrong omega", of_sine), ("wrong b", others)):
        if off.any():
            yield _rotation(kind, name, off, cosine, sine, side.formats.decay_one)
    if _damping_ends(side, name):
        yield {
            "kind": "damping ends",
            "place": name,
            "effects": {("damping_end", name): True},
            "detail": "the smooth reset takes no more off the cosine than makes it its negative",
        }


def _rotation(kind: str, name: str, off: Any, cosine: Tensor, sine: Tensor, one: int) -> dict[str, Any]:
    error = np.hypot(cosine.error_lsb(), sine.error_lsb())
    worst, many = int(np.argmax(np.where(off, error, -1))), int(off.sum())
    sides = (cosine.network, sine.network), (cosine.kept / one, sine.kept / one)
    if kind == "wrong omega":
        was, now = (s[worst] for _, s in sides)
    else:
        was, now = (np.sqrt(max(1 - s[worst] ** 2, 0.0)) - c[worst] for c, s in sides)
    text = f"{was:.4g} per step in the network, {now:.4g} in the program"
    text += f"; {many} of {off.size} neurons" if off.size > 1 else ""
    return {
        "kind": kind,
        "place": name,
        "effects": {("cosine", name): off, ("sine", name): off},
        "detail": text,
        "index": (worst,) if many == 1 or many < off.size else None,
        "size": float(error[worst]),
        "values": many,
    }


def _damping_ends(side: Pair, name: str) -> bool:
    """Tell whether spikes at every step could take more off a cosine than it has."""
    of = {item: side.parameters[item, name].kept for item in ITEMS}
    one, most = side.formats.decay_one, side.formats.state_max
    with np.errstate(divide="ignore"):
        most_r = np.minimum(of["rise"] * one / of["recovery"], most)
    ends = np.maximum(2 * DAMPING_ONE / one * of["cosine"], 0)
    return bool((of["damping"] * most_r > ends).any() and of["damping"].any())


MODELS = (
    FollowedModel(
        "brf",
        registers,
        ITEMS,
        ResonatorErrors,
        traces=("u", "v", "imag", "r", "limit"),
        moving_threshold=True,
        together=("cosine", "sine"),
        causes=causes,
    ),
)
