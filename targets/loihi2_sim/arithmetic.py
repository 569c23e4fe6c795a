"""Integer arithmetic of one neuron's step, compiled into the kernels; 32 bits wherever Lava's is.

With a = |x| <= 2**31, one = 2**bits and a share d <= one, the decay (a * d) >> bits equals
(a >> bits) * d + (((a & (one - 1)) * d) >> bits) exactly, in unsigned 32 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, inline="always")
def share(x: Any, d: Any, bits: Any) -> Any:
    """Return the share d / 2**bits of x (all 32 bits, d and bits unsigned), rounded toward zero."""
    m = np.uint32(-x) if x < 0 else np.uint32(x)
    low = np.uint32(m & np.uint32((np.uint32(1) << bits) - np.uint32(1)))
    m = np.uint32(np.uint32(np.uint32(m >> bits) * d) + np.uint32(np.uint32(low * d) >> bits))
    return np.int32(-np.int32(m)) if x < 0 else np.int32(m)


@njit(nogil=True, inline="always")
def clip(y: Any, top: Any) -> Any:
    """Return y between -top and top, in 32 bits."""
    return top if y > top else (np.int32(-top) if y < -top else np.int32(y))


@njit(nogil=True, inline="always")
def wrap_state(x: Any, half: Any) -> Any:
    """Return a current after its single wrap: (-half, half] is kept."""
    full = np.int32(half + half)
    return np.int32(x - full) if x > half else (np.int32(x + full) if x <= -half else np.int32(x))


@njit(nogil=True, inline="always")
def low32(x: Any) -> Any:
    """Return a 64-bit number wrapped to 32 bits."""
    return ((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


@njit(nogil=True, inline="always")
def toward_zero(x: Any, bits: Any) -> Any:
    """Return x shifted right, rounded toward zero."""
    return -((-x) >> bits) if x < 0 else x >> bits


@njit(nogil=True, inline="always")
def magnitude(x: Any) -> Any:
    """Return |x| in 32 bits, where that of -2**31 is itself."""
    return np.int32(-x) if x < 0 else np.int32(x)


@njit(nogil=True, inline="always")
def beyond(x: Any, top: Any) -> bool:
    """Tell whether a number lies beyond the range of a state."""
    return bool(x > top or x < -top)
