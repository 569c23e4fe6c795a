"""Leaky neurons: Lava's LIF and every rule of `program/rule.py`, leaky integrators, and Lava's TernaryLIF.

    u  = wrap( shift_toward_zero(u * (4096 - (du + 1)), 12) + (a << 6) )
    v  = saturate( shift_toward_zero(v * (4096 - dv), 12) + u + bias )
    s  = v > (vth << 6)
    v  = 0 where s (reset "value"), v - (vth << 6) where s (reset "subtract")
    v  = max(v, v_min)

or what the population's rule says instead. A leaky integrator sends v >> message_shift, flooring; a
ternary neuron sends 1 where v > (vth_hi << 6), -1 where v < (vth_lo << 6), and v is 0 there. A subtraction
that takes v below its range saturates and counts as such.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.integer import Int, shift_toward_zero, wrap32, wrap_state
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.population import Population


@implements("li")
class LeakyIntegrators(Neurons):
    """Current and membrane; what they send is the membrane."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.rule = population.rule
        self.keep_u = self.formats.decay_one - (self.parameters["du"] + 1)
        self.keep_v = self.formats.decay_one - self.parameters["dv"]
        self.bias = population.bias
        self.u = self.zeros()
        self.v = self.u + self.parameters["v_init"]

    def step(self, inputs: Sequence[Int]) -> Int:
        """Advance current and membrane; return the membrane, shifted right by message_shift."""
        self._integrate(self._current(inputs[0]))
        return self.v >> self.parameters["message_shift"]

    def _integrate(self, drive: Int) -> None:
        self.v = self.saturated(
            wrap32(shift_toward_zero(self.v * self.keep_v, self.formats.decay_bits) + drive + self.bias)
        )

    def _current(self, a: Int) -> Int:
        """Update u and return what drives the membrane in this step."""
        before = self.u
        if self.rule.current_decay == "before":
            exact = shift_toward_zero(self.u * self.keep_u, self.formats.decay_bits) + (
                a << self.formats.synaptic_shift
            )
        else:
            exact = self.u + (a << self.formats.synaptic_shift)
        # Two wraps, as in Lava: the shifted input to 32 bits, then the sum, then one wrap of 24 bits.
        self.u = wrap_state(wrap32(exact), self.formats.state_half)
        self.count(self.u != exact)
        whole = self.u
        if self.rule.current_decay == "after":
            self.u = shift_toward_zero(whole * self.keep_u, self.formats.decay_bits)
        return whole if self.rule.update_order == "synapse_first" else before


@implements("ternary")
class TernaryNeurons(LeakyIntegrators):
    """Signs above and below two thresholds."""

    def step(self, inputs: Sequence[Int]) -> Int:
        """Advance current and membrane; return 1, -1 or 0, and reset the membrane where it is not 0."""
        self._integrate(self._current(inputs[0]))
        above = self.v > self.parameters["vth_hi"] << self.formats.synaptic_shift
        below = self.v < self.parameters["vth_lo"] << self.formats.synaptic_shift
        self.v = np.where(above | below, 0, self.v)
        return above.astype(np.int64) - below


@implements("lif")
class LeakyNeurons(LeakyIntegrators):
    """Spikes by any rule; `last` holds those of the step before."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        # The default of v_min lies below every state, also where a state is narrower than Loihi's.
        self.v_min = np.maximum(self.parameters["v_min"], -self.formats.state_max)
        self.threshold = self.parameters["vth"] << self.formats.synaptic_shift
        self.last = self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Advance by the population's rule; return the number of spikes of each neuron."""
        drive = self._current(inputs[0])
        pending = self._past(self.v)
        if self.rule.reset_timing == "next_before":
            self._reset(self.last)
        self._integrate(drive)
        if self.rule.reset_timing == "next_after":
            self._reset(self.last)
        self.last = self._spikes(pending)
        if self.rule.reset_timing in ("same_step", "pending"):
            self._reset(self.last)
        self.v = np.maximum(self.v, self.v_min)
        return self.last

    def _past(self, v: Int) -> npt.NDArray[np.bool_]:
        return v > self.threshold if self.rule.comparison == ">" else v >= self.threshold

    def _spikes(self, pending: npt.NDArray[np.bool_]) -> Int:
        reached = self.v
        if self.rule.reset_timing == "pending":
            reached = self.v - np.where(pending, self.threshold, 0)
        spikes = self._past(reached)
        if self.rule.spikes_per_step == "floor":
            # Of integers, v > n theta is v - 1 >= n theta.
            strict = int(self.rule.comparison == ">")
            return np.where(spikes, (reached - strict) // self.threshold, 0)
        return spikes.astype(np.int64)

    def _reset(self, spikes: Int) -> None:
        if self.rule.reset == "none":
            return
        if self.rule.reset == "value":
            self.v = np.where(spikes != 0, 0, self.v)
        else:
            self.v = self.v - spikes * self.threshold
            # Of a late reset after the membrane's step; v_min, never below the range, takes it back.
            self.overflow += Overflow(0, 0, int((self.v < -self.formats.state_max).sum()))
