"""The compiled step of `alif`; `oracle/alif.py` defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.loihi2_sim.arithmetic import clip, low32, share
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
def step_adaptive_leaky(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance adaptive leaky neurons; `doubled`: a spike takes two thresholds off the membrane."""
    top = np.int32(formats[STATE_MAX])
    bits = np.uint32(formats[DECAY_BITS] & 31)
    shift = np.int64(formats[SYNAPTIC_SHIFT])
    v, theta = state[:n], state[w:][:n]
    keep_v, keep_theta, base = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    rise, doubled = registers[3 * w :][:n], registers[4 * w :][:n]
    k = 0
    for i in range(n):
        incoming = np.int64(acc[i]) << shift
        acc[i] = np.int32(0)
        shifted = np.int64(low32(incoming))
        overflow[0] += shifted != incoming
        raw = np.int64(share(v[i], np.uint32(keep_v[i]), bits)) + shifted
        overflow[1] += raw > top
        overflow[2] += raw < -top
        membrane = clip(raw, top)
        limit = np.int32(theta[i])
        fires = membrane > limit
        taken = np.int32(limit + limit) if doubled[i] else limit
        v[i] = np.int32(membrane - taken) if fires else membrane
        left = np.int32(np.int32(share(np.int32(limit - base[i]), np.uint32(keep_theta[i]), bits)) + base[i])
        left = np.int32(left + rise[i]) if fires else left
        overflow[1] += left > top
        theta[i] = np.int32(left) if left < top else np.int32(top)
        who[k] = i
        k += int(fires)
    return k


def _registers(p: Population, formats: Formats) -> Rows:
    keep = [formats.decay_one - wide(p, key) for key in ("delta_v", "delta_theta")]
    return [*keep, wide(p, "theta_0"), wide(p, "theta_step"), wide(p, "reset_exp")]


register_layout("alif", Layout((step_adaptive_leaky,), _registers, {"theta": "theta_0"}))
