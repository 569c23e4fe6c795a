"""Balanced resonators and adaptive leaky neurons in `diverge`: tensors, steps of either side, error bounds.

Equations of the network stand in `compiler/neurons/brf.py` and `compiler/neurons/alif.py`, those of the
program in `targets/oracle/brf_alif.py`. Here r is the network's q times what a spike lifts the threshold by,
so that both sides have one state. The part of the cosine that the smooth reset takes off is, for one unit of
r, the tensor "damping".

The bound of rounding follows the state's length for resonators, whose step is a rotation that shrinks:

    e_r = keep e_r + |r| decay error + rise error of a spike + 1
    e_d = damping e_r + |r| damping error + 1                                   in 2**-16
    e   = |c, s| e + |u, v| |cosine error + e_d, sine error| + 64 e_a + sqrt 2

and a spike is as uncertain as e + e_r; adaptive neurons have e_v + e_theta in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_compile.runtime.divergence.pairing import UNIT, Float, Pair, Tensor
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.integer import DECAY_ONE, M
from snn_compile.targets.program.models import DAMPING_BITS

if TYPE_CHECKING:
    from snn_compile.compiler.network import Population
    from snn_compile.targets.program.population import Population as IntegerPopulation

ITEMS = {
    "brf": ("cosine", "sine", "threshold", "damping", "rise", "refractory", "recovery"),
    "alif": ("voltage_decay", "threshold", "adaptation_decay", "adaptation_step", "reset_size"),
}
"""The tensors of each model."""

PROBES = {"brf": ("u", "v", "imag", "r", "limit"), "alif": ("u", "v", "limit")}
"""What a bound is followed along: `v` before the reset, `limit` the threshold it is compared with."""

WHOLE = float(1 << DAMPING_BITS)


def tensors(p: Population, q: IntegerPopulation | None, scale: float) -> dict[tuple[str, str], Tensor]:
    """Return the tensors of a population from both sides; `q` is the program's."""
    assert q is not None
    made = {key: array.astype(np.float64) for key, array in q.parameters.items()}
    facts = _resonator(p, made, scale) if p.model == "brf" else _adaptive(p, made, scale)
    found = {}
    for item, network, gain, kept, lsb in facts:
        flat, held, bits = (np.broadcast_to(np.asarray(x, float), (p.size,)) for x in (network, kept, lsb))
        found[item, p.name] = Tensor(flat, flat * gain, held, bits, np.full(p.size, 1 / gain))
    return found


Fact = tuple[str, Any, float, Any, Any]
"""Item, the network's values, program units in one of the network's, the program's values, last bits."""


def _resonator(p: Population, made: Mapping[str, Float], scale: float) -> Iterator[Fact]:
    from snn_compile.compiler.neurons.brf import polar_registers

    values = p.parameters
    pair = np.broadcast_arrays(values["cosine"], values["sine"])
    # The nearest point within the boundary may be more than one step of a register away.
    for item, exact, best in zip(("cosine", "sine"), pair, polar_registers(*pair), strict=True):
        register = made["cos_decay" if item == "cosine" else "sin_decay"]
        yield item, exact, DECAY_ONE, register, np.maximum(1.0, np.abs(best - exact * DECAY_ONE))
    yield "threshold", values["threshold"], scale / UNIT, made["vth"], 1.0
    rise = np.where(values["rise"] > 0, values["rise"], 1.0)
    yield "rise", rise, scale, made["r_step"], 1.0
    yield "refractory", values["rise"] > 0, 1.0, made["refractory"], 0.5
    yield "recovery", values["recovery"], DECAY_ONE, made["delta_r"], 1.0
    share, last = values["damping"] / rise, 2.0 ** -made["damping_exp"]
    # The rise that it is a share of is itself rounded.
    moved = share * WHOLE / scale * 0.5 / np.maximum(rise * scale, 1.0)
    yield "damping", share, WHOLE / scale, made["damping"] * last, last + moved


def _adaptive(p: Population, made: Mapping[str, Float], scale: float) -> Iterator[Fact]:
    values = p.parameters
    yield "voltage_decay", values["voltage_decay"], DECAY_ONE, made["delta_v"], 1.0
    yield "threshold", values["threshold"], scale, made["theta_0"], 1.0
    yield "adaptation_decay", values["adaptation_decay"], DECAY_ONE, made["delta_theta"], 1.0
    yield "adaptation_step", values["adaptation_step"], scale, made["theta_step"], 1.0
    yield "reset_size", values["reset_size"], 1.0, made["reset_exp"] + 1, 0.5


