"""A candidate for what a module is: its numbers per neuron, and its step in numpy.

The step is that of `targets/program/rule.py`, written out here once more so that agreement with a module
proves something about the rule; with u the current, v the membrane and x the input,

    u = (1 - current_decay) u + gain x
    v = (1 - voltage_decay) v + u + bias        (u of the step before if "membrane_first")
    spikes where v passes the threshold, then the reset (to v_reset, or less the threshold) and v_min

and for the adaptive neuron (model "alif") that of `compiler/neurons/alif.py`. All arrays are (neurons,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.program.rule import Rule
from snn_compile.train.probing.calling import Float

Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class State:
    """The state of a batch of neurons, each array (batch, neurons); `raised` is the threshold's rise."""

    u: Float
    v: Float
    last: Float
    raised: Float

    def of(self, samples: slice) -> State:
        """Return the state of some samples."""
        return State(self.u[samples], self.v[samples], self.last[samples], self.raised[samples])


@dataclass(frozen=True, eq=False)
class Outcome:
    """One step: the state after it, the spikes, the membrane that decided, and what it had to pass."""

    state: State
    spikes: Float
    reached: Float
    level: Float


@dataclass(frozen=True, eq=False)
class NeuronModel:
    """A model ("lif", "li" or "alif"), its rule and its parameters."""

    model: str
    rule: Rule
    parameters: Mapping[str, Float]

    def __getitem__(self, name: str) -> Float:
        return self.parameters[name]

    def with_parameters(self, **changed: Float) -> NeuronModel:
        """Return the same neuron with other numbers."""
        return replace(self, parameters={**self.parameters, **changed})

    def of(self, neurons: NDArray[np.int64]) -> NeuronModel:
        """Return some of the neurons."""
        return replace(self, parameters={k: v[neurons] for k, v in self.parameters.items()})

    @property
    def latency(self) -> int:
        """Steps after which an input first acts on the membrane."""
        return int(self.rule.update_order == "membrane_first")

    def begin(self, batch: int) -> State:
        """Return the state before the first step."""
        zero = np.zeros((batch, self["gain"].size))
        return State(zero, zero + self["v_init"], zero, zero)

    def step(self, state: State, x: Float, spikes: Float | None = None, where: Bool | None = None) -> Outcome:
        """Advance one step; `where` says at which neurons `spikes` are taken as given."""
        after = self._advance(state, x)
        if spikes is None or where is None or not where.any():
            return self._fire(state, after, None)
        return self._fire(state, after, np.where(where, spikes, self._spikes(after)))

    def _advance(self, state: State, x: Float) -> Outcome:
        """Return the step up to where the membrane meets its threshold."""
        v, rule = state.v, self.rule
        current = (1 - self["current_decay"]) * state.u + self["gain"] * x
        drive = state.u if rule.update_order == "membrane_first" else current
        if rule.reset_timing == "next_before":
            v = self._reset(v, state.last, self["threshold"])
        v = (1 - self["voltage_decay"]) * v + drive + self["bias"]
        if rule.reset_timing == "next_after":
            v = self._reset(v, state.last, self["threshold"])
        level = self["threshold"] + state.raised
        if rule.reset_timing == "pending":
            began_past = state.v > level if rule.comparison == ">" else state.v >= level
            level = np.where(began_past, 2 * level, level)
        return Outcome(State(current, v, state.last, state.raised), v, v, np.zeros_like(v) + level)

    def _spikes(self, met: Outcome) -> Float:
        over = met.reached > met.level if self.rule.comparison == ">" else met.reached >= met.level
        if self.rule.spikes_per_step == "floor":
            with np.errstate(divide="ignore", invalid="ignore"):
                passed = met.reached / met.level
            count = np.ceil(passed) - 1 if self.rule.comparison == ">" else np.floor(passed)
            return np.where(over, np.maximum(count, 1), 0.0)
        return over.astype(np.float64)

    def _fire(self, before: State, met: Outcome, forced: Float | None) -> Outcome:
        if self.model == "li":
            return Outcome(met.state, met.reached, met.reached, met.level)
        n, v, raised = self._spikes(met) if forced is None else forced, met.reached, before.raised
        theta = self["threshold"] + raised
        if self.model == "alif":
            v = v - self["reset_size"] * theta * n
            raised = (1 - self["adaptation_decay"]) * raised + self["adaptation_step"] * n
        elif self.rule.reset_timing in ("same_step", "pending"):
            v = self._reset(v, n, theta)
        v = np.maximum(v, self["v_min"])
        return Outcome(State(met.state.u, v, n, raised), n, met.reached, met.level)

    def _reset(self, v: Float, n: Float, theta: Float) -> Float:
        if self.rule.reset == "value":
            return np.where(n > 0, self["v_reset"], v)
        return v - n * theta if self.rule.reset == "subtract" else v

    def to_threshold(self, state: State) -> Float:
        """Return the input that brings the membrane exactly to its threshold when it acts."""
        zero = np.zeros_like(state.v)
        for _ in range(self.latency):
            state = self._fire(state, self._advance(state, zero), None).state
        met = self._advance(state, zero)
        return (met.level - met.reached) / self["gain"]

    def closeness(self, met: Outcome) -> Float:
        """Return the distance from the nearest threshold, as a share of the way from rest to threshold."""
        way = np.maximum(np.abs(self["threshold"] - self["v_reset"]), np.abs(self["threshold"]))
        distance = np.abs(met.reached - met.level)
        if self.rule.spikes_per_step == "floor":
            with np.errstate(divide="ignore", invalid="ignore"):
                nearest = np.maximum(np.rint(met.reached / met.level), 1)
            distance = np.abs(met.reached - nearest * met.level)
            # A rounding error of a large membrane is larger than one near the first threshold.
            way = way * nearest
        closeness: Float = distance / np.where(way > 0, way, 1.0)
        return closeness

    def describe(self) -> str:
        """Return the neuron in words, numbers as a range where they differ."""
        words = {"li": "leaky integrator", "alif": "adaptive LIF"}.get(self.model, self._kind())
        shown = {
            "membrane kept": 1 - self["voltage_decay"],
            "current kept": 1 - self["current_decay"],
            "gain": self["gain"],
            "threshold": self["threshold"],
            "bias": self["bias"],
        }
        if self.model == "li":
            del shown["threshold"]
        elif self.rule.reset == "value":
            shown["reset to"] = self["v_reset"]
        if np.isfinite(self["v_min"]).any():
            shown["lower bound"] = self["v_min"]
        if self.model == "alif":
            shown |= {"rise": self["adaptation_step"], "rise kept": 1 - self["adaptation_decay"]}
        rule = ""
        if self.model != "li":
            rule = f", reset {self.rule.reset} {self.rule.reset_timing}, v {self.rule.comparison} threshold"
            rule += ", several spikes per step" if self.rule.spikes_per_step == "floor" else ""
        drop = [k for k, v in shown.items() if k in ("current kept", "bias", "reset to") and not v.any()]
        numbers = ", ".join(f"{k} {_range(v)}" for k, v in shown.items() if k not in drop)
        return f"{words}{rule} ({numbers})"

    def _kind(self) -> str:
        if (self["current_decay"] < 1).any() or self.latency:
            return "current-based LIF"
        return "IF" if not self["voltage_decay"].any() else "LIF"


def _range(values: Float) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def parameters(size: int, **given: Float | float) -> dict[str, Float]:
    """Return the parameters of a neuron, those not given as nothing happens."""
    usual = {
        "voltage_decay": 0.0,
        "current_decay": 1.0,
        "gain": 1.0,
        "threshold": np.inf,
        "bias": 0.0,
        "v_reset": 0.0,
        "v_init": 0.0,
        "v_min": -np.inf,
        "amplitude": 1.0,
    }
    return {k: np.zeros(size) + v for k, v in {**usual, **given}.items()}
