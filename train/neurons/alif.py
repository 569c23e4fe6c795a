"""Adaptive leaky integrate-and-fire neurons as a pure step function.

With alpha and rho the decays of membrane and adaptation (Yin et al. 2021, Higuchi et al. 2024):

    a <- rho a + (1 - rho) z(t - 1)
    theta = 0.01 + 1.8 a
    u <- alpha u + (1 - alpha) x
    z = 1 if u > theta else 0
    u <- u - theta z                    reset "theta", or u - 2 theta z: reset "2theta"

The second reset is that of Lava's ATRLIF, which can then express the neuron exactly. All states start at 0,
and gradients flow through all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.neurons.surrogate import Derivative, check_surrogate, spike

RESETS = {"theta": 1.0, "2theta": 2.0}

AdaptiveState = tuple[Tensor, Tensor, Tensor]
"""u, a and the last spikes; all (batch, neurons)."""


@dataclass(frozen=True)
class Adaptation:
    """The constants of the threshold, the reset, and the surrogate of the spikes."""

    reset: str = "theta"
    base: float = 0.01
    scale: float = 1.8
    surrogate: str | Derivative = "double-gaussian"

    def __post_init__(self) -> None:
        """Raise SnnCompileError for an unknown reset or surrogate."""
        if self.reset not in RESETS:
            raise SnnCompileError(f"reset is {self.reset!r}; use one of {', '.join(RESETS)}")
        check_surrogate(self.surrogate)


def adaptive_step(
    x: Tensor, state: AdaptiveState, alpha: Tensor, rho: Tensor, kind: Adaptation
) -> tuple[Tensor, AdaptiveState]:
    """Return (spikes, state) after one step; alpha and rho are scalars or (neurons,)."""
    u, a, z = state
    a = rho * a + (1 - rho) * z
    theta = kind.base + kind.scale * a
    u = alpha * u + (1 - alpha) * x
    z = spike(u - theta, kind.surrogate)
    return z, (u - RESETS[kind.reset] * theta * z, a, z)
