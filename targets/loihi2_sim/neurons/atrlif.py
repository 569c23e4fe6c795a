"""The compiled step of `atrlif`; `oracle/atrlif.py` defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import Formats
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


@njit(nogil=True)
def step_adaptive(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance neurons with adaptive threshold and refractoriness."""
    top = np.int32(formats[STATE_MAX])
    half = np.int32(top + np.int32(1))
    bits = np.uint32(formats[DECAY_BITS] & 31)
    shift = np.int32(formats[SYNAPTIC_SHIFT] & 31)
    current, v, theta, r = state[:n], state[w:][:n], state[2 * w :][:n], state[3 * w :][:n]
    keep_i, keep_v, keep_theta = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    keep_r, base, rise = registers[3 * w :][:n], registers[4 * w :][:n], registers[5 * w :][:n]
    bias = registers[6 * w :][:n]
    k = 0
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        kept = np.int32(share(current[i], np.uint32(keep_i[i]), bits))
        drive = np.int32(wrap_state(np.int32(kept + np.int32(a << shift)), half))
        overflow[0] += np.int64(drive) != np.int64(kept) + (np.int64(a) << np.int64(shift))
        current[i] = drive
        raw = np.int32(np.int32(np.int32(share(v[i], np.uint32(keep_v[i]), bits)) + drive) + bias[i])
        overflow[1] += raw > top
        overflow[2] += raw < -top
        membrane = np.int32(clip(raw, top))
        v[i] = membrane
        above = np.int32(theta[i] - base[i])
        threshold = np.int32(np.int32(share(above, np.uint32(keep_theta[i]), bits)) + base[i])
        held = np.int32(share(r[i], np.uint32(keep_r[i]), bits))
        fires = np.int32(membrane - held) >= threshold
        r[i] = np.int32(held + np.int32(2 * threshold)) if fires else held
        theta[i] = np.int32(threshold + rise[i]) if fires else threshold
        who[k] = i
        k += int(fires)
    return k


def _registers(p: Population, formats: Formats) -> Rows:
    keep = [formats.decay_one - wide(p, f"delta_{key}") for key in ("i", "v", "theta", "r")]
    return [keep[0] - 1, *keep[1:], wide(p, "theta_0"), wide(p, "theta_step"), p.bias]


register_layout("atrlif", Layout((step_adaptive,), _registers, {"v": "v_init", "theta": "theta_0"}))
