"""Neurons that send changes or sums: `sigma_delta`, `delta`, `sigma` (Lava's SigmaDelta, Delta, Sigma).

vth and bias are shifted left by spike_exp + state_exp, messages right by state_exp. relu: the activation is
cut at 0. cum_error: the threshold is on the summed error.
"""

from __future__ import annotations

from snn_compile.targets.program.models.model import (
    Model,
    Operations,
    Parameters,
    Register,
    register_model,
    share_of,
)

_LARGEST = 1 << 31
_ZERO = Register(0, shared=True)
_DELTA = {"vth": Register(shared=True), "spike_exp": _ZERO, "state_exp": _ZERO, "cum_error": _ZERO}


def _delta_operations(p: Parameters, one: int) -> Operations:
    # The difference to the last activation, with the residue; the comparison; the new residue; the error.
    return 0.0, 4.0 + float(p["cum_error"][0])


def _sigma_delta_operations(p: Parameters, one: int) -> Operations:
    products, additions = _delta_operations(p, one)
    return products, additions + 1 + share_of(p["bias"] != 0) + float(p["relu"][0])


def _sigma_operations(p: Parameters, one: int) -> Operations:
    return 0.0, 1.0


register_model(
    "sigma_delta",
    Model(
        {**_DELTA, "bias": Register(0), "relu": Register(1, shared=True)},
        ("sigma", "act", "residue", "error"),
        _sigma_delta_operations,
        membrane="act",
        largest=_LARGEST,
        graded=True,
    ),
)
register_model(
    "delta",
    Model(
        _DELTA, ("act", "residue", "error"), _delta_operations, membrane="act", largest=_LARGEST, graded=True
    ),
)
register_model(
    "sigma", Model({}, ("sigma",), _sigma_operations, membrane="sigma", largest=_LARGEST, graded=True)
)
