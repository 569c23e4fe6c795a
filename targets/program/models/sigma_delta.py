"""Neurons that send changes or sums: `sigma_delta`, `delta`, `sigma` (Lava's SigmaDelta, Delta, Sigma).

vth and bias are shifted left by spike_exp + state_exp, messages right by state_exp. relu: the activation is
cut at 0. cum_error: the threshold is on the summed error.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import Model, Register, register_model

_LARGEST = 1 << 31
_ZERO = Register(0, shared=True)
_DELTA = {"vth": Register(shared=True), "spike_exp": _ZERO, "state_exp": _ZERO, "cum_error": _ZERO}

register_model(
    "sigma_delta",
    Model(
        {**_DELTA, "bias": Register(0), "relu": Register(1, shared=True)},
        ("sigma", "act", "residue", "error"),
        membrane="act",
        largest=_LARGEST,
        graded=True,
    ),
)
register_model(
    "delta", Model(_DELTA, ("act", "residue", "error"), membrane="act", largest=_LARGEST, graded=True)
)
register_model("sigma", Model({}, ("sigma",), membrane="sigma", largest=_LARGEST, graded=True))
