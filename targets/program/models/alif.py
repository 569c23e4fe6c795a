"""Adaptive leaky neurons, `alif`: a custom model, every register per neuron.

delta_v, delta_theta: share lost per step, in 1/4096. theta_0, theta_step: base and rise of the threshold, in
membrane units. reset_exp: a spike takes 2**reset_exp thresholds off v.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import (
    Model,
    Operations,
    Parameters,
    Register,
    decaying,
    register_model,
)


def _operations(p: Parameters, one: int) -> Operations:
    theta = decaying(p, "delta_theta", one)
    return decaying(p, "delta_v", one) + theta, 2 + 2 * theta


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
        _operations,
        spike_additions=2,
    ),
)
