"""Graded relays, `graded` and `graded_relu` (Lava's GradedVec and GradedReluVec).

They send their input where it is larger than vth: its magnitude, or for `graded_relu` the number itself.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import Model, Operations, Parameters, Register, register_model


def _operations(p: Parameters, one: int) -> Operations:
    return 0.0, 1.0


for _name in ("graded", "graded_relu"):
    register_model(
        _name,
        Model(
            {"vth": Register(0, shared=True)},
            ("v",),
            _operations,
            membrane="",
            largest=(1 << 31) - 1,
            graded=True,
        ),
    )
