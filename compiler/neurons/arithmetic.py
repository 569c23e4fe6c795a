"""The arithmetic that a neuron's step is written against: here float64, in the units of the network.

The steps in this folder are the equations of the network. Where a program's integers do something else (a
register counts in other units, a shift truncates, a state saturates), the step calls a method of its
`Arithmetic`, which here changes nothing. `runtime/divergence` derives an arithmetic whose effects are the
program's, so that one step serves the float reference and the emulation of a program.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from snn_compile.targets.devices.record import Overflow

Float = npt.NDArray[np.float64]


class Arithmetic:
    """Plain float64: nothing is truncated, wrapped or saturated.

    `scale`: units of a state per unit of the network's membrane. `unit`: units of a state per unit of
    synaptic input, and of a threshold register that is shifted as synaptic input is. `whole`: what stands for
    an adaptation of 1. `overflow` counts the values that left their range.
    """

    scale = 1.0
    unit = 1.0
    whole = 1.0
    overflow = Overflow()

    def kept(self, decay: Float) -> Float:
        """Return the factor, in units of a decay register, that a decay leaves of a state per step."""
        return 1 - decay

    def decayed(self, state: Float, kept: Float) -> Float:
        """Return a state after a decay, truncated toward zero by integers."""
        return kept * state

    def gate(self, x: Float) -> Float:
        """Return the input of a gate, wrapped to an accumulator by integers."""
        return x

    def rate(self, gate: Float) -> Float:
        """Return the logistic function of a gate's input, which integers look up."""
        rates: Float = expit(gate)
        return rates

    def coefficient(self, register: Float) -> Float:
        """Return a coefficient of a rotation in the units in which products are summed."""
        return register

    def product(self, total: Float) -> Float:
        """Return a sum of products in units of a state, truncated toward zero by integers."""
        return total

    def floored(self, value: Float) -> Float:
        """Return a value that integers shift right, which floors it."""
        return value

    def damped(self, damping: Float, most: Float) -> Float:
        """Return what the smooth reset takes off a coefficient; integers take `most` at most."""
        return damping

    def current(self, x: Float) -> Float:
        """Return synaptic input in units of a state, wrapped to an accumulator by integers."""
        return x

    def wrapped_current(self, u: Float) -> Float:
        """Return a synaptic current, wrapped at the ends of its state by integers."""
        return u

    def wrapped_sum(self, u: Float) -> Float:
        """Return shifted synaptic input, wrapped to a word by integers."""
        return u

    def saturated(self, v: Float) -> Float:
        """Return a state, clipped to the range of its register by integers."""
        return v

    def lower_clip(self, v_min: Float) -> Float:
        """Return the lowest membrane after a reset; -inf means none."""
        return v_min

    def message(self, v: Float) -> Float:
        """Return the message that carries a membrane, shifted right by integers."""
        return v


FLOAT = Arithmetic()
"""The float reference's arithmetic."""
