"""The compiled steps of `lif`, `li` and `ternary`; `oracle/lif.py` defines them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.loihi2_sim.arithmetic import clip, share, wrap_state
from snn_compile.targets.loihi2_sim.kernels import (
    DECAY_BITS,
    STATE_MAX,
    SYNAPTIC_SHIFT,
    Layout,
    Rows,
    register_layout,
    wide,
)
from snn_compile.targets.program.population import Population

USUAL_TOP, USUAL_BITS, USUAL_SHIFT = LOIHI.state_max, LOIHI.decay_bits, LOIHI.synaptic_shift
SAME_STEP, NEXT_BEFORE, NEXT_AFTER, PENDING = 0, 1, 2, 3
RESET_VALUE, RESET_SUBTRACT, RESET_NONE, NEVER_SPIKES, TERNARY = 0, 1, 2, 3, 4


@njit(nogil=True, inline="always")
def _reset(v: Any, spikes: Any, threshold: Any, reset: Any) -> Any:
    """Return v after a reset, not clipped; spikes * threshold is no more than a membrane was."""
    if spikes == 0 or reset == RESET_NONE:
        return np.int32(v)
    if reset == RESET_VALUE:
        return np.int32(0)
    return np.int32(v - np.int32(spikes * threshold))


@njit(nogil=True, inline="always")
def _past(v: Any, threshold: Any, at_threshold: Any) -> bool:
    return bool(v >= threshold if at_threshold else v > threshold)


@njit(nogil=True, inline="always")
def _advance_leaky(
    n: int, w: int, acc: Any, state: Any, registers: Any, reset: int, scratch: Any, who: Any, overflow: Any,
    top: Any, bits: Any, shift: Any,
) -> int:  # fmt: skip
    """Advance leaky neurons in given formats; `scratch` marks who spikes, so that the loop is vectorized."""
    u, v = state[:n], state[w:][:n]
    keep_u, keep_v, threshold = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    bias = registers[3 * w :][:n]
    half = np.int32(top + np.int32(1))
    full = np.int32(half + half)
    below = np.uint32(np.uint32(np.uint32(1) << bits) - np.uint32(1))
    wraps = np.int32(0)
    high = np.int32(0)
    low = np.int32(0)
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        x = u[i]
        m = np.uint32(-x) if x < 0 else np.uint32(x)
        d = np.uint32(keep_u[i])
        m = np.uint32(
            np.uint32(np.uint32(m >> bits) * d) + np.uint32(np.uint32(np.uint32(m & below) * d) >> bits)
        )
        kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)
        shifted = np.int32(a << shift)
        y = np.int32(kept + shifted)
        wrapped = np.int32(y - full) if y > half else (np.int32(y + full) if y <= -half else y)
        lost = (np.int32(shifted >> shift) != a) or (((kept ^ y) & (shifted ^ y)) < 0) or (wrapped != y)
        wraps += np.int32(lost)
        u[i] = wrapped
        x = v[i]
        m = np.uint32(-x) if x < 0 else np.uint32(x)
        d = np.uint32(keep_v[i])
        m = np.uint32(
            np.uint32(np.uint32(m >> bits) * d) + np.uint32(np.uint32(np.uint32(m & below) * d) >> bits)
        )
        kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)
        y = np.int32(np.int32(kept + wrapped) + bias[i])
        high += np.int32(y > top)
        low += np.int32(y < -top)
        y = top if y > top else (np.int32(-top) if y < -top else y)
        fires = (y > threshold[i]) and (reset != NEVER_SPIKES)
        scratch[i] = np.uint8(fires)
        if reset == RESET_VALUE:
            y = np.int32(0) if fires else y
        elif reset == RESET_SUBTRACT:
            y = np.int32(y - threshold[i]) if fires else y
        v[i] = y
    overflow[0] += wraps
    overflow[1] += high
    overflow[2] += low
    if reset == NEVER_SPIKES:
        return 0
    k = 0
    for i in range(n):
        who[k] = i
        k += scratch[i]
    return k


@njit(nogil=True, inline="always")
def step_leaky(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance leaky neurons by the step of Lava's LIF, with any kind of reset."""
    top, bits, shift = formats[STATE_MAX], formats[DECAY_BITS], formats[SYNAPTIC_SHIFT]
    if top == USUAL_TOP and bits == USUAL_BITS and shift == USUAL_SHIFT:
        # Compiled with the widths as constants, a fifth faster.
        return int(
            _advance_leaky(
                n, w, acc, state, registers, options[0], scratch, who, overflow,
                np.int32(USUAL_TOP), np.uint32(USUAL_BITS), np.int32(USUAL_SHIFT),
            )
        )  # fmt: skip
    return int(
        _advance_leaky(
            n, w, acc, state, registers, options[0], scratch, who, overflow,
            np.int32(top), np.uint32(bits & 31), np.int32(shift & 31),
        )
    )  # fmt: skip


