"""The integer arithmetic that every device shares, written for reading.

All functions take and return int64 arrays holding values of the narrower type they describe. The rules
are those of Lava 0.10.0's fixed-point process models, measured against Lava itself. The widths that a
function does not take are Loihi's; a program's own are its `formats` (`chips/formats.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]

M = 1 << 23
"""Half the range of a 24-bit state: u lives in (-M, M], v in [-(M-1), M-1]."""

DECAY_BITS = 12
DECAY_ONE = 1 << DECAY_BITS
STATE_SHIFT = 6
"""Synaptic input and thresholds are shifted left by 6 bits to align with the states; biases are not."""

SIGN_MODES = ("mixed", "excitatory", "inhibitory")


def shift_toward_zero(x: Int, bits: int) -> Int:
    """Return sign(x) * (|x| >> bits): the shift of decays, which rounds toward zero."""
    shifted: Int = np.sign(x) * (np.abs(x) >> bits)
    return shifted


def wrap32(x: Int) -> Int:
    """Return x wrapped to a signed 32-bit integer, as messages are."""
    return ((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def magnitude(x: Int) -> Int:
    """Return |x| in 32 bits, where that of -2**31 is itself."""
    return wrap32(np.abs(x))


def wrap_state(x: Int, half: int = M) -> Int:
    """Return a synaptic current after its single wrap: outside (-half, half] it moves by 2 half, once."""
    return np.where(x > half, x - 2 * half, np.where(x <= -half, x + 2 * half, x))


def saturate(v: Int, top: int = M - 1) -> Int:
    """Return v clipped to a state's range, +-top."""
    return np.clip(v, -top, top)


def wrap_sum(x: Int, bits: int) -> Int:
    """Return a sum wrapped to a signed accumulator of `bits` bits, 32 or fewer."""
    half = 1 << (bits - 1)
    return ((x + half) & (2 * half - 1)) - half


def shift_sum(total: Int, exponent: int, bits: int = 32) -> Int:
    """Return a table's sum, in an accumulator of `bits` bits, scaled by its weight exponent.

    That is a left shift, or a right shift that floors.
    """
    total = wrap_sum(total, bits)
    return wrap_sum(total << exponent, bits) if exponent > 0 else total >> -exponent


def effective_bias(mantissa: Int, exponent: Int | int) -> Int:
    """Return mantissa * 2**exponent in membrane units (not shifted by 6), flooring if it is negative."""
    return wrap32(mantissa << np.maximum(exponent, 0)) >> np.maximum(np.negative(exponent), 0)


def weight_step(bits: int, sign_mode: str) -> int:
    """Return the distance between two weights that `bits` bits can hold: 2**k.

    An unsigned table (excitatory, inhibitory) of 8 bits has step 1; a mixed one spends a bit on the
    sign, so its step is 2.
    """
    return 1 << (8 - bits + (sign_mode == "mixed"))


def weight_range(bits: int, sign_mode: str) -> tuple[int, int]:
    """Return the lowest and highest weight that a table of `bits` bits and `sign_mode` holds."""
    step = weight_step(bits, sign_mode)
    if sign_mode == "mixed":
        return -256, 256 - step
    top = 256 - step
    return (0, top) if sign_mode == "excitatory" else (-top, 0)


def truncate_weights(weights: Int, bits: int, sign_mode: str) -> Int:
    """Return the weights as the synapse memory holds them: clipped, then low bits cleared.

    Mixed tables clear low bits by flooring; inhibitory ones on the magnitude, hence toward zero.
    """
    step = weight_step(bits, sign_mode)
    if sign_mode == "inhibitory":
        return -truncate_weights(-weights, bits, "excitatory")
    low = -256 if sign_mode == "mixed" else 0
    return np.clip(weights, low, 255) // step * step
