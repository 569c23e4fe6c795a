"""Resonate-and-fire neurons `rf` and `rf_iz` (Lava's RF and RF_IZ), with inputs real and imaginary.

cos_decay, sin_decay: how a step rotates and shrinks the state, in 2**-decay_bits. Inputs and vth are shifted
left by state_exp.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import Model, Operations, Parameters, Register, register_model


def _operations(p: Parameters, one: int) -> Operations:
    return 4.0, 5.0  # two sums of two products and an input, and the comparison


for _name in ("rf", "rf_iz"):
    register_model(
        _name,
        Model(
            {
                "cos_decay": Register(),
                "sin_decay": Register(),
                "vth": Register(shared=True),
                "decay_bits": Register(12, shared=True),
                "state_exp": Register(6, shared=True),
            },
            ("real", "imag"),
            _operations,
            membrane="real",
            ports=("a_real_in", "a_imag_in"),
        ),
    )
