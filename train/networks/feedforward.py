"""Networks of layers in a row, built from a configuration and run over time.

Each layer is a projection, dense or a convolution, and a population of neurons. Within a step the layers
follow each other (logical delay 0); a recurrent layer sees its own spikes of the step before. The modules
carry the names that the exported graph shows: fc1 (conv1, after pool1), hidden, fc2, readout (hidden1,
hidden2, ... if there are several).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.networks.convolution import AvgPool2d, Conv2d, each_step
from snn_compile.train.networks.integer_formats import Format, IntegerConfig
from snn_compile.train.networks.integers import Stage, formats_of, run_integers
from snn_compile.train.networks.layers import LI, LIF, CubaLIF, Spiking
from snn_compile.train.neurons.lif import Firing

NEURONS = ("lif", "cuba_lif", "li")
READOUTS = ("mean", "last", "per_step")
TASKS = ("classify", "regress")


@dataclass(frozen=True)
class LayerConfig:
    """One projection and its population of `size` neurons of the kind `neuron`.

    With a `kernel` the projection is a square convolution of that width to `size` channels, of that `stride`
    and `padding`, and the population has the shape of its result. `pool` averages squares of that width
    before it.
    """

    size: int
    neuron: str = "lif"
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    pool: int = 1
    bias: bool = True
    recurrent: bool = False
    alpha: float = 0.5
    beta: float = 0.9
    learn_decay: bool = False
    per_neuron: bool = False
    threshold: float = 1.0
    reset: str = "value"
    surrogate: str = "arctan"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        """Raise SnnCompileError for values out of range."""
        if self.neuron not in NEURONS:
            raise SnnCompileError(f"neuron is {self.neuron!r}; use one of {', '.join(NEURONS)}")
        if self.size < 1:
            raise SnnCompileError(f"a layer has {self.size} neurons; it needs at least 1")
        if self.neuron == "li" and self.recurrent:
            raise SnnCompileError("an li layer sends no spikes and cannot be recurrent; use lif or cuba_lif")
        if self.kernel and (self.neuron == "li" or self.recurrent):
            raise SnnCompileError("a convolution reaches lif or cuba_lif neurons without recurrence")
        if min(self.kernel, self.padding) < 0 or min(self.stride, self.pool) < 1:
            raise SnnCompileError(
                f"kernel {self.kernel}, stride {self.stride}, padding {self.padding}, pool {self.pool}: the "
                "first and third must be at least 0, the others at least 1"
            )

    def shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes behind the pool and of the population, for an input of a shape."""
        if (self.kernel or self.pool > 1) and len(shape) != 3:
            raise SnnCompileError(
                f"a convolution or pool gets an input of shape {shape}; it must be (channels, height, width)"
            )
        if self.pool > 1:
            shape = (shape[0], shape[1] // self.pool, shape[2] // self.pool)
        made: tuple[int, ...] = (self.size,)
        if self.kernel:
            places = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in shape[1:])
            made = (self.size, *places)
        if min(*shape, *made) < 1:
            raise SnnCompileError(f"nothing is left of an input behind a kernel of {self.kernel}; got {made}")
        return shape, made


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of one step of input, and the layers from input to read-out.

    With `integers` the network computes in a chip's integers (see `integers.py`). `readout`: what is read of
    an `li` layer when it is deployed, the mean over time, the last step, or every step; `task`: a class
    (classify), or the membranes themselves (regress). The mean leaves out the first `skip` steps.
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerConfig, ...]
    integers: IntegerConfig | None = None
    readout: str = "mean"
    task: str = "classify"
    skip: int = 0

    def __post_init__(self) -> None:
        """Raise SnnCompileError for an impossible row of layers."""
        if not self.layers:
            raise SnnCompileError("a network needs at least one layer")
        if any(layer.neuron == "li" for layer in self.layers[:-1]):
            raise SnnCompileError("only the last layer may be li: it sends membranes, not spikes")
        check_read(self.readout, self.task, self.skip)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> NetworkConfig:
        """Return the configuration that `dataclasses.asdict` made plain."""
        layers = tuple(LayerConfig(**layer) for layer in plain["layers"])
        rest = {key: value for key, value in plain.items() if key not in ("input_shape", "layers")}
        if rest.get("integers"):
            rest["integers"] = IntegerConfig(**rest["integers"])
        return cls(tuple(plain["input_shape"]), layers, **rest)


