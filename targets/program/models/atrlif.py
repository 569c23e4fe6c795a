"""Neurons with adaptive threshold and refractoriness, `atrlif` (Lava's ATRLIF).

delta_v, delta_theta, delta_r: share lost per step, in 1/4096; of the current (delta_i + 1)/4096 are.
theta_0, theta_step: base and rise of the threshold, in membrane units: 64 times Lava's. bias_mant,
bias_exp, v_init: as of `lif`.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import Model, Register, register_model

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
    ),
)