class _State:
    """What both models do alike; `values` are tensors in the units of the side that `scaled` says."""

    spiking = True

    def __init__(
        self, values: Mapping[str, Float], arithmetic: Collection[str], batch: int, scale: float | None
    ) -> None:
        self.of, self.arithmetic = values, arithmetic
        self.scale = 1.0 if scale is None else scale
        self.part, self.whole = (1.0, 1.0) if scale is None else (float(DECAY_ONE), WHOLE)
        self.synaptic = 1 if scale is None else UNIT
        self.size = len(values["threshold"])
        self.u = np.zeros((batch, self.size))
        self.v = self.reached = self.u
        self.constant, self.overflow = np.zeros(1), Overflow()

    def _rounded(self, x: Float) -> Float:
        return np.trunc(x) if "truncation" in self.arithmetic else x

    def _arriving(self, a: Float) -> Float:
        self.u = np.broadcast_to(a * self.synaptic, self.v.shape)
        if "u_wrap" in self.arithmetic:
            turned = np.mod(self.u + (1 << 31), 1 << 32) - (1 << 31)
            self.overflow += Overflow(int(np.count_nonzero(turned != self.u)), 0, 0)
            self.u = turned
        return self.u

    def _saturated(self, x: Float) -> Float:
        if "v_high" in self.arithmetic:
            self.overflow += Overflow(0, int(np.count_nonzero(x > M - 1)), 0)
            x = np.minimum(x, M - 1)
        if "v_low" in self.arithmetic:
            self.overflow += Overflow(0, 0, int(np.count_nonzero(x < -(M - 1))))
            x = np.maximum(x, -(M - 1))
        return x


class ResonatorState(_State):
    """Balanced resonators."""

    def __init__(
        self, values: Mapping[str, Float], arithmetic: Collection[str], batch: int, scale: float | None
    ) -> None:
        super().__init__(values, arithmetic, batch, scale)
        self.imag = self.r = self.limit = self.v
        self.threshold = values["threshold"] * self.synaptic

    def step(self, a: Float) -> Float:
        """Advance by one logical step with synaptic input `a`; return the spikes."""
        arriving, turn = self._arriving(a), self.whole / self.part
        d = self.of["damping"] * self.r
        d = np.floor(d) if "truncation" in self.arithmetic else d
        if "damping_end" in self.arithmetic:
            d = np.minimum(d, np.maximum(2 * turn * self.of["cosine"], 0))
        c, s = turn * self.of["cosine"] - d, turn * self.of["sine"]
        real, imag = c * self.v - s * self.imag, s * self.v + c * self.imag
        self.v = self._saturated(self._rounded(real / self.whole) + arriving)
        self.imag = self._saturated(self._rounded(imag / self.whole))
        self.reached, self.limit = self.v, self.threshold + self.of["refractory"] * self.r
        fires: Float = (self.v > self.limit).astype(np.float64)
        kept = self._rounded(self.r * (self.part - self.of["recovery"]) / self.part)
        self.r = self._saturated(kept + self.of["rise"] * fires)
        return fires


class AdaptiveState(_State):
    """Adaptive leaky neurons."""

    def __init__(
        self, values: Mapping[str, Float], arithmetic: Collection[str], batch: int, scale: float | None
    ) -> None:
        super().__init__(values, arithmetic, batch, scale)
        self.theta = self.limit = self.v + values["threshold"]

    def step(self, a: Float) -> Float:
        """Advance by one logical step with synaptic input `a`; return the spikes."""
        of, theta = self.of, self.theta
        kept = self._rounded(self.v * (self.part - of["voltage_decay"]) / self.part)
        self.reached = self._saturated(kept + self._arriving(a))
        self.limit = theta
        fires: Float = (self.reached > theta).astype(np.float64)
        self.v = self.reached - of["reset_size"] * theta * fires
        above = (theta - of["threshold"]) * (self.part - of["adaptation_decay"]) / self.part
        self.theta = self._saturated(self._rounded(above) + of["threshold"] + of["adaptation_step"] * fires)
        return fires


STATES: dict[str, Callable[..., Any]] = {"brf": ResonatorState, "alif": AdaptiveState}
"""What steps a model: (values by item, arithmetic selected, batch, program units of a membrane or None)."""


def cause_facts(side: Pair, rounded: Callable[[Tensor], Any]) -> Iterator[dict[str, Any]]:
    """Return causes, as the arguments of a `Cause`, of resonators' turns and of the smooth reset's end.

    With t the step, `sine` is omega t, and `cosine` = sqrt(1 - sine**2) - b t: where a sine is off the
    frequency is, where only the cosine is, or both are by one factor, the damping b.
    """
    for p in side.network.populations:
        if p.model != "brf":
            continue
        cosine, sine = side.parameters["cosine", p.name], side.parameters["sine", p.name]
        exact, kept = (c + 1j * s for c, s in ((cosine.ideal, sine.ideal), (cosine.kept, sine.kept)))
        least = 1.5 * np.sqrt(2) / np.maximum(np.abs(kept), 1.0)  # radians that rounding may turn by
        angle = np.abs(np.angle(kept * np.conj(exact)))
        of_sine = ~rounded(sine) & (angle > least)
        others = ~(rounded(sine) & rounded(cosine)) & ~of_sine
        for kind, off in (("wrong omega", of_sine), ("wrong b", others)):
            if off.any():
                yield _turn_facts(kind, p.name, off, cosine, sine)
        if _damping_ends(side, p.name):
            text = "the smooth reset takes no more off the cosine than makes it its negative"
            yield {
                "kind": "damping ends",
                "place": p.name,
                "effects": {("damping_end", p.name): True},
                "detail": text,
            }


