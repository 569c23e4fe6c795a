"""The compiled steps of `lsn`, `lsn_membrane` and `lsn_adaptation`; `oracle/lsn.py` defines them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.loihi2_sim.arithmetic import low32, toward_zero
from snn_compile.targets.loihi2_sim.kernels import (
    DECAY_BITS,
    STATE_MAX,
    SYNAPTIC_SHIFT,
    Layout,
    Rows,
    register_layout,
    wide,
)
from snn_compile.targets.program.models.lsn import adaptation_bits
from snn_compile.targets.program.population import Population


@njit(nogil=True, inline="always")
def _place(gate: Any, shift: Any, size: Any) -> Any:
    """Return where a gate's input lies in a table of `size` rates."""
    return min(max((gate >> shift) + (size >> 1), 0), size - 1)


@njit(nogil=True)
def step_liquid(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance liquid neurons; `options`: size and shift of the table, whether membranes are sent, by which
    shift."""
    top, bits = np.int64(formats[STATE_MAX]), np.int64(formats[DECAY_BITS])
    one, up = np.int64(1) << bits, np.int64(formats[SYNAPTIC_SHIFT])
    size, shift, sends, sent_shift = options[0], options[1], options[2] != 0, options[3]
    v, b, s = state[:n], state[w:][:n], state[2 * w :][:n]
    base, rise, bias = registers[:n], registers[w:][:n], registers[2 * w :][:n]
    membrane_bias, adaptation_bias = registers[3 * w :][:n], registers[4 * w :][:n]
    fraction = np.int64(registers[5 * w])
    rates = registers[6 * w :]
    k = 0
    for i in range(n):
        total = (np.int64(acc[i]) << up) + np.int64(bias[i])
        gate_m = np.int64(acc[w + i]) + np.int64(membrane_bias[i])
        gate_rho = np.int64(acc[2 * w + i]) + np.int64(adaptation_bias[i])
        acc[i] = acc[w + i] = acc[2 * w + i] = np.int32(0)
        x = np.int64(low32(total))
        overflow[0] += x != total
        m = np.int64(rates[_place(gate_m, shift, size)])
        rho = np.int64(rates[_place(gate_rho, shift, size)])
        held = np.int64(b[i])
        held += toward_zero(((np.int64(s[i]) << fraction) - held) * (one - rho), bits)
        reached = np.int64(v[i]) + toward_zero((x - np.int64(v[i])) * m, bits)
        overflow[1] += reached > top
        overflow[2] += reached < -top
        reached = min(max(reached, -top), top)
        fires = reached > np.int64(base[i]) + ((np.int64(rise[i]) * held) >> fraction)
        b[i] = np.int32(held)
        v[i] = np.int32(0) if fires else np.int32(reached)
        s[i] = np.int32(fires)
        who[k] = i
        if sends:
            message = np.int32(v[i] >> sent_shift)
            values[k] = message
            k += message != 0
        else:
            k += int(fires)
    return k


@njit(nogil=True)
def step_liquid_adaptation(
    n: int, w: int, acc: Any, state: Any, registers: Any, options: Any, formats: Any, scratch: Any,
    who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance adaptations; `options` as of the neurons."""
    bits = np.int64(formats[DECAY_BITS])
    one, size, shift, sent_shift = np.int64(1) << bits, options[0], options[1], options[3]
    b, bias, fraction, rates = state[:n], registers[:n], np.int64(registers[w]), registers[2 * w :]
    k = 0
    for i in range(n):
        spike = np.int64(acc[i] != 0)
        gate = np.int64(acc[w + i]) + np.int64(bias[i])
        acc[i] = acc[w + i] = np.int32(0)
        rho = np.int64(rates[_place(gate, shift, size)])
        held = np.int64(b[i])
        held += toward_zero(((spike << fraction) - held) * (one - rho), bits)
        b[i] = np.int32(held)
        message = np.int32(held >> sent_shift)
        who[k] = i
        values[k] = message
        k += message != 0
    return k


def _registers(p: Population, formats: Formats) -> Rows:
    keys = ("theta_0", "theta_step", "bias", "membrane_bias", "adaptation_bias")
    held = [key for key in keys if key in p.parameters]
    return [*(wide(p, key) for key in held), np.array([adaptation_bits(formats)], np.int64)]


def _options(p: Population) -> tuple[int, ...]:
    sends = "message_shift" in p.parameters
    sent_shift = int(p.parameters["message_shift"][0]) if sends else 0
    return p.parameters["rates"].size, int(p.parameters["rate_shift"][0]), int(sends), sent_shift


for _model, _step in (
    ("lsn", step_liquid),
    ("lsn_membrane", step_liquid),
    ("lsn_adaptation", step_liquid_adaptation),
):
    register_layout(_model, Layout((_step,), _registers, options=_options, table="rates"))
