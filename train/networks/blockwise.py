"""Networks that run block by block: liquid layers, or ALIF or an LSTM to compare with, and a read-out.

Convolutions (liquid only) come first, then dense layers, then one of the read-outs

    membrane   a linear map of the last layer's membranes, at the end of a block
    leaky      leaky integrators of the weighted spikes, as in `recurrent.py`
    liquid     leaky integrators of the weighted spikes i with a rate of their own,
               y <- y + (i - y) r,  r = sigma(W_r [i; y] + b_r)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.configs.recurrent import range_fault
from snn_compile.train.kernels.fused import run_adaptive
from snn_compile.train.networks.blocks import Block, States, leaky_block
from snn_compile.train.networks.feedforward import TASKS, Run
from snn_compile.train.networks.lsn_layers import LiquidConvolution, LiquidLayer
from snn_compile.train.networks.recurrent import LeakyReadout
from snn_compile.train.neurons.alif import Adaptation
from snn_compile.train.neurons.lsn import Liquid

ONLINE_NEURONS = ("lsn", "alif", "lstm")
READOUTS = ("membrane", "leaky", "liquid")
READS = ("last", "per_step")


@dataclass(frozen=True)
class OnlineConfig:
    """The shape of one step of input, the layers, and the read-out of `outputs` numbers.

    `channels` lists convolutions of width `kernel`, padded by half of it, with `stride`, whose gates are
    `gate` wide. `adaptive` False fixes the threshold at 0.5. `start`: states at 0, or `random`.
    `tau_readout` (steps) are mean and deviation of the time constants of the readout `leaky`. `reads`: what
    is read when it is deployed, the last step or every step; `task`: a class, or the numbers themselves.
    """

    input_shape: tuple[int, ...]
    outputs: int
    neuron: str = "lsn"
    channels: tuple[int, ...] = ()
    kernel: int = 3
    stride: int = 2
    gate: int = 3
    hidden: tuple[int, ...] = (128,)
    recurrent: bool = True
    adaptive: bool = True
    start: str = "zero"
    readout: str = "membrane"
    tau_readout: tuple[float, ...] = (20.0, 5.0)
    reads: str = "last"
    task: str = "classify"

    def __post_init__(self) -> None:
        """Raise SnnCompileError for values out of range."""
        words = {"neuron": ONLINE_NEURONS, "readout": READOUTS, "reads": READS, "task": TASKS}
        for key, allowed in words.items():
            if getattr(self, key) not in allowed:
                raise SnnCompileError(f"{key} is {getattr(self, key)!r}; use one of {', '.join(allowed)}")
        sizes = (
            *self.input_shape,
            self.outputs,
            *self.channels,
            *self.hidden,
            self.kernel,
            self.stride,
            self.gate,
        )
        if min(sizes) < 1:
            raise SnnCompileError("sizes, kernel, stride and gate must be at least 1")
        if fault := range_fault("tau_readout", self.tau_readout):
            raise SnnCompileError(f"tau_readout is {self.tau_readout}; it must be {fault}")
        if not self.hidden or (self.neuron != "lsn" and (self.channels or len(self.hidden) > 1)):
            raise SnnCompileError("hidden must be at least one size, and for alif and lstm one, no channels")
        if self.neuron != "lsn" and self.readout != "membrane":
            raise SnnCompileError(f"{self.neuron} has the readout membrane only")
        if self.channels and len(self.input_shape) != 3:
            raise SnnCompileError(
                f"channels need an input (channels, height, width), not {self.input_shape}; use layout=image"
            )

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> OnlineConfig:
        """Return the configuration that `dataclasses.asdict` made plain."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)


