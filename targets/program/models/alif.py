"""Adaptive leaky neurons, `alif`: a custom model, every register per neuron.

delta_v, delta_theta: share lost per step, in 1/4096. theta_0, theta_step: base and rise of the threshold, in
membrane units. reset_exp: a spike takes 2**reset_exp thresholds off v.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import Model, Register, register_model

register_model(
    "alif",
    Model(
        {
            "delta_v": Register(),
            "delta_theta": Register(),
            "theta_0": Register(),
            "theta_step": Register(0),
            "reset_exp": Register(0),
        },
        ("v", "theta"),
    ),
)
