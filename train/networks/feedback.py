"""Feedback spiking networks: a row of layers, and weights from the last one back to the first.

Of one step, with currents F x + b of each layer and the threshold th (Xiao et al. 2021, sections 4.1 to 4.3):

    u1 <- decay u1 + W sN(t - 1) + F1 x + b1      ul <- decay ul + Fl s(l-1) + bl
    s = 1 if u >= th else 0                       u <- u - th s, in the step of the spike

IF neurons have decay 1. The rate of a neuron after T steps is the mean of its spikes, weighted by
decay^(T - t). With f1 and fl the clipped lines clamp((W a + F1 x + b1) / th, 0, 1), clamp((Fl a + bl) / th,
0, 1), rates of IF neurons approach the equilibrium a1 = f1(fN(... f2(a1)), x) as 1 / T, those of LIF neurons
up to a bounded error; it is the only one if the norms' product |W| |FN| ... |F2| is below th^N.

Batch normalisation follows every F and never W. Simulations use its running statistics; the one evaluation
of f that learns uses those of the batch (`learning`), and updates them. It makes the scale and mean of the
inputs irrelevant to training, so inputs are not normalised. Sequences are (batch, steps, *shape).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.networks.convolution import each_step
from snn_compile.train.networks.feedback_maps import Feedback, Forward, Restriction, restriction

Masks = Mapping[str, Tensor]
"""Variational dropout: factors of the currents, by connection, the same at every step."""


@dataclass(frozen=True)
class FeedbackLayer:
    """One layer of `size` neurons, or of `size` channels behind a square `kernel` (padded by half of it)."""

    size: int
    kernel: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        """Raise SnnCompileError for values out of range."""
        if self.size < 1 or self.kernel < 0 or self.stride < 1:
            raise SnnCompileError(
                f"a layer of size {self.size}, kernel {self.kernel}, stride {self.stride}: sizes and strides "
                "are at least 1, kernels at least 0"
            )


@dataclass(frozen=True)
class FeedbackConfig:
    """The shape of one step of input, the layers, the classes, and what all layers share.

    `feedback_kernel` is the width of the feedback convolution (transposed where strides lie between the first
    and the last layer); it is dense where either of them is. `scale_limit` bounds the norm of W.
    """

    input_shape: tuple[int, ...]
    layers: tuple[FeedbackLayer, ...]
    classes: int
    feedback_kernel: int = 3
    decay: float = 0.95
    threshold: float = 2.0
    scale_limit: float = 1.0
    batch_norm: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raise SnnCompileError for an impossible network."""
        if not self.layers or self.classes < 1:
            raise SnnCompileError("a feedback network needs at least one layer and one class")
        if not 0 < self.decay <= 1 or not self.threshold > 0 or not 0 <= self.dropout < 1:
            raise SnnCompileError(
                f"decay {self.decay}, threshold {self.threshold}, dropout {self.dropout}: a decay above 0 "
                "and at most 1, a positive threshold and a dropout from 0 to below 1 are possible"
            )

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> FeedbackConfig:
        """Return the configuration that `dataclasses.asdict` made plain."""
        layers = tuple(FeedbackLayer(**layer) for layer in plain["layers"])
        return cls(**{**plain, "input_shape": tuple(plain["input_shape"]), "layers": layers})


@dataclass(frozen=True, eq=False)
class Rates:
    """What a simulation found: weighted rates and plain means of the spikes, of each layer, (batch, *shape).

    `spikes` are (batch, steps, *shape) of each layer if they were recorded.
    """

    weighted: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] = ()