class OnlineNetwork(nn.Module):
    """The network of an OnlineConfig: (batch, steps, *input_shape) in, (batch, steps or 1, outputs) out."""

    def __init__(self, config: OnlineConfig) -> None:
        super().__init__()
        self.config = config
        shape, kind = config.input_shape, Liquid(adaptive=config.adaptive)
        self.convolutions = nn.ModuleList()
        for size in config.channels:
            window = {"kernel": config.kernel, "stride": config.stride, "gate": config.gate}
            self.convolutions.append(LiquidConvolution(shape[0], size, kind, start=config.start, **window))
            shape = (
                size,
                *((n + 2 * (config.kernel // 2) - config.kernel) // config.stride + 1 for n in shape[1:]),
            )
        inputs = math.prod(shape)
        self.dense = nn.ModuleList()
        for size in config.hidden:
            self.dense.append(self._dense(inputs, size, kind))
            inputs = size
        self.rate: nn.Linear | None = None
        if config.readout == "leaky":
            self.readout: nn.Module = LeakyReadout(inputs, config.outputs, config.tau_readout)
            return
        self.readout = nn.Linear(inputs, config.outputs)
        nn.init.xavier_normal_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        if config.readout == "liquid":
            self.rate = nn.Linear(2 * config.outputs, config.outputs)

    def _dense(self, inputs: int, size: int, kind: Liquid) -> nn.Module:
        if self.config.neuron == "lsn":
            return LiquidLayer(inputs, size, kind, recurrent=self.config.recurrent, start=self.config.start)
        return AdaptiveLayer(inputs, size) if self.config.neuron == "alif" else LSTMLayer(inputs, size)

    def block(self, x: Tensor, states: States = None) -> Block:
        """Return the outputs of a block of steps, and the states after it."""
        if x.ndim < 3 or tuple(x.shape[2:]) != self.config.input_shape:
            raise SnnCompileError(
                f"the network takes (batch, steps, *{self.config.input_shape}), not {tuple(x.shape)}"
            )
        x = x.transpose(0, 1)
        layers = [*self.convolutions, *self.dense]
        *held, y = states or (None,) * (len(layers) + 1)
        after: list[States] = []
        spikes: dict[str, Tensor] = {}
        membranes = x
        for number, (layer, state) in enumerate(zip(layers, held, strict=True)):
            if number == len(self.convolutions):
                x = x.flatten(2)
            x, membranes, state = layer.block(x, state)
            after.append(state)
            if self.config.neuron != "lstm":
                spikes[f"hidden{number + 1}" if len(layers) > 1 else "hidden"] = x.transpose(0, 1)
        outputs, y = self._read(x, membranes, y)
        return Block(outputs, spikes, (*after, y))

    def _read(self, spikes: Tensor, membranes: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.readout, LeakyReadout):
            found = leaky_block(self.readout, nn.functional.linear(spikes, self.readout.weight), y)
            return found.transpose(0, 1), found[-1]
        if self.rate is None:
            return self.readout(membranes[-1])[:, None], None
        out = []
        y = spikes.new_zeros(spikes.shape[1], self.config.outputs) if y is None else y
        for now in self.readout(spikes):
            y = y + (now - y) * torch.sigmoid(self.rate(torch.cat([now, y], 1)))
            out.append(y)
        return torch.stack(out, dim=1), y

    def run(self, inputs: Tensor, formats: object = None) -> Run:
        """Return the read-out with the spikes of every layer; an LSTM has none."""
        made = self.block(inputs)
        return Run(made.outputs, made.spikes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the read-out."""
        return self.block(inputs).outputs

    def formats(self) -> dict[str, Any] | None:
        """Return None: the layers compute in floats."""
        return None


class AdaptiveLayer(nn.Module):
    """A recurrent ALIF layer of membranes N(20, 5) and adaptations N(200, 50) steps slow."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        both = nn.init.xavier_uniform_(torch.empty(size, inputs + size))
        self.weight_in = nn.Parameter(both[:, :inputs].clone())
        self.weight_rec = nn.Parameter(both[:, inputs:].clone())
        self.tau_membrane = nn.Parameter(torch.empty(size).normal_(20, 5))
        self.tau_adaptation = nn.Parameter(torch.empty(size).normal_(200, 50))
        self.kind = Adaptation(surrogate="multi-gaussian-0.3")

    def block(self, x: Tensor, state: States) -> tuple[Tensor, Tensor, States]:
        """Return spikes (steps, batch, size), the membranes (1, batch, size) after them, and the state."""
        alpha = torch.exp(-1 / self.tau_membrane.abs())
        rho = torch.exp(-1 / self.tau_adaptation.abs())
        incoming = nn.functional.linear(x, self.weight_in)
        z, state = run_adaptive(incoming, self.weight_rec, alpha, rho, self.kind, state)
        return z, state[0][None], state


class LSTMLayer(nn.LSTM):
    """torch's LSTM with blocks of steps; its outputs stand for membranes."""

    def block(self, x: Tensor, state: States) -> tuple[Tensor, Tensor, States]:
        """Return outputs twice, (steps, batch, size), and the state."""
        h, state = self(x, state)
        return h, h, state
