"""Balanced resonators, `brf`: a custom model, every register per neuron.

cos_decay, sin_decay: how a step rotates and shrinks the state, in 1/4096. vth: threshold in units of 64.
r_step: what a spike adds to r, in membrane units; delta_r: share of r lost per step, in 1/4096; refractory:
r raises the threshold. damping, damping_exp: r * damping * 2**-damping_exp is what the smooth reset takes
off the cosine, in 2**-DAMPING_BITS.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import (
    Model,
    Operations,
    Parameters,
    Register,
    decaying,
    register_model,
    share_of,
)

DAMPING_BITS, DAMPING_EXPONENT_MAX = 16, 31
"""Fraction bits of the share that the smooth reset takes off the cosine, and its largest right shift."""


def _operations(p: Parameters, one: int) -> Operations:
    # Four products of the rotation, and those of the damping: of r, and of both parts.
    damped, refractory = share_of(p["damping"] > 0), share_of(p["refractory"] != 0)
    # Two sums of products and an input, the damping of both parts, its limit, threshold and comparison.
    return 4 + 3 * damped + decaying(p, "delta_r", one), 3 + 3 * damped + refractory + 1


register_model(
    "brf",
    Model(
        {
            "cos_decay": Register(),
            "sin_decay": Register(),
            "vth": Register(),
            "r_step": Register(0),
            "delta_r": Register(0),
            "refractory": Register(1),
            "damping": Register(0),
            "damping_exp": Register(0),
        },
        ("real", "imag", "r"),
        _operations,
        spike_additions=1,
        membrane="real",
    ),
)
