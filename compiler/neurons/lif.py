"""Leaky integrate-and-fire neurons (`lif`) and leaky integrators (`li`) in float64.

With synaptic input x, one step is

    u = (1 - current_decay) u + x
    v = (1 - voltage_decay) v + u + bias
    s = v > threshold  (or >=),  then the reset and the lower clip v_min

or in the order that the population's rule says (`targets.Rule`). A leaky integrator never spikes and sends
its membrane. Their registers are rounded in `quantization/registers.py`.
"""

from __future__ import annotations

import numpy as np

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Bool, Group, NeuronModel, Neurons, Peak, Poles
from snn_compile.targets.chips.formats import Formats


class LeakyGroup(Group):
    """The state of leaky neurons over a batch; `last` are the spikes of the step before."""

    def begin(self) -> None:
        """Set initial states; thresholds are in units of a state."""
        a, values = self.arithmetic, self.values
        self.keep_u, self.keep_v = a.kept(values["current_decay"]), a.kept(values["voltage_decay"])
        self.bias = values["bias"]
        self.v = self.reached = self.u + values["v_init"]
        self.last = np.zeros_like(self.u)
        if self.spiking:
            self.threshold = values["threshold"] * a.unit
            self.v_min = a.lower_clip(values["v_min"])

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return spikes, or the membrane."""
        a, timing = self.arithmetic, self.rule.reset_timing
        drive = self._current(a.current(x))
        pending = self._past(self.v) if timing == "pending" and self.spiking else None
        if timing == "next_before":
            self._reset(self.last)
        self.v = self.reached = a.saturated(a.decayed(self.v, self.keep_v) + drive + self.bias)
        self.watch(self._whole, (self.v,))
        if not self.spiking:
            return a.message(self.v)
        if timing == "next_after":
            self._reset(self.last)
            self.reached = self.v
            self.watch(self._whole, (self.v,))
        self.last = self._spikes(pending)
        if timing in ("same_step", "pending"):
            self._reset(self.last)
        self.v = np.maximum(self.v, self.v_min)
        return self.last

    def _current(self, x: Float) -> Float:
        """Advance the synaptic current; return what drives the membrane."""
        a, rule, before = self.arithmetic, self.rule, self.u
        if rule.current_decay == "before":
            self.u = self._whole = a.wrapped_current(a.decayed(before, self.keep_u) + x)
        else:
            self._whole = a.wrapped_current(before + x)
            self.u = a.decayed(self._whole, self.keep_u)
        return self._whole if rule.update_order == "synapse_first" else before

    def _spikes(self, pending: Bool | None) -> Float:
        reached = self.v if pending is None else self.v - np.where(pending, self.threshold, 0)
        fired = self._past(reached)
        if self.rule.spikes_per_step == "floor":
            passed = reached / self.threshold
            return np.where(
                fired, np.ceil(passed) - 1 if self.rule.comparison == ">" else np.floor(passed), 0.0
            )
        return fired.astype(np.float64)

    def _past(self, v: Float) -> Bool:
        past: Bool = v > self.threshold if self.rule.comparison == ">" else v >= self.threshold
        return past

    def _reset(self, spikes: Float) -> None:
        if not self.spiking:
            return
        if self.rule.reset == "value":
            self.v = np.where(spikes != 0, 0.0, self.v)
        elif self.rule.reset == "subtract":
            self.v = self.v - spikes * self.threshold


def leaky_bound(p: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return the largest states under an input of at most `drive` (size,) at every step."""

    def lost(key: str, offset: int) -> Float:
        # A slow leak may round to a slower one, or to none.
        decay, one = p.parameters[key], formats.decay_one
        return np.minimum(decay, np.maximum(np.rint(decay * one), offset) / one)

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u = np.where(drive > 0, drive / lost("current_decay", 1), 0.0)
        total = u + np.abs(p.parameters["bias"])
        v = np.where(total > 0, total / lost("voltage_decay", 0), 0.0)
    top = float(v.max()) + float(np.abs(p.parameters["v_init"]).max())
    return Peak(float(u.max()), top, top)


def leaky_poles(p: Neurons) -> list[Poles]:
    """Return the poles of the mean leaks of current and membrane, without the resets."""
    return [tuple(1 - float(p.parameters[key].mean()) for key in _DECAYS)]


_LEAKY = ("current_decay", "voltage_decay", "bias", "input_bias", "v_init", "offset")
_DECAYS = ("current_decay", "voltage_decay")

MODELS = (
    NeuronModel(
        "lif",
        ("current_decay", "voltage_decay", "threshold", "bias", "input_bias", "v_init", "offset", "v_min"),
        LeakyGroup,
        bound=leaky_bound,
        poles=leaky_poles,
        decays=_DECAYS,
        defaults={"v_min": -np.inf},
    ),
    NeuronModel("li", _LEAKY, LeakyGroup, bound=leaky_bound, poles=leaky_poles, decays=_DECAYS),
)
