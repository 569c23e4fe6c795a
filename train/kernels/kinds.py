"""Kinds of neurons as the compiled kernels take them: a family, its constants, a surrogate's code."""

from __future__ import annotations

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels import families as family_kernels
from snn_compile.train.kernels.sequence import Step
from snn_compile.train.neurons.alif import RESETS, Adaptation
from snn_compile.train.neurons.rf_brf import THRESHOLD, Resonance
from snn_compile.train.neurons.surrogate import SURROGATES, Derivative, double_bells, multi_bells

Kind = Resonance | Adaptation | Step

STATES = {Resonance: 3, Adaptation: 2, Step: 2}
"""Number of states of each kind, besides its last spikes."""

_CODES = {
    "arctan": family_kernels.ARCTAN,
    "linear": family_kernels.LINEAR,
    "exponential": family_kernels.EXPONENTIAL,
    "double-gaussian": family_kernels.BELLS,
    "multi-gaussian": family_kernels.BELLS,
    "multi-gaussian-0.3": family_kernels.BELLS,
}
_BELLS = {
    "double-gaussian": double_bells(),
    "multi-gaussian": multi_bells(),
    "multi-gaussian-0.3": multi_bells(0.3),
}


def family_of(kind: Kind) -> tuple[int, tuple[float, ...]]:
    """Return the family of a kind and its constants, in the order of `families.py`."""
    if isinstance(kind, Resonance):
        constants = kind.delta, kind.gamma, THRESHOLD, kind.smooth_reset, kind.refractory
        return family_kernels.RESONATORS, constants
    if isinstance(kind, Adaptation):
        return family_kernels.ADAPTIVE, (kind.base, kind.scale, RESETS[kind.reset], 0.0, 0.0)
    return family_kernels.INTEGRATORS, (kind.gain, kind.threshold, kind.subtract, not kind.detached, 0.0)


def surrogate_of(surrogate: str | Derivative) -> tuple[int, tuple[tuple[float, float, float], ...]]:
    """Return a surrogate's code in `families.py` and its bells; a function has the code -1."""
    if not isinstance(surrogate, str):
        return -1, ()
    if surrogate not in SURROGATES:
        raise SnnCompileError(f"no surrogate {surrogate!r}; use one of {', '.join(SURROGATES)}")
    return _CODES[surrogate], _BELLS.get(surrogate, ())
