"""Leaky neurons `lif`, leaky integrators `li` and ternary neurons `ternary` (Lava's LIF and TernaryLIF).

du: current decay, (du + 1)/4096 of u is lost per step. dv: voltage decay, dv/4096; 4096 forgets v at every
step. vth, vth_hi, vth_lo: thresholds in units of 64. bias_mant, bias_exp: bias = mant * 2**exp in membrane
units. v_init: membrane at start_step. v_min: v is clipped from below to it, after the reset.

`li` never spikes; to the projections that read it, it sends its membrane, v >> message_shift (flooring), at
every step from start_step on. A message of 0 is none. `ternary` sends 1 above vth_hi, -1 below vth_lo, and
its membrane is then set to 0.
"""

from __future__ import annotations

from snn_compile.targets.integer import M
from snn_compile.targets.program.models.model import (
    Model,
    Operations,
    Parameters,
    Register,
    decaying,
    register_model,
    share_of,
)

_LEAKS = {"du": Register(), "dv": Register()}
_BIAS = {"bias_mant": Register(0), "bias_exp": Register(0)}
_THRESHOLD = Register(shared=True)


def _integrator_operations(p: Parameters, one: int) -> Operations:
    current = share_of(p["du"] + 1 < one)
    return current + decaying(p, "dv", one), current + 1 + share_of(p["bias_mant"] != 0)


def _operations(p: Parameters, one: int) -> Operations:
    products, additions = _integrator_operations(p, one)
    return products, additions + 1


register_model(
    "lif",
    Model(
        {**_LEAKS, "vth": Register(), **_BIAS, "v_init": Register(0), "v_min": Register(-(M - 1))},
        ("u", "v"),
        _operations,
        ruled=True,
        programmable=False,
    ),
)
register_model(
    "li",
    Model(
        {**_LEAKS, **_BIAS, "v_init": Register(0), "message_shift": Register(0)},
        ("u", "v"),
        _integrator_operations,
        largest=M - 1,
        graded=True,
        spiking=False,
        ruled=True,
        programmable=False,
    ),
)
register_model(
    "ternary",
    Model(
        {**_LEAKS, "vth_hi": _THRESHOLD, "vth_lo": _THRESHOLD, **_BIAS, "v_init": Register(0)},
        ("u", "v"),
        _operations,
        graded=True,
        programmable=False,
    ),
)