def _turn_facts(kind: str, name: str, off: Any, cosine: Tensor, sine: Tensor) -> dict[str, Any]:
    error = np.hypot(cosine.error_lsb(), sine.error_lsb())
    worst, many = int(np.argmax(np.where(off, error, -1))), int(off.sum())
    sides = (cosine.network, sine.network), (cosine.kept / DECAY_ONE, sine.kept / DECAY_ONE)
    if kind == "wrong omega":
        was, now = (s[worst] for _, s in sides)
    else:
        was, now = (np.sqrt(max(1 - s[worst] ** 2, 0.0)) - c[worst] for c, s in sides)
    text = f"{was:.4g} a step in the network, {now:.4g} in the program"
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
    of = {item: side.parameters[item, name].kept for item in ITEMS["brf"]}
    with np.errstate(divide="ignore"):
        most = np.minimum(of["rise"] * DECAY_ONE / of["recovery"], M - 1)
    return bool((of["damping"] * most > np.maximum(32 * of["cosine"], 0)).any() and of["damping"].any())


class ResonatorErrors:
    """Error bounds of balanced resonators in the program's units; `traces` are the network's probes."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], spikes: Float
    ) -> None:
        self.of = {item: side.parameters[item, name].ideal for item in ITEMS["brf"]}
        self.slack, self.spikes, scale = slack, spikes, side.scale[name]
        self.length = np.hypot(traces["v"], traces["imag"]) * scale
        self.r = traces["r"] * scale
        self.e = self.e_r = np.zeros(self.r.shape[::2])

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t; return the bound of the distance to the threshold."""
        of, slack = self.of, self.slack
        r, length = (x[:, t - 1] if t else np.zeros_like(self.e) for x in (self.r, self.length))
        cosine = of["cosine"] / DECAY_ONE - of["damping"] * r / WHOLE
        e_d = ((of["damping"] + slack["damping"]) * self.e_r + r * slack["damping"] + 1) / WHOLE
        e_c, e_s = slack["cosine"] / DECAY_ONE + e_d, slack["sine"] / DECAY_ONE
        # Of the program's own step, not the network's: its errors are added to the length.
        grown = np.hypot(cosine, of["sine"] / DECAY_ONE) + np.hypot(e_c, e_s)
        self.e = grown * self.e + length * np.hypot(e_c, e_s) + UNIT * e_a + np.sqrt(2)
        bound: Float = self.e + of["refractory"] * self.e_r + UNIT * slack["threshold"]
        kept = 1 - of["recovery"] / DECAY_ONE + slack["recovery"] / DECAY_ONE
        lost = r * slack["recovery"] / DECAY_ONE
        self.e_r = kept * self.e_r + lost + slack["rise"] * self.spikes[:, t] + 1
        return bound


class AdaptiveErrors:
    """Error bounds of adaptive leaky neurons; see `ResonatorErrors`."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], spikes: Float
    ) -> None:
        self.of = {item: side.parameters[item, name].ideal for item in ITEMS["alif"]}
        self.slack, self.spikes, scale = slack, spikes, side.scale[name]
        self.theta = traces["limit"] * scale
        self.v = np.abs(traces["v"] * scale - spikes * self.of["reset_size"] * self.theta)
        self.e_v = np.zeros(self.v.shape[::2])
        self.e_theta = self.e_v + slack["threshold"]

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t; return the bound of the distance to the threshold."""
        of, slack, spikes = self.of, self.slack, self.spikes[:, t]
        v = self.v[:, t - 1] if t else np.zeros_like(self.e_v)
        lost = slack["voltage_decay"] / DECAY_ONE
        kept = 1 - of["voltage_decay"] / DECAY_ONE + lost
        self.e_v = kept * self.e_v + v * lost + UNIT * e_a + 1
        bound: Float = self.e_v + self.e_theta
        self.e_v = self.e_v + of["reset_size"] * spikes * self.e_theta
        above, gone = self.theta[:, t] - of["threshold"], slack["adaptation_decay"] / DECAY_ONE
        kept = 1 - of["adaptation_decay"] / DECAY_ONE + gone
        self.e_theta = (
            kept * (self.e_theta + slack["threshold"])
            + slack["threshold"]
            + above * gone
            + spikes * slack["adaptation_step"]
            + 1
        )
        return bound


ERRORS: dict[str, Callable[..., Any]] = {"brf": ResonatorErrors, "alif": AdaptiveErrors}
"""What bounds the rounding of a model."""
