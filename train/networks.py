"""Networks of layers in a row, built from a configuration and run over time.

Each layer is a dense projection and a population of neurons. Within a step the layers follow each
other (logical delay 0); a recurrent layer sees its own spikes of the step before. The modules
carry the names that the exported graph shows: fc1, hidden, fc2, readout (hidden1, hidden2, ... if
there are several).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.neurons import LI, LIF, CubaLIF, Firing

NEURONS = ("lif", "cuba_lif", "li")


@dataclass(frozen=True)
class LayerConfig:
    """One projection and its population of `size` neurons of the kind `neuron`; see `neurons`."""

    size: int
    neuron: str = "lif"
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


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of one step of input, and the layers from input to read-out."""

    input_shape: tuple[int, ...]
    layers: tuple[LayerConfig, ...]

    def __post_init__(self) -> None:
        """Raise SnnCompileError for an impossible row of layers."""
        if not self.layers:
            raise SnnCompileError("a network needs at least one layer")
        if any(layer.neuron == "li" for layer in self.layers[:-1]):
            raise SnnCompileError("only the last layer may be li: it sends membranes, not spikes")

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> NetworkConfig:
        """Return the configuration that `dataclasses.asdict` made plain."""
        return cls(tuple(plain["input_shape"]), tuple(LayerConfig(**layer) for layer in plain["layers"]))


@dataclass(frozen=True, eq=False)
class Run:
    """What a run gave: `outputs` (batch, steps, size), and `spikes` so for each spiking layer."""

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
        if len(config.input_shape) > 1:
            modules["flatten"] = nn.Flatten(start_dim=2)
        sources = int(torch.Size(config.input_shape).numel())
        for number, layer in enumerate(config.layers, start=1):
            modules[f"fc{number}"] = nn.Linear(sources, layer.size, bias=layer.bias)
            modules[_population_name(config, number)] = _population(layer)
            sources = layer.size
        self.layers = nn.Sequential(modules)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last layer's output (batch, steps, size)."""
        return self.run(inputs).outputs

    def run(self, inputs: Tensor) -> Run:
        """Return the outputs with the spikes of every spiking layer."""
        if inputs.ndim < 3 or tuple(inputs.shape[2:]) != self.config.input_shape:
            raise SnnCompileError(
                f"the network takes (batch, steps, *{self.config.input_shape}), not {tuple(inputs.shape)}"
            )
        x, spikes = inputs, {}
        for name, module in self.layers.named_children():
            x = module(x)
            if isinstance(module, (LIF, CubaLIF)):
                spikes[name] = x
        return Run(x, spikes)


def _population_name(config: NetworkConfig, number: int) -> str:
    if number == len(config.layers):
        return "readout"
    return "hidden" if len(config.layers) == 2 else f"hidden{number}"


def _population(layer: LayerConfig) -> nn.Module:
    if layer.neuron == "li":
        return LI(layer.size, decay=layer.beta, learn_decay=layer.learn_decay, per_neuron=layer.per_neuron)
    firing = Firing(layer.threshold, layer.reset, layer.surrogate, layer.detach_reset)
    if layer.neuron == "lif":
        return LIF(
            layer.size,
            beta=layer.beta,
            firing=firing,
            recurrent=layer.recurrent,
            learn_decay=layer.learn_decay,
            per_neuron=layer.per_neuron,
        )
    return CubaLIF(
        layer.size,
        alpha=layer.alpha,
        beta=layer.beta,
        firing=firing,
        recurrent=layer.recurrent,
        learn_decay=layer.learn_decay,
        per_neuron=layer.per_neuron,
    )
