"""Resonate-and-fire neurons, balanced and plain, as pure step functions; the divergence boundary.

With delta the length of a step, omega the angular frequency, b' the damping (Higuchi et al. 2024, 2025):

    p(omega) = (-1 + sqrt(1 - (delta omega)^2)) / delta        the divergence boundary
    b <- p(omega) - b' - q                                     damping, with smooth reset
    u <- u + delta (b u - omega v + x)                         real part
    v <- v + delta (omega u + b v)                             imaginary part, from the old u
    z = 1 if u > 1 + q else 0                                  refractory period in the threshold
    q <- gamma q + z

x is the input, recurrent spikes of the step before included; q in the first four lines is that of the
step before. Three flags leave out p(omega), the q of b, and the q of the threshold; without any of them this
is the plain resonate-and-fire neuron (RF). Izhikevich's (2001) has another spike: z = 1 if v > 1, and then u
is 0 and v is 1. All states start at 0, and gradients flow through all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.configs.config import LARGEST, LEAST
from snn_compile.train.neurons.surrogate import Derivative, check_surrogate, spike

EDGE = 1 - 1e-6
"""The largest delta omega that is computed with: from 1 on no damping keeps a resonator from diverging."""

THRESHOLD = 1.0

ResonatorState = tuple[Tensor, Tensor, Tensor]
"""u, v, q; all (batch, neurons)."""


@dataclass(frozen=True)
class Resonance:
    """Which parts of the balanced neuron are there, its constants, and the surrogate of its spikes."""

    refractory: bool = True
    smooth_reset: bool = True
    boundary: bool = True
    delta: float = 0.01
    gamma: float = 0.9
    surrogate: str | Derivative = "double-gaussian"

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a step that is no length, and an unknown surrogate."""
        _check_step(self.delta)
        check_surrogate(self.surrogate)


@overload
def divergence_boundary(omega: Tensor, delta: float) -> Tensor: ...
@overload
def divergence_boundary(omega: npt.ArrayLike, delta: float) -> npt.NDArray[np.float64]: ...
def divergence_boundary(omega: Tensor | npt.ArrayLike, delta: float) -> Tensor | npt.NDArray[np.float64]:
    """Return p(omega), above which the damping b lets a resonator grow (Higuchi et al. 2025, eq. 8).

    `omega` is in radians per second, `delta` in seconds per step, the result of omega's shape in 1/s.
    There is no boundary from delta omega = 1 on: it is then taken at EDGE, never NaN; `clamped` counts those.
    Raises SnnCompileError for a delta that is no length.
    """
    _check_step(delta)
    if isinstance(omega, Tensor):
        angle = (delta * omega).clamp(-EDGE, EDGE)
        return (torch.sqrt(1 - angle**2) - 1) / delta
    share = np.clip(delta * np.asarray(omega, dtype=np.float64), -EDGE, EDGE)
    return np.asarray((np.sqrt(1 - share**2) - 1) / delta)


def _check_step(delta: float) -> None:
    if not LEAST <= delta <= LARGEST:
        raise SnnCompileError(
            f"delta is {delta}; a step's length must be a positive number of seconds, from {LEAST:g} to "
            f"{LARGEST:g}"
        )


def clamped(omega: Tensor, delta: float) -> int:
    """Return how many frequencies are too fast for the step, delta |omega| > EDGE."""
    return int((delta * omega.detach().abs() > EDGE).sum())


def damping(omega: Tensor, offset: Tensor, kind: Resonance) -> tuple[Tensor, Tensor]:
    """Return omega and b without its q, of parameters of any sign; with a boundary omega is clamped."""
    omega, offset = omega.abs(), offset.abs()
    if not kind.boundary:
        return omega, -offset
    omega = omega.clamp(max=EDGE / kind.delta)
    return omega, divergence_boundary(omega, kind.delta) - offset


def resonator_step(
    x: Tensor, state: ResonatorState, omega: Tensor, b: Tensor, kind: Resonance
) -> tuple[Tensor, ResonatorState]:
    """Return (spikes, state) after one step; omega and b are those of `damping`, (neurons,)."""
    u, v, q = state
    now = b - q if kind.smooth_reset else b
    u, v = u + kind.delta * (now * u - omega * v + x), v + kind.delta * (omega * u + now * v)
    over = u - THRESHOLD - q if kind.refractory else u - THRESHOLD
    z = spike(over, kind.surrogate)
    return z, (u, v, kind.gamma * q + z)


def izhikevich_step(
    x: Tensor, state: tuple[Tensor, Tensor], omega: Tensor, b: Tensor, kind: Resonance
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return (spikes, (u, v)) after one step of Izhikevich's neuron, whose spikes reset it to i."""
    u, v = state
    u, v = u + kind.delta * (b * u - omega * v + x), v + kind.delta * (omega * u + b * v)
    z = spike(v - THRESHOLD, kind.surrogate)
    return z, (u * (1 - z), v + z * (THRESHOLD - v))
