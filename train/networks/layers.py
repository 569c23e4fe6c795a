"""Layers of LIF, CubaLIF and LI neurons as modules that run all steps of a sequence in one pass.

The equations of one step are those of `neurons/lif.py`, computed by `kernels/sequence.py`. A recurrent layer
adds W z(t - 1) to its input: its own spikes of the step before. Sequences are (batch, steps, neurons), or
(batch, steps, channels, height, width); all states start at 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels.fused import run_integrators
from snn_compile.train.kernels.sequence import Step, advance, rest
from snn_compile.train.networks.convolution import as_sequence, as_shape
from snn_compile.train.neurons.lif import Firing, li_step


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

    @classmethod
    def of(cls, value: Tensor) -> Decay:
        """Return fixed factors, one or (size,)."""
        made = cls(0.5)
        made.value = value.detach().clone()
        return made

    def forward(self) -> Tensor:
        """Return the factor, a scalar or (size,)."""
        return torch.sigmoid(self.logit) if self.learn else self.get_buffer("value")


class _Layer(nn.Module):
    """What the modules share: their size and shape, and recurrent weights if there are any."""

    def __init__(self, size: int | tuple[int, ...], recurrent: bool = False) -> None:
        super().__init__()
        self.shape = (size,) if isinstance(size, int) else tuple(size)
        self.size = math.prod(self.shape)
        if recurrent and len(self.shape) > 1:
            raise SnnCompileError(
                f"a recurrent layer of shape {self.shape}; only a flat one can be recurrent"
            )
        self.recurrent = nn.Linear(self.size, self.size, bias=False) if recurrent else None

    def _checked(self, x: Tensor) -> Tensor:
        """Return the input as a sequence of neurons in the order that memory has them."""
        if tuple(x.shape[2:]) != self.shape:
            raise SnnCompileError(
                f"{type(self).__name__} of {self.size} neurons got an input of shape "
                f"{tuple(x.shape)}; it must be (batch, steps, {', '.join(map(str, self.shape))})"
            )
        return as_sequence(x)

    def ordered(self, parameter: Tensor) -> Tensor:
        """Return values by neuron, or one for all, in the order that memory has neurons."""
        if parameter.ndim == 0 or len(self.shape) == 1:
            return parameter
        return parameter.view(self.shape).movedim(0, -1).flatten()

    def extra_repr(self) -> str:
        """Return the layer's shape, for the module's printed form."""
        return "x".join(map(str, self.shape))


class Spiking(_Layer):
    """A layer that spikes; `decays` are its factors (alpha, beta) of current and membrane."""

    firing: Firing
    gain = 1.0

    def decays(self) -> tuple[Tensor, Tensor]:
        """Return the factors of current and membrane, scalars or (size,)."""
        raise NotImplementedError

    def step(self) -> Step:
        """Return how the layer steps."""
        firing = self.firing
        return Step(
            True,
            firing.threshold,
            self.gain,
            firing.reset == "subtract",
            firing.detach_reset,
            firing.surrogate,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes of all steps."""
        alpha, beta = self.decays()
        back = None if self.recurrent is None else self.recurrent.weight
        decays = self.ordered(alpha), self.ordered(beta)
        z = run_steps(self._checked(x), decays, x.shape[1], self.step(), back)
        return as_shape(z, self.shape)


def run_steps(
    x: Tensor, decays: tuple[Tensor, Tensor], steps: int, step: Step, back: Tensor | None = None
) -> Tensor:
    """Return the output of neurons in `steps` steps, (batch, steps, neurons), with recurrent weights `back`.

    `x` is the input, (batch, steps, neurons), or one step of it that is repeated.
    """
    states = rest(x.shape[0], x.shape[2], step, x)
    if back is None:
        return advance(x, states, decays, steps, step)[0]
    if step.registers is None:
        incoming = x.expand(-1, steps, -1).transpose(0, 1)
        return run_integrators(incoming, back, *decays, step)[0].transpose(0, 1)
    z, out = None, []
    for t in range(steps):
        now = x[:, 0 if x.shape[1] == 1 else t]
        incoming = now if z is None else now + nn.functional.linear(z, back)
        sent, states = advance(incoming[:, None], states, decays, 1, step)
        z = sent[:, 0]
        out.append(z)
    return torch.stack(out, dim=1)


class LIF(Spiking):
    """A layer of leaky integrate-and-fire neurons: (batch, steps, *shape) in, spikes out.

    `size` is the number of neurons or their shape (channels, height, width). `recurrent` adds weights
    from the layer to itself; `per_neuron` gives every neuron its own decay; `learn_decay` trains it.
    Raises SnnCompileError for values out of range.
    """

    def __init__(
        self,
        size: int | tuple[int, ...],
        *,
        beta: float = 0.9,
        gain: float = 1.0,
        firing: Firing | None = None,
        recurrent: bool = False,
        learn_decay: bool = False,
        per_neuron: bool = False,
    ) -> None:
        super().__init__(size, recurrent)
        self.beta = Decay(beta, size=self.size if per_neuron else None, learn=learn_decay)
        self.gain = gain
        self.firing = firing or Firing()

    def decays(self) -> tuple[Tensor, Tensor]:
        """Return 0, for there is no synaptic current, and the membrane's factor."""
        beta = self.beta()
        return torch.zeros_like(beta.detach()), beta


class CubaLIF(Spiking):
    """A layer of current-based LIF neurons: (batch, steps, *shape) in, spikes of that shape out.

    `alpha` is the decay of the synaptic current, `beta` that of the membrane; the rest is as in
    LIF.
    """

    def __init__(
        self,
        size: int | tuple[int, ...],
        *,
        alpha: float = 0.5,
        beta: float = 0.9,
        firing: Firing | None = None,
        recurrent: bool = False,
        learn_decay: bool = False,
        per_neuron: bool = False,
    ) -> None:
        super().__init__(size, recurrent)
        count = self.size if per_neuron else None
        self.alpha = Decay(alpha, size=count, learn=learn_decay)
        self.beta = Decay(beta, size=count, learn=learn_decay)
        self.firing = firing or Firing()

    def decays(self) -> tuple[Tensor, Tensor]:
        """Return the factors of current and membrane."""
        return self.alpha(), self.beta()


class LI(_Layer):
    """A layer of leaky integrators, a read-out: (batch, steps, size) in, membranes out."""

    def __init__(
        self, size: int, *, decay: float = 0.9, learn_decay: bool = False, per_neuron: bool = False
    ) -> None:
        super().__init__(size)
        self.decay = Decay(decay, size=self.size if per_neuron else None, learn=learn_decay)

    def forward(self, x: Tensor) -> Tensor:
        """Return the membranes of all steps."""
        decay, steps = self.decay(), x.shape[1]
        x = self._checked(x).expand(-1, steps, -1)
        v, out = x.new_zeros(x.shape[0], self.size), []
        for now in x.unbind(1):
            y, v = li_step(now, v, decay)
            out.append(y)
        return torch.stack(out, dim=1)