class FeedbackNetwork(nn.Module):
    """A feedback spiking network with a linear read-out of the last layer's rates."""

    def __init__(self, config: FeedbackConfig) -> None:
        super().__init__()
        self.config = config
        self.shapes: list[tuple[int, ...]] = []
        shape = config.input_shape
        forwards = []
        for layer in config.layers:
            module = Forward(shape, layer.size, layer.kernel, layer.stride, config.batch_norm)
            forwards.append(module)
            shape = module.target
            self.shapes.append(shape)
        self.forwards = nn.ModuleList(forwards)
        self.feedback = Feedback(shape, self.shapes[0], config.feedback_kernel, config.scale_limit)
        self.readout = nn.Linear(math.prod(shape), config.classes)
        with torch.no_grad():
            self.readout.weight.uniform_(-1, 1)
            self.readout.weight /= self.readout.weight.norm(dim=1, keepdim=True)
            self.readout.bias.zero_()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of the populations, as the exported graph has them."""
        count = len(self.shapes)
        return ("hidden",) if count == 1 else tuple(f"hidden{i}" for i in range(1, count + 1))

    def currents(self, inputs: Tensor) -> Tensor:
        """Return F1 x before its normalisation, (batch, steps, *shape); of one step if all are one."""
        if inputs.ndim < 3 or tuple(inputs.shape[2:]) != self.config.input_shape:
            raise SnnCompileError(
                f"the network takes (batch, steps, *{self.config.input_shape}), not {tuple(inputs.shape)}"
            )
        if inputs.shape[1] > 1 and inputs.stride(1) == 0:
            inputs = inputs[:, :1]
        return each_step(lambda x: _in_order(self.forwards[0](x)), inputs)

    def weigh(self, values: Tensor, steps: int) -> Tensor:
        """Return the mean of (batch, steps, *shape) over time, weighted as rates are."""
        if values.shape[1] == 1 or values.stride(1) == 0:
            return values[:, 0]
        factors = self.config.decay ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
        factors = (factors / factors.sum()).to(values.dtype)
        return torch.einsum("bt...,t->b...", values, factors)

    def simulate(
        self, currents: Tensor, steps: int, masks: Masks | None = None, record: bool = False
    ) -> Rates:
        """Step the network on currents that `currents` returned; nothing is kept for a gradient."""
        recorded: list[tuple[Tensor, ...]] = []
        for found in self.stepped(currents, steps, masks):
            sums, counts, spikes = found
            if record:
                recorded.append(spikes)
        total = sum(self.config.decay**t for t in range(steps))
        return Rates(
            tuple(each / total for each in sums),
            tuple(each / steps for each in counts),
            tuple(torch.stack(z, dim=1) for z in zip(*recorded, strict=True)),
        )

    @torch.no_grad()
    def stepped(
        self, currents: Tensor, steps: int, masks: Masks | None = None
    ) -> Iterator[tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]]:
        """Step the network; after each step give the weighted sums, the counts and the spikes by layer.

        Sums and counts go on in place: what a step gave is gone after the next.
        """
        config, masks = self.config, masks or {}
        factor, offset = self.forwards[0].normaliser()  # type: ignore[operator]
        incoming = currents * factor + offset
        if "input" in masks:
            incoming = incoming * masks["input"][:, None]
        weight = self.feedback.weight()
        folded = [layer.folded() for layer in self.forwards[1:]]  # type: ignore[operator]
        rest = [_in_order(currents.new_zeros(len(currents), *shape)) for shape in self.shapes]
        membranes, sums, counts, spikes = ([u.clone() for u in rest] for _ in range(4))
        for t in range(steps):
            now = incoming[:, 0 if incoming.shape[1] == 1 else t]
            if t:
                back = self.feedback.mapped(weight, spikes[-1])
                if "feedback" in masks:
                    back.mul_(masks["feedback"])
                now = back.add_(now)
            for number, u in enumerate(membranes):
                if number:
                    layer = self.forwards[number]
                    now = layer.mapped(spikes[number - 1], *folded[number - 1])  # type: ignore[operator]
                    if f"forward{number + 1}" in masks:
                        now.mul_(masks[f"forward{number + 1}"])
                if config.decay != 1:
                    u.mul_(config.decay)
                    sums[number].mul_(config.decay)
                u.add_(now)
                z = spikes[number] = (u >= config.threshold).to(u.dtype)
                u.sub_(z, alpha=config.threshold)
                sums[number].add_(z)
                counts[number].add_(z)
            yield tuple(sums), tuple(counts), tuple(spikes)

    def layer_image(self, at: int, a: Tensor, learning: bool = False, masks: Masks | None = None) -> Tensor:
        """Return the rates of layer `at` (from 1 on; 0 is the first) at those of the layer before it."""
        layer, name = self.forwards[at], f"forward{at + 1}"
        now = layer.normalised(layer(a), learning)  # type: ignore[operator]
        if masks and name in masks:
            now = now * masks[name]
        return functional.hardtanh(now / self.config.threshold, 0.0, 1.0)

    def outcomes(self, a: Tensor, learning: bool = False, masks: Masks | None = None) -> list[Tensor]:
        """Return the rates of the second to the last layer at rates `a` of the first."""
        found = []
        for at in range(1, len(self.shapes)):
            a = self.layer_image(at, a, learning, masks)
            found.append(a)
        return found

    def outcome(self, a: Tensor, learning: bool = False, masks: Masks | None = None) -> Tensor:
        """Return h(a) = fN(... f2(a)), the rates of the last layer at rates `a` of the first."""
        return [a, *self.outcomes(a, learning, masks)][-1]

    def image(
        self, last: Tensor, current: Tensor, learning: bool = False, masks: Masks | None = None
    ) -> Tensor:
        """Return f1 at rates `last` of the last layer and a mean current (batch, *shape) of `currents`."""
        incoming = self.forwards[0].normalised(current, learning)  # type: ignore[operator]
        back = self.feedback(last)
        if masks and "input" in masks:
            incoming, back = incoming * masks["input"], back * masks["feedback"]
        return functional.hardtanh((incoming + back) / self.config.threshold, 0.0, 1.0)

    def masks(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """Draw the factors of variational dropout, one set per sample; none without dropout."""
        keep = 1 - self.config.dropout
        if keep == 1:
            return {}
        names = {"input": 0, "feedback": 0}
        names |= {f"forward{number}": number - 1 for number in range(2, len(self.shapes) + 1)}
        return {name: _mask(batch, self.shapes[at], keep, like) for name, at in names.items()}

    def classify(self, last: Tensor) -> Tensor:
        """Return the read-out R a + c of rates of the last layer."""
        made: Tensor = self.readout(last.flatten(1))
        return made

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the read-out's membrane at each step (batch, steps, classes); the last is R a[T] + c."""
        steps = inputs.shape[1]
        spikes = self.simulate(self.currents(inputs), steps, record=True).spikes[-1]
        decay, out = self.config.decay, []
        v = inputs.new_zeros(len(inputs), self.config.classes)
        total = sum(decay**t for t in range(steps))
        for now in spikes.unbind(1):
            v = decay * v + self.classify(now) / total
            out.append(v)
        return torch.stack(out, dim=1)

    @torch.no_grad()
    def equilibrium(self, current: Tensor, iterations: int = 1000, tolerance: float = 1e-6) -> Tensor:
        """Return the first layer's rates a = f(a) for a mean current, found by iterating f from 0.

        Raises SnnCompileError if it has not settled to `tolerance` (relative): nothing says there is one.
        """
        a = torch.zeros_like(current)
        change = math.inf
        for _ in range(iterations):
            before, a = a, self.image(self.outcome(a), current)
            change = float((a - before).norm() / a.norm().clamp(min=1e-30))
            if change <= tolerance:
                return a
        raise SnnCompileError(
            f"no equilibrium: after {iterations} iterations rates still change by {change:.2g} of them; "
            f"{self.restriction().text()}"
        )

    def restriction(self) -> Restriction:
        """Return the norms of the weights on the cycle against the bound of a unique equilibrium."""
        return restriction(self.feedback, list(self.forwards[1:]), self.config.threshold)  # type: ignore[arg-type]

    @torch.no_grad()
    def restrict(self) -> None:
        """Clip the norm of the feedback to its limit, as after every step of the optimiser."""
        self.feedback.scale.clamp_(-self.config.scale_limit, self.config.scale_limit)


def _in_order(x: Tensor) -> Tensor:
    """Return images with channels last in memory, which transposed convolutions are fastest with."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _mask(batch: int, shape: tuple[int, ...], keep: float, like: Tensor) -> Tensor:
    """Return factors of dropout, drawn in the order that memory has them."""
    flat = like.new_empty(batch, *shape[1:], shape[0]).bernoulli_(keep).div_(keep)
    return flat.movedim(-1, 1)
