"""Neurons with adaptive threshold and refractoriness, `atrlif` (Lava's ATRLIF).

delta_v, delta_theta, delta_r: share lost per step, in 1/4096; of the current (delta_i + 1)/4096 are.
theta_0, theta_step: base and rise of the threshold, in membrane units: 64 times Lava's. bias_mant,
bias_exp, v_init: as of `lif`.
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


def _operations(p: Parameters, one: int) -> Operations:
    current, theta = share_of(p["delta_i"] + 1 < one), decaying(p, "delta_theta", one)
    products = current + decaying(p, "delta_v", one) + theta + decaying(p, "delta_r", one)
    # Input, i into v, the threshold around its base, v - r, the comparison.
    return products, current + 1 + share_of(p["bias_mant"] != 0) + 2 * theta + 2


register_model(
    "atrlif",
    Model(
        {
            "delta_i": Register(),
            "delta_v": Register(),
            "delta_theta": Register(),
            "delta_r": Register(),
            "theta_0": Register(),
            "theta_step": Register(shared=True),
            "bias_mant": Register(0),
            "bias_exp": Register(0),
            "v_init": Register(0),
        },
        ("i", "v", "theta", "r"),
        _operations,
        spike_additions=2,
    ),
)
