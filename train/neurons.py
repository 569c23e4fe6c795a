"""Neurons as pure step functions, and thin modules that run them over time.

Of one step, with input x, decays alpha and beta in (0, 1), threshold th, spike z = 1 if v > th
else 0:

    LIF       v <- beta v + gain x                     then z, then the reset
    CubaLIF   i <- alpha i + x,  v <- beta v + i       then z, then the reset
    LI        v <- a v + (1 - a) x                     the output is v

    reset     value: v <- v (1 - z)        subtract: v <- v - th z        in the step of the spike

A recurrent layer adds W z(t - 1) to x: its own spikes, one step old. These are the NIR equations
under a forward Euler step with tau = dt / (1 - decay), so an exported graph computes the same
numbers. Sequences are (batch, steps, neurons); all states start at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.surrogate import SURROGATES, Derivative, spike

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
        if isinstance(self.surrogate, str) and self.surrogate not in SURROGATES:
            raise SnnCompileError(f"no surrogate {self.surrogate!r}; use one of {', '.join(SURROGATES)}")


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


class Decay(nn.Module):
    """A factor in (0, 1) per layer (`size` None) or per neuron, learned by its logit or fixed."""

    def __init__(self, value: float, *, size: int | None = None, learn: bool = False) -> None:
        super().__init__()
        if not 0 < value < 1:
            raise SnnCompileError(f"decay is {value}; it must lie between 0 and 1")
        shape = () if size is None else (size,)
        self.learn = learn
        if learn:
            self.logit = nn.Parameter(torch.full(shape, math.log(value / (1 - value))))
        else:
            self.register_buffer("value", torch.full(shape, value))

    def forward(self) -> Tensor:
        """Return the factor, a scalar or (size,)."""
        return torch.sigmoid(self.logit) if self.learn else self.get_buffer("value")


class _Layer(nn.Module):
    """What the modules share: their size, and recurrent weights if there are any."""

    def __init__(self, size: int, recurrent: bool = False) -> None:
        super().__init__()
        self.size = size
        self.recurrent = nn.Linear(size, size, bias=False) if recurrent else None

    def _steps(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.ndim != 3 or x.shape[2] != self.size:
            raise SnnCompileError(
                f"{type(self).__name__} of {self.size} neurons got an input of shape "
                f"{tuple(x.shape)}; it must be (batch, steps, {self.size})"
            )
        return x.unbind(1)

    def _with_recurrence(self, x: Tensor, spikes: Tensor | None) -> Tensor:
        return x if self.recurrent is None or spikes is None else x + self.recurrent(spikes)

    def extra_repr(self) -> str:
        """Return what the printed module shows."""
        return f"{self.size}"


class LIF(_Layer):
    """A layer of leaky integrate-and-fire neurons: (batch, steps, size) in, spikes out.

    `recurrent` adds weights from the layer to itself; `per_neuron` gives every neuron its own
    decay; `learn_decay` trains it. Raises SnnCompileError for values out of range.
    """

    def __init__(
        self,
        size: int,
        *,
        beta: float = 0.9,
        gain: float = 1.0,
        firing: Firing | None = None,
        recurrent: bool = False,
        learn_decay: bool = False,
        per_neuron: bool = False,
    ) -> None:
        super().__init__(size, recurrent)
        self.beta = Decay(beta, size=size if per_neuron else None, learn=learn_decay)
        self.gain = gain
        self.firing = firing or Firing()

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes of all steps."""
        parameters = LIFParameters(self.beta(), self.gain, self.firing)
        v, z, out = x.new_zeros(x.shape[0], self.size), None, []
        for now in self._steps(x):
            z, v = lif_step(self._with_recurrence(now, z), v, parameters)
            out.append(z)
        return torch.stack(out, dim=1)


class CubaLIF(_Layer):
    """A layer of current-based LIF neurons: (batch, steps, size) in, spikes of that shape out.

    `alpha` is the decay of the synaptic current, `beta` that of the membrane; the rest is as in
    LIF.
    """

    def __init__(
        self,
        size: int,
        *,
        alpha: float = 0.5,
        beta: float = 0.9,
        firing: Firing | None = None,
        recurrent: bool = False,
        learn_decay: bool = False,
        per_neuron: bool = False,
    ) -> None:
        super().__init__(size, recurrent)
        count = size if per_neuron else None
        self.alpha = Decay(alpha, size=count, learn=learn_decay)
        self.beta = Decay(beta, size=count, learn=learn_decay)
        self.firing = firing or Firing()

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes of all steps."""
        parameters = CubaLIFParameters(self.alpha(), self.beta(), self.firing)
        rest = x.new_zeros(x.shape[0], self.size)
        state, z, out = (rest, rest), None, []
        for now in self._steps(x):
            z, state = cuba_lif_step(self._with_recurrence(now, z), state, parameters)
            out.append(z)
        return torch.stack(out, dim=1)


class LI(_Layer):
    """A layer of leaky integrators, a read-out: (batch, steps, size) in, membranes out."""

    def __init__(
        self, size: int, *, decay: float = 0.9, learn_decay: bool = False, per_neuron: bool = False
    ) -> None:
        super().__init__(size)
        self.decay = Decay(decay, size=size if per_neuron else None, learn=learn_decay)

    def forward(self, x: Tensor) -> Tensor:
        """Return the membranes of all steps."""
        decay = self.decay()
        v, out = x.new_zeros(x.shape[0], self.size), []
        for now in self._steps(x):
            y, v = li_step(now, v, decay)
            out.append(y)
        return torch.stack(out, dim=1)
