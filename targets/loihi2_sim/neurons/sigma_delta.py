"""The compiled steps of `sigma_delta`, `delta` and `sigma`; `oracle/sigma_delta.py` defines them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.loihi2_sim.arithmetic import beyond, magnitude
from snn_compile.targets.loihi2_sim.kernels import STATE_MAX, Layout, Rows, register_layout, wide
from snn_compile.targets.program.population import Population


@njit(nogil=True)
def step_deltas(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance sigma-delta neurons, or delta encoders (not `summed`: they have no sigma)."""
    top = np.int32(formats[STATE_MAX])
    summed = options[0] != 0
    sigma, at = state[:n], 1 if summed else 0
    act, residue, error = state[at * w :][:n], state[(at + 1) * w :][:n], state[(at + 2) * w :][:n]
    threshold, bias, relu = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    cumulative, input_shift, shift = registers[3 * w :][:n], registers[4 * w :][:n], registers[5 * w :][:n]
    k = 0
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        if summed:
            total = np.int32(sigma[i] + a)
            sigma[i] = total
            overflow[0] += beyond(total, top)
            total = np.int32(total + bias[i])
            total = np.int32(0) if relu[i] and total < 0 else total
        else:
            overflow[0] += beyond(np.int64(a) << np.int64(input_shift[i]), top)
            total = np.int32(a << input_shift[i])
        overflow[1] += total > top
        overflow[2] += total < -top
        d = np.int32(np.int32(total - act[i]) + residue[i])
        measured = np.int32(error[i] + d) if cumulative[i] else d
        sent = d if magnitude(measured) >= threshold[i] else np.int32(0)
        if cumulative[i]:
            error[i] = np.int32(0) if magnitude(sent) > 0 else measured
        residue[i] = np.int32(d - sent)
        act[i] = total
        message = np.int32(sent >> shift[i])
        who[k] = i
        values[k] = message
        k += message != 0
    return k


@njit(nogil=True)
def step_sigmas(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance sums of all input."""
    top = np.int32(formats[STATE_MAX])
    sigma = state[:n]
    k = 0
    for i in range(n):
        total = np.int32(sigma[i] + acc[i])
        acc[i] = np.int32(0)
        sigma[i] = total
        overflow[0] += beyond(total, top)
        who[k] = i
        values[k] = total
        k += total != 0
    return k


def _registers(p: Population, formats: Formats) -> Rows:
    shift = wide(p, "spike_exp") + wide(p, "state_exp")
    summed = p.model == "sigma_delta"
    bias, relu = (wide(p, key) if summed else np.zeros(1, np.int64) for key in ("bias", "relu"))
    return [wide(p, "vth") << shift, bias << shift, relu, wide(p, "cum_error"), shift, wide(p, "state_exp")]


register_layout("sigma_delta", Layout((step_deltas,), _registers, options=lambda p: (1,)))
register_layout("delta", Layout((step_deltas,), _registers, options=lambda p: (0,)))
register_layout("sigma", Layout((step_sigmas,), lambda p, formats: []))