@dataclass(frozen=True, eq=False)
class Run:
    """What a run gave: `outputs` (batch, steps, size), and `spikes` (batch, steps, *shape) by layer."""

    outputs: Tensor
    spikes: Mapping[str, Tensor]

    def spike_rates(self) -> dict[str, float]:
        """Return the spikes per neuron and step of each spiking layer."""
        return {name: float(spikes.detach().mean()) for name, spikes in self.spikes.items()}


class SpikingNetwork(nn.Module):
    """Projections and populations in a row: (batch, steps, *input_shape) to the last output."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        shape = config.input_shape
        for number, layer in enumerate(config.layers, start=1):
            pooled, made = layer.shapes(shape)
            if layer.pool > 1:
                modules[f"pool{number}"] = AvgPool2d(layer.pool)
            if layer.kernel:
                window = (layer.kernel, layer.stride, layer.padding)
                modules[f"conv{number}"] = Conv2d(pooled[0], layer.size, *window, bias=layer.bias)
            else:
                if len(pooled) > 1:
                    modules["flatten"] = nn.Flatten(start_dim=2)
                modules[f"fc{number}"] = nn.Linear(math.prod(pooled), layer.size, bias=layer.bias)
            modules[_population_name(config, number)] = _population(layer, made)
            shape = made
        self.layers = nn.Sequential(modules)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last layer's output (batch, steps, size)."""
        return self.run(inputs).outputs

    def stages(self) -> list[Stage]:
        """Return the populations in order, each with its projection and pooling."""
        found: list[Stage] = []
        before: dict[type, Any] = {}
        for name, module in self.layers.named_children():
            if isinstance(module, (Spiking, LI)):
                projection = before.get(Conv2d) or before[nn.Linear]
                found.append(Stage(name, before.get(AvgPool2d), projection, module, not found))
                before = {}
            before[type(module)] = module
        return found

    def formats(self) -> dict[str, Format] | None:
        """Return the formats of the integers that the network computes in now, None in floats."""
        return formats_of(self.stages(), self.config.integers) if self.config.integers else None

    def run(self, inputs: Tensor, formats: dict[str, Format] | None = None) -> Run:
        """Return the outputs with the spikes of every spiking layer.

        `formats`: integer formats to compute in, as `formats` returned them; None chooses them anew.
        """
        if inputs.ndim < 3 or tuple(inputs.shape[2:]) != self.config.input_shape:
            raise SnnCompileError(
                f"the network takes (batch, steps, *{self.config.input_shape}), not {tuple(inputs.shape)}"
            )
        if self.config.integers:
            return Run(*run_integers(self.stages(), self.config.integers, inputs, formats))
        x, spikes = inputs, {}
        for name, module in self.layers.named_children():
            x = each_step(module, x) if isinstance(module, nn.Linear) else module(x)
            if isinstance(module, Spiking):
                spikes[name] = x
        return Run(x, spikes)


def check_read(readout: str, task: str, skip: int) -> None:
    """Raise SnnCompileError for a read-out or task that the networks do not have."""
    for key, value, allowed in (("readout", readout, READOUTS), ("task", task, TASKS)):
        if value not in allowed:
            raise SnnCompileError(f"{key} is {value!r}; use one of {', '.join(allowed)}")
    if skip < 0 or (skip and readout != "mean"):
        raise SnnCompileError(
            f"skip is {skip}; it must be a number of steps, and 0 for the readout {readout}"
        )


def _population_name(config: NetworkConfig, number: int) -> str:
    if number == len(config.layers):
        return "readout"
    return "hidden" if len(config.layers) == 2 else f"hidden{number}"


def _population(layer: LayerConfig, shape: tuple[int, ...]) -> nn.Module:
    if layer.neuron == "li":
        return LI(layer.size, decay=layer.beta, learn_decay=layer.learn_decay, per_neuron=layer.per_neuron)
    firing = Firing(layer.threshold, layer.reset, layer.surrogate, layer.detach_reset)
    if layer.neuron == "lif":
        return LIF(
            shape,
            beta=layer.beta,
            firing=firing,
            recurrent=layer.recurrent,
            learn_decay=layer.learn_decay,
            per_neuron=layer.per_neuron,
        )
    return CubaLIF(
        shape,
        alpha=layer.alpha,
        beta=layer.beta,
        firing=firing,
        recurrent=layer.recurrent,
        learn_decay=layer.learn_decay,
        per_neuron=layer.per_neuron,
    )
