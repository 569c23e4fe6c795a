"""The kernels of neuron steps: one for each family of models, each over all neurons of a population.

All take what arrived at each port and set it to 0, advance the states in place, list who sends (`who`) and,
where messages carry numbers, what (`values`), add to the three overflow counters, and return how many
send. 32-bit arithmetic wherever Lava's is: with a = |x| <= 2**31 and d <= 4096 the decay (a * d) >> 12
equals (a >> 12) * d + (((a & 4095) * d) >> 12) exactly, in unsigned 32 bits. `network_kernel.py` compiles
these into one function with its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

SAME_STEP, NEXT_BEFORE, NEXT_AFTER, PENDING = 0, 1, 2, 3
RESET_VALUE, RESET_SUBTRACT, RESET_NONE, NEVER_SPIKES, TERNARY = 0, 1, 2, 3, 4


@njit(nogil=True, cache=True, inline="always")
def _keep(x: Any, d: Any) -> Any:
    """Return the share d / 4096 of x, rounded toward zero."""
    m = np.uint32(-x) if x < 0 else np.uint32(x)
    m = np.uint32(
        np.uint32(np.uint32(m >> np.uint32(12)) * d)
        + np.uint32(np.uint32(np.uint32(m & np.uint32(4095)) * d) >> np.uint32(12))
    )
    return np.int32(-np.int32(m)) if x < 0 else np.int32(m)


@njit(nogil=True, cache=True, inline="always")
def _clip(y: Any) -> Any:
    top = np.int32((1 << 23) - 1)
    return top if y > top else (np.int32(-top) if y < -top else np.int32(y))


@njit(nogil=True, cache=True, inline="always")
def _reset(v: Any, spikes: Any, threshold: Any, reset: Any) -> Any:
    """Return v after a reset, not clipped; spikes * threshold is no more than a membrane was."""
    if spikes == 0 or reset == RESET_NONE:
        return np.int32(v)
    if reset == RESET_VALUE:
        return np.int32(0)
    return np.int32(v - np.int32(spikes * threshold))


@njit(nogil=True, cache=True, inline="always")
def _past(v: Any, threshold: Any, at_threshold: Any) -> bool:
    return bool(v >= threshold if at_threshold else v > threshold)


@njit(nogil=True, cache=True)
def step_leaky_by_rule(
    n: int, acc: Any, u: Any, v: Any, last: Any, keep_u: Any, keep_v: Any, threshold: Any, bias: Any,
    v_min: Any, shift: Any, rule: Any, who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance leaky neurons of any rule, leaky integrators and ternary neurons.

    `rule`: reset, timing, comparison, spikes a step, update order, current decay, as numbers; `v_min`
    holds the lower threshold of ternary neurons.
    """
    reset, timing, at_threshold = rule[0], rule[1], rule[2]
    many, old_current, decay_after = rule[3], rule[4], rule[5]
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        before = u[i]
        kept = before if decay_after else np.int32(_keep(before, keep_u[i]))
        y = np.int32(kept + np.int32(a << 6))
        w = np.int32(y - (1 << 24)) if y > (1 << 23) else (np.int32(y + (1 << 24)) if y <= -(1 << 23) else y)
        overflow[0] += np.int64(w) != np.int64(kept) + (np.int64(a) << 6)
        u[i] = np.int32(_keep(w, keep_u[i])) if decay_after else w
        drive = before if old_current else w
        x = v[i]
        pending = timing == PENDING and _past(x, threshold[i], at_threshold)
        if timing == NEXT_BEFORE:
            x = _reset(x, last[i], threshold[i], reset)
        y = np.int32(np.int32(np.int32(_keep(x, keep_v[i])) + drive) + bias[i])
        overflow[1] += y > top
        overflow[2] += y < -top
        x = np.int32(_clip(y))
        if reset == NEVER_SPIKES:
            sent = np.int32(x >> shift[i])
        elif reset == TERNARY:
            sent = np.int32(np.int32(x > threshold[i]) - np.int32(x < v_min[i]))
            x = np.int32(0) if sent else x
        else:
            if timing == NEXT_AFTER:
                x = _reset(x, last[i], threshold[i], reset)
                overflow[2] += x < -top  # v_min, never below the range, takes it back
            reached = np.int32(x - threshold[i]) if pending else x
            sent = np.int32(0)
            if _past(reached, threshold[i], at_threshold):
                # Of integers, v > n theta is v - 1 >= n theta.
                strict = 0 if at_threshold else 1
                sent = np.int32((reached - strict) // threshold[i]) if many else np.int32(1)
            last[i] = sent
            if timing == SAME_STEP or timing == PENDING:
                x = _reset(x, sent, threshold[i], reset)
            x = max(x, v_min[i])
        v[i] = x
        who[k] = i
        values[k] = sent
        k += sent != 0
    return k


@njit(nogil=True, cache=True, inline="always")
def step_leaky(
    n: int, acc: Any, u: Any, v: Any, keep_u: Any, keep_v: Any, threshold: Any, bias: Any, reset: int,
    fired: Any, spikes: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance leaky neurons by Lava's LIF's step, with any kind of reset; `fired` is room for n bytes."""
    half = np.int32(1 << 23)
    full = np.int32(1 << 24)
    top = np.int32((1 << 23) - 1)
    wraps = np.int32(0)
    high = np.int32(0)
    low = np.int32(0)
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        x = u[i]
        m = np.uint32(-x) if x < 0 else np.uint32(x)
        d = keep_u[i]
        m = np.uint32(
            np.uint32(np.uint32(m >> np.uint32(12)) * d)
            + np.uint32(np.uint32(np.uint32(m & np.uint32(4095)) * d) >> np.uint32(12))
        )
        kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)
        shifted = np.int32(a << 6)
        y = np.int32(kept + shifted)
        w = np.int32(y - full) if y > half else (np.int32(y + full) if y <= -half else y)
        lost = (np.int32(shifted >> 6) != a) or (((kept ^ y) & (shifted ^ y)) < 0) or (w != y)
        wraps += np.int32(lost)
        u[i] = w
        x = v[i]
        m = np.uint32(-x) if x < 0 else np.uint32(x)
        d = keep_v[i]
        m = np.uint32(
            np.uint32(np.uint32(m >> np.uint32(12)) * d)
            + np.uint32(np.uint32(np.uint32(m & np.uint32(4095)) * d) >> np.uint32(12))
        )
        kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)
        y = np.int32(np.int32(kept + w) + bias[i])
        high += np.int32(y > top)
        low += np.int32(y < -top)
        y = top if y > top else (np.int32(-top) if y < -top else y)
        fires = (y > threshold[i]) and (reset != 3)
        fired[i] = np.uint8(fires)
        if reset == 0:
            y = np.int32(0) if fires else y
        elif reset == 1:
            y = np.int32(y - threshold[i]) if fires else y
        v[i] = y
    overflow[0] += wraps
    overflow[1] += high
    overflow[2] += low
    if reset == 3:
        return 0
    k = 0
    for i in range(n):
        spikes[k] = i
        k += fired[i]
    return k


@njit(nogil=True, cache=True, inline="always")
def _toward_zero(x: Any, bits: Any) -> Any:
    return -((-x) >> bits) if x < 0 else x >> bits


@njit(nogil=True, cache=True, inline="always")
def _magnitude(x: Any) -> Any:
    """Return |x| in 32 bits, where that of -2**31 is itself."""
    return np.int32(-x) if x < 0 else np.int32(x)


@njit(nogil=True, cache=True, inline="always")
def _beyond(x: Any) -> bool:
    """Tell whether a number lies beyond 24 bits."""
    return bool(x > (1 << 23) - 1 or x < -((1 << 23) - 1))


@njit(nogil=True, cache=True)
def step_resonators(
    n: int, a_real: Any, a_imag: Any, real: Any, imag: Any, cos: Any, sin: Any, threshold: Any, exponent: Any,
    bits: Any, izhikevich: Any, who: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance resonate-and-fire neurons, or Izhikevich's."""
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        x, y = np.int64(real[i]), np.int64(imag[i])
        c, q, e, b = np.int64(cos[i]), np.int64(sin[i]), np.int64(exponent[i]), np.int64(bits[i])
        in_x, in_y = np.int64(a_real[i]) << e, np.int64(a_imag[i]) << e
        a_real[i] = np.int32(0)
        a_imag[i] = np.int32(0)
        to_x, to_y = np.int64(_low32(in_x)), np.int64(_low32(in_y))
        overflow[0] += np.int64(to_x != in_x) + np.int64(to_y != in_y)
        new_x = _toward_zero(c * x, b) - _toward_zero(q * y, b) + to_x
        new_y = _toward_zero(q * x, b) + _toward_zero(c * y, b) + to_y
        overflow[1] += np.int64(new_x > top) + np.int64(new_y > top)
        overflow[2] += np.int64(new_x < -top) + np.int64(new_y < -top)
        new_x = min(max(new_x, -top), top)
        new_y = min(max(new_y, -top), top)
        if izhikevich:
            fires = new_y >= threshold[i]
            if fires:
                new_x = 0
                new_y = threshold[i] - 1
        else:
            fires = new_x >= threshold[i] and new_y >= 0 and y < 0
        real[i] = np.int32(new_x)
        imag[i] = np.int32(new_y)
        who[k] = i
        k += int(fires)
    return k


@njit(nogil=True, cache=True, inline="always")
def _low32(x: Any) -> Any:
    """Return a 64-bit number wrapped to 32 bits."""
    return ((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


@njit(nogil=True, cache=True, inline="always")
def _turn(x: Any) -> Any:
    """Return a current after its single turn of 24 bits."""
    if x > (1 << 23):
        return np.int32(x - (1 << 24))
    return np.int32(x + (1 << 24)) if x <= -(1 << 23) else np.int32(x)


@njit(nogil=True, cache=True)
def step_adaptive(
    n: int, acc: Any, current: Any, v: Any, theta: Any, r: Any, keep_i: Any, keep_v: Any, keep_theta: Any,
    keep_r: Any, base: Any, rise: Any, bias: Any, who: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance neurons with adaptive threshold and refractoriness."""
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        kept = np.int32(_keep(current[i], keep_i[i]))
        drive = np.int32(_turn(np.int32(kept + np.int32(a << 6))))
        overflow[0] += np.int64(drive) != np.int64(kept) + (np.int64(a) << 6)
        current[i] = drive
        raw = np.int32(np.int32(np.int32(_keep(v[i], keep_v[i])) + drive) + bias[i])
        overflow[1] += raw > top
        overflow[2] += raw < -top
        membrane = np.int32(_clip(raw))
        v[i] = membrane
        above = np.int32(theta[i] - base[i])
        threshold = np.int32(np.int32(_keep(above, keep_theta[i])) + base[i])
        held = np.int32(_keep(r[i], keep_r[i]))
        fires = np.int32(membrane - held) >= threshold
        r[i] = np.int32(held + np.int32(2 * threshold)) if fires else held
        theta[i] = np.int32(threshold + rise[i]) if fires else threshold
        who[k] = i
        k += int(fires)
    return k


@njit(nogil=True, cache=True)
def step_deltas(
    n: int, acc: Any, summed: Any, sigma: Any, act: Any, residue: Any, error: Any, threshold: Any, bias: Any,
    relu: Any, cumulative: Any, input_shift: Any, shift: Any, who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance sigma-delta neurons, or delta encoders (not `summed`: they have no sigma)."""
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        if summed:
            total = np.int32(sigma[i] + a)
            sigma[i] = total
            overflow[0] += _beyond(total)
            total = np.int32(total + bias[i])
            total = np.int32(0) if relu[i] and total < 0 else total
        else:
            overflow[0] += _beyond(np.int64(a) << np.int64(input_shift[i]))
            total = np.int32(a << input_shift[i])
        overflow[1] += total > top
        overflow[2] += total < -top
        d = np.int32(np.int32(total - act[i]) + residue[i])
        measured = np.int32(error[i] + d) if cumulative[i] else d
        sent = d if _magnitude(measured) >= threshold[i] else np.int32(0)
        if cumulative[i]:
            error[i] = np.int32(0) if _magnitude(sent) > 0 else measured
        residue[i] = np.int32(d - sent)
        act[i] = total
        message = np.int32(sent >> shift[i])
        who[k] = i
        values[k] = message
        k += message != 0
    return k


@njit(nogil=True, cache=True)
def step_sigmas(n: int, acc: Any, sigma: Any, who: Any, values: Any, overflow: Any) -> int:
    """Advance sums of all input."""
    k = 0
    for i in range(n):
        total = np.int32(sigma[i] + acc[i])
        acc[i] = np.int32(0)
        sigma[i] = total
        overflow[0] += _beyond(total)
        who[k] = i
        values[k] = total
        k += total != 0
    return k


@njit(nogil=True, cache=True)
def step_relays(
    n: int, acc: Any, threshold: Any, rectified: Any, who: Any, values: Any, overflow: Any
) -> int:
    """Send the input on where it is larger than the threshold."""
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        a = np.int32(acc[i])
        acc[i] = np.int32(0)
        overflow[1] += a > top
        overflow[2] += a < -top
        measured = a if rectified else _magnitude(a)
        who[k] = i
        values[k] = a
        k += measured > threshold[i] and a != 0
    return k
