"""Leaky integrate-and-fire neurons and leaky integrators as pure step functions.

Of one step, with input x, decays alpha and beta in (0, 1), threshold th, spike z = 1 if v > th else 0:

    LIF       v <- beta v + gain x                     then z, then the reset
    CubaLIF   i <- alpha i + x,  v <- beta v + i       then z, then the reset
    LI        v <- a v + (1 - a) x                     the output is v

    reset     value: v <- v (1 - z)        subtract: v <- v - th z        in the step of the spike

These are the equations of NIR's LIF, CubaLIF and LI under a forward Euler step of length dt with
tau = dt / (1 - decay), so an exported graph computes the same numbers. All states start at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.neurons.surrogate import Derivative, check_surrogate, spike

RESETS = ("value", "subtract")


@dataclass(frozen=True, eq=False)
class Firing:
    """When and how a neuron fires; `detach_reset` keeps gradients out of the reset."""

    threshold: float = 1.0
    reset: str = "value"
    surrogate: str | Derivative = "arctan"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        """Raise SnnCompileError for values out of range."""
        if self.reset not in RESETS:
            raise SnnCompileError(f"reset is {self.reset!r}; use one of {', '.join(RESETS)}")
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise SnnCompileError(f"threshold is {self.threshold}; it must be a positive number")
        check_surrogate(self.surrogate)


@dataclass(frozen=True, eq=False)
class LIFParameters:
    """Parameters of one LIF step; tensors are scalars or (neurons,)."""

    beta: Tensor
    gain: float = 1.0
    firing: Firing = Firing()


@dataclass(frozen=True, eq=False)
class CubaLIFParameters:
    """Parameters of one CubaLIF step; tensors are scalars or (neurons,)."""

    alpha: Tensor
    beta: Tensor
    firing: Firing = Firing()


def fire(v: Tensor, firing: Firing) -> tuple[Tensor, Tensor]:
    """Return the spikes of membranes `v` and the membranes after the reset."""
    z = spike(v - firing.threshold, firing.surrogate)
    lost = z.detach() if firing.detach_reset else z
    return z, v * (1 - lost) if firing.reset == "value" else v - firing.threshold * lost


def lif_step(x: Tensor, v: Tensor, parameters: LIFParameters) -> tuple[Tensor, Tensor]:
    """Return (spikes, membrane) after one step of LIF; all (batch, neurons)."""
    return fire(parameters.beta * v + parameters.gain * x, parameters.firing)


def cuba_lif_step(
    x: Tensor, state: tuple[Tensor, Tensor], parameters: CubaLIFParameters
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return (spikes, (current, membrane)) after one step of CubaLIF; all (batch, neurons)."""
    i, v = state
    i = parameters.alpha * i + x
    z, v = fire(parameters.beta * v + i, parameters.firing)
    return z, (i, v)


def li_step(x: Tensor, v: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Return (membrane, membrane) after one step of LI; all (batch, neurons)."""
    v = decay * v + (1 - decay) * x
    return v, v
