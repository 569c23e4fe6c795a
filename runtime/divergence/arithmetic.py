"""The arithmetic of a program's integers, each effect of which can be switched on or off.

Values are float64 in the program's units: every integer that occurs is exact in them, and so are divisions by
powers of two. With all effects a step of `compiler/neurons` is the device's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from snn_compile.compiler.neurons.arithmetic import Arithmetic, Float
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.program.models.brf import DAMPING_BITS
from snn_compile.targets.program.models.lsn import adaptation_bits

EFFECTS = ("truncation", "flooring", "v_high", "v_low", "u_wrap", "damping_end", "rates")
"""Decays that truncate toward zero, messages and sums that are floored, states that saturate at either end,
currents that wrap around, the end of the smooth reset's damping, and rates that are looked up in a table."""

WORD_HALF = 1 << 31
"""Half the range of the 32-bit words in which neurons compute."""


def _around(x: Float, half: int) -> Float:
    """Return values wrapped into [-half, half)."""
    if np.abs(x).max(initial=0.0) < half:
        return x
    return np.mod(x + half, 2 * half) - half


class IntegerArithmetic(Arithmetic):
    """The arithmetic of one population of a program.

    `effects`: those of `EFFECTS` that act. `scale`: units of a state per unit of the network's membrane.
    `message_shift`: bits by which a state is shifted right to become a message. `rates`: the table of a
    population's rates, and the bits by which a gate's input is shifted right to become a place in it.
    """

    def __init__(
        self,
        effects: Collection[str],
        scale: float,
        formats: Formats,
        message_shift: Float | None = None,
        rates: tuple[Float, int] | None = None,
    ) -> None:
        self.scale, self.unit, self.formats = scale, float(formats.threshold_unit), formats
        self.truncates, self.floors, self.high, self.low, self.wraps, self.damping_ends, looked_up = (
            effect in effects for effect in EFFECTS
        )
        self.rates = rates if looked_up else None
        self.whole = float(1 << adaptation_bits(formats))
        self.one = float(formats.decay_one)
        self.message_unit = 1.0 if message_shift is None else 2.0**-message_shift
        self.overflow = Overflow()

    def kept(self, decay: Float) -> Float:
        """Return the complement of a decay register."""
        return self.one - decay

    def decayed(self, state: Float, kept: Float) -> Float:
        """Return a state after a decay, truncated toward zero."""
        left = state * kept / self.one
        return np.trunc(left) if self.truncates else left

    def coefficient(self, register: Float) -> Float:
        """Return a coefficient of a rotation with `DAMPING_BITS` fraction bits."""
        return (1 << DAMPING_BITS) / self.one * register

    def product(self, total: Float) -> Float:
        """Return a sum of products with `DAMPING_BITS` fraction bits in units of a state."""
        left = total / (1 << DAMPING_BITS)
        return np.trunc(left) if self.truncates else left

    def floored(self, value: Float) -> Float:
        """Return a value after a right shift."""
        return np.floor(value) if self.truncates else value

    def damped(self, damping: Float, most: Float) -> Float:
        """Return what the smooth reset takes off a coefficient, `most` at most."""
        return np.minimum(damping, most) if self.damping_ends else damping

    def current(self, x: Float) -> Float:
        """Return synaptic input, wrapped around the range of an accumulator and shifted left."""
        return (_around(x, self.formats.accumulator_half) if self.wraps else x) * self.unit

    def gate(self, x: Float) -> Float:
        """Return a gate's input, wrapped around the range of an accumulator."""
        return _around(x, self.formats.accumulator_half) if self.wraps else x

    def rate(self, gate: Float) -> Float:
        """Return rates in units of a decay register, from the table where it acts."""
        if self.rates is None:
            return self.one * super().rate(gate * (self.unit / self.scale))
        table, shift = self.rates
        place = np.floor(gate / 2.0**shift) + len(table) // 2
        found: Float = table[np.clip(place, 0, len(table) - 1).astype(np.int64)]
        return found

    def wrapped_current(self, u: Float) -> Float:
        """Return a current, wrapped to a word and then once around the range of a state."""
        if not self.wraps:
            return u
        half, wrapped = self.formats.state_half, _around(u, WORD_HALF)
        wrapped = np.where(
            wrapped > half, wrapped - 2 * half, np.where(wrapped <= -half, wrapped + 2 * half, wrapped)
        )
        return self._counted(u, wrapped)

    def wrapped_sum(self, u: Float) -> Float:
        """Return shifted synaptic input, wrapped to a word."""
        return self._counted(u, _around(u, WORD_HALF)) if self.wraps else u

    def _counted(self, u: Float, wrapped: Float) -> Float:
        self.overflow += Overflow(int(np.count_nonzero(wrapped != u)), 0, 0)
        return wrapped

    def saturated(self, v: Float) -> Float:
        """Return a state, clipped to its range at the ends that act."""
        most = self.formats.state_max
        if self.high:
            self.overflow += Overflow(0, int(np.count_nonzero(v > most)), 0)
            v = np.minimum(v, most)
        if self.low:
            self.overflow += Overflow(0, 0, int(np.count_nonzero(v < -most)))
            v = np.maximum(v, -most)
        return v

    def lower_clip(self, v_min: Float) -> Float:
        """Return the lowest membrane after a reset: a register at the end of its range clips nothing."""
        most = self.formats.state_max
        clip = np.where(v_min <= -most, -np.inf, v_min)
        return np.maximum(clip, -most) if self.low else clip

    def message(self, v: Float) -> Float:
        """Return the message that carries a membrane, floored by its shift."""
        message = v * self.message_unit
        return np.floor(message) if self.floors else message
