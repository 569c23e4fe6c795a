"""The kernels of balanced resonators and adaptive leaky neurons; `neuron_kernels.py` says what all take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.loihi2_sim.neuron_kernels import _clip, _keep, _low32, _toward_zero


@njit(nogil=True, cache=True)
def step_balanced(
    n: int, acc: Any, real: Any, imag: Any, r: Any, cos: Any, sin: Any, mirror: Any, threshold: Any,
    rise: Any, keep_r: Any, refractory: Any, damping: Any, damping_exp: Any, who: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance balanced resonators; `mirror` is the largest damping of the cosine."""
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        arriving = np.int64(acc[i]) << 6
        acc[i] = np.int32(0)
        shifted = np.int64(_low32(arriving))
        overflow[0] += shifted != arriving
        x, y, held = np.int64(real[i]), np.int64(imag[i]), np.int64(r[i])
        d = min((held * np.int64(damping[i])) >> np.int64(damping_exp[i]), np.int64(mirror[i]))
        c, q = np.int64(16) * np.int64(cos[i]) - d, np.int64(16) * np.int64(sin[i])
        new_x = _toward_zero(c * x - q * y, 16) + shifted
        new_y = _toward_zero(q * x + c * y, 16)
        overflow[1] += np.int64(new_x > top) + np.int64(new_y > top)
        overflow[2] += np.int64(new_x < -top) + np.int64(new_y < -top)
        new_x = min(max(new_x, -top), top)
        new_y = min(max(new_y, -top), top)
        lifted = np.int64(threshold[i]) + (held if refractory[i] else np.int64(0))
        fires = new_x > lifted
        left = np.int64(_keep(r[i], keep_r[i])) + (np.int64(rise[i]) if fires else np.int64(0))
        overflow[1] += left > top
        real[i] = np.int32(new_x)
        imag[i] = np.int32(new_y)
        r[i] = np.int32(left) if left < top else np.int32(top)
        who[k] = i
        k += int(fires)
    return k


@njit(nogil=True, cache=True)
def step_adaptive_leaky(
    n: int, acc: Any, v: Any, theta: Any, keep_v: Any, keep_theta: Any, base: Any, rise: Any, doubled: Any,
    who: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance adaptive leaky neurons; `doubled`: a spike takes two thresholds off the membrane."""
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        arriving = np.int64(acc[i]) << 6
        acc[i] = np.int32(0)
        shifted = np.int64(_low32(arriving))
        overflow[0] += shifted != arriving
        raw = np.int64(_keep(v[i], keep_v[i])) + shifted
        overflow[1] += raw > top
        overflow[2] += raw < -top
        membrane = _clip(raw)
        limit = np.int32(theta[i])
        fires = membrane > limit
        taken = np.int32(limit + limit) if doubled[i] else limit
        v[i] = np.int32(membrane - taken) if fires else membrane
        left = np.int32(np.int32(_keep(np.int32(limit - base[i]), keep_theta[i])) + base[i])
        left = np.int32(left + rise[i]) if fires else left
        overflow[1] += left > top
        theta[i] = np.int32(left) if left < top else np.int32(top)
        who[k] = i
        k += int(fires)
    return k