@njit(nogil=True)
def step_leaky_by_rule(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance leaky neurons of any rule (`_rule`), integrators, ternary ones (`v_min`: lower threshold)."""
    top = np.int32(formats[STATE_MAX])
    half = np.int32(top + np.int32(1))
    bits = np.uint32(formats[DECAY_BITS] & 31)
    shift = np.int32(formats[SYNAPTIC_SHIFT] & 31)
    u, v, last = state[:n], state[w:][:n], state[2 * w :][:n]
    keep_u, keep_v, threshold = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    bias, v_min, message_shift = registers[3 * w :][:n], registers[4 * w :][:n], registers[5 * w :][:n]
    reset, timing, at_threshold = options[0], options[1], options[2]
    many, old_current, decay_after = options[3], options[4], options[5]
    k = 0
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        before = u[i]
        kept = before if decay_after else np.int32(share(before, np.uint32(keep_u[i]), bits))
        y = np.int32(kept + np.int32(a << shift))
        wrapped = np.int32(wrap_state(y, half))
        overflow[0] += np.int64(wrapped) != np.int64(kept) + (np.int64(a) << np.int64(shift))
        u[i] = np.int32(share(wrapped, np.uint32(keep_u[i]), bits)) if decay_after else wrapped
        drive = before if old_current else wrapped
        x = v[i]
        pending = timing == PENDING and _past(x, threshold[i], at_threshold)
        if timing == NEXT_BEFORE:
            x = _reset(x, last[i], threshold[i], reset)
        y = np.int32(np.int32(np.int32(share(x, np.uint32(keep_v[i]), bits)) + drive) + bias[i])
        overflow[1] += y > top
        overflow[2] += y < -top
        x = np.int32(clip(y, top))
        if reset == NEVER_SPIKES:
            sent = np.int32(x >> message_shift[i])
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


def _registers(p: Population, formats: Formats) -> Rows:
    low, shift = np.zeros(1, np.int64), np.zeros(1, np.int64)
    threshold = np.zeros(1, np.int64)
    if p.model == "ternary":
        threshold = wide(p, "vth_hi") << formats.synaptic_shift
        low = wide(p, "vth_lo") << formats.synaptic_shift
    elif p.model == "lif":
        threshold, low = (
            wide(p, "vth") << formats.synaptic_shift,
            np.maximum(wide(p, "v_min"), -formats.state_max),
        )
    else:
        shift = wide(p, "message_shift")
    keep_u, keep_v = formats.decay_one - (wide(p, "du") + 1), formats.decay_one - wide(p, "dv")
    return [keep_u, keep_v, threshold, p.bias, low, shift]


def _rule(p: Population) -> tuple[int, ...]:
    """Return the population's rule as the kernels read it."""
    timing = {
        "same_step": SAME_STEP,
        "next_before": NEXT_BEFORE,
        "next_after": NEXT_AFTER,
        "pending": PENDING,
    }
    resets = {"value": RESET_VALUE, "subtract": RESET_SUBTRACT, "none": RESET_NONE}
    models = {"li": NEVER_SPIKES, "ternary": TERNARY}
    return (
        models.get(p.model, resets[p.reset]),
        timing[p.reset_timing],
        int(p.comparison == ">="),
        int(p.spikes_per_step == "floor"),
        int(p.update_order == "membrane_first"),
        int(p.current_decay == "after"),
    )


def _kernel(p: Population, sends: bool) -> int:
    # A leaky integrator whose messages nothing reads needs none.
    return 0 if p.plain and (p.spiking or not sends) else 1


for _model in ("lif", "li", "ternary"):
    register_layout(
        _model,
        Layout(
            (step_leaky, step_leaky_by_rule),
            _registers,
            {"v": "v_init"},
            more_states=1,  # the spikes of the step before
            options=_rule,
            choose=_kernel,
        ),
    )
