"""The compiled step of `rf` and `rf_iz`; `oracle/rf.py` defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.loihi2_sim.arithmetic import low32, toward_zero
from snn_compile.targets.loihi2_sim.kernels import STATE_MAX, Layout, Rows, register_layout, wide
from snn_compile.targets.program.population import Population


@njit(nogil=True)
def step_resonators(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance resonate-and-fire neurons, or Izhikevich's."""
    top = np.int64(formats[STATE_MAX])
    izhikevich = options[0] != 0
    a_real, a_imag = acc[:n], acc[w:][:n]
    real, imag = state[:n], state[w:][:n]
    cos, sin, threshold = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    exponent, bits = registers[3 * w :][:n], registers[4 * w :][:n]
    k = 0
    for i in range(n):
        x, y = np.int64(real[i]), np.int64(imag[i])
        c, q, e, b = np.int64(cos[i]), np.int64(sin[i]), np.int64(exponent[i]), np.int64(bits[i])
        in_x, in_y = np.int64(a_real[i]) << e, np.int64(a_imag[i]) << e
        a_real[i] = np.int32(0)
        a_imag[i] = np.int32(0)
        to_x, to_y = np.int64(low32(in_x)), np.int64(low32(in_y))
        overflow[0] += np.int64(to_x != in_x) + np.int64(to_y != in_y)
        new_x = toward_zero(c * x, b) - toward_zero(q * y, b) + to_x
        new_y = toward_zero(q * x, b) + toward_zero(c * y, b) + to_y
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


def _registers(p: Population, formats: Formats) -> Rows:
    exponent = wide(p, "state_exp")
    threshold = wide(p, "vth") << exponent
    return [wide(p, "cos_decay"), wide(p, "sin_decay"), threshold, exponent, wide(p, "decay_bits")]


register_layout("rf", Layout((step_resonators,), _registers, options=lambda p: (0,)))
register_layout("rf_iz", Layout((step_resonators,), _registers, options=lambda p: (1,)))
