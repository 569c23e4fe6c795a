"""The compiled step of `brf`; `oracle/brf.py` defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.loihi2_sim.arithmetic import low32, share, toward_zero
from snn_compile.targets.loihi2_sim.kernels import (
    DECAY_BITS,
    STATE_MAX,
    SYNAPTIC_SHIFT,
    Layout,
    Rows,
    register_layout,
    wide,
)
from snn_compile.targets.program.models.brf import DAMPING_BITS
from snn_compile.targets.program.population import Population


@njit(nogil=True)
def step_balanced(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance balanced resonators; `mirror` is the largest damping of the cosine."""
    unit = np.int64(1 << DAMPING_BITS) >> np.int64(formats[DECAY_BITS])
    top = np.int64(formats[STATE_MAX])
    bits = np.uint32(formats[DECAY_BITS] & 31)
    shift = np.int64(formats[SYNAPTIC_SHIFT])
    real, imag, r = state[:n], state[w:][:n], state[2 * w :][:n]
    cos, sin, mirror = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    threshold, rise, keep_r = registers[3 * w :][:n], registers[4 * w :][:n], registers[5 * w :][:n]
    refractory, damping, damping_exp = registers[6 * w :][:n], registers[7 * w :][:n], registers[8 * w :][:n]
    k = 0
    for i in range(n):
        incoming = np.int64(acc[i]) << shift
        acc[i] = np.int32(0)
        shifted = np.int64(low32(incoming))
        overflow[0] += shifted != incoming
        x, y, held = np.int64(real[i]), np.int64(imag[i]), np.int64(r[i])
        d = min((held * np.int64(damping[i])) >> np.int64(damping_exp[i]), np.int64(mirror[i]))
        c, q = unit * np.int64(cos[i]) - d, unit * np.int64(sin[i])
        new_x = toward_zero(c * x - q * y, DAMPING_BITS) + shifted
        new_y = toward_zero(q * x + c * y, DAMPING_BITS)
        overflow[1] += np.int64(new_x > top) + np.int64(new_y > top)
        overflow[2] += np.int64(new_x < -top) + np.int64(new_y < -top)
        new_x = min(max(new_x, -top), top)
        new_y = min(max(new_y, -top), top)
        lifted = np.int64(threshold[i]) + (held if refractory[i] else np.int64(0))
        fires = new_x > lifted
        left = np.int64(share(r[i], np.uint32(keep_r[i]), bits)) + (
            np.int64(rise[i]) if fires else np.int64(0)
        )
        overflow[1] += left > top
        real[i] = np.int32(new_x)
        imag[i] = np.int32(new_y)
        r[i] = np.int32(left) if left < top else np.int32(top)
        who[k] = i
        k += int(fires)
    return k


def _registers(p: Population, formats: Formats) -> Rows:
    mirror = np.maximum((2 << (DAMPING_BITS - formats.decay_bits)) * wide(p, "cos_decay"), 0)
    return [
        wide(p, "cos_decay"),
        wide(p, "sin_decay"),
        mirror,
        wide(p, "vth") << formats.synaptic_shift,
        wide(p, "r_step"),
        formats.decay_one - wide(p, "delta_r"),
        wide(p, "refractory"),
        wide(p, "damping"),
        wide(p, "damping_exp"),
    ]


register_layout("brf", Layout((step_balanced,), _registers))
