"""The compiled step of `graded` and `graded_relu`; `oracle/relay.py` defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.loihi2_sim.arithmetic import magnitude
from snn_compile.targets.loihi2_sim.kernels import STATE_MAX, Layout, Rows, register_layout, wide
from snn_compile.targets.program.population import Population


@njit(nogil=True)
def step_relays(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Send the input on where it is larger than the threshold."""
    top = np.int32(formats[STATE_MAX])
    rectified = options[0] != 0
    threshold = registers[:n]
    k = 0
    for i in range(n):
        a = np.int32(acc[i])
        acc[i] = np.int32(0)
        overflow[1] += a > top
        overflow[2] += a < -top
        measured = a if rectified else magnitude(a)
        who[k] = i
        values[k] = a
        k += measured > threshold[i] and a != 0
    return k


def _registers(p: Population, formats: Formats) -> Rows:
    return [wide(p, "vth")]


register_layout("graded", Layout((step_relays,), _registers, options=lambda p: (0,)))
register_layout("graded_relu", Layout((step_relays,), _registers, options=lambda p: (1,)))
