"""Any network here over a block of steps, its states going in and coming out, so that blocks can follow.

A sequence cut into blocks gives the same outputs as the whole; what differs is how far gradients reach if the
states are `detached` between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels.fused import run_integrators
from snn_compile.train.kernels.sequence import advance, rest
from snn_compile.train.networks.convolution import as_sequence, as_shape, each_step
from snn_compile.train.networks.feedforward import SpikingNetwork
from snn_compile.train.networks.layers import LI, Spiking
from snn_compile.train.networks.recurrent import LeakyReadout, RecurrentNetwork
from snn_compile.train.neurons.lif import li_step

States = Any
"""Tensors in tuples, or None before the first step."""


@dataclass(frozen=True, eq=False)
class Block:
    """What a block gave: `outputs` (batch, steps, size), or of its last step alone (batch, 1, size).

    `spikes` (batch, steps, *shape) are by layer; `states` are those that the next block starts from.
    """

    outputs: Tensor
    spikes: Mapping[str, Tensor]
    states: States


def run_block(network: nn.Module, x: Tensor, states: States = None) -> Block:
    """Return a network's outputs for a block x (batch, steps, *shape) that starts from `states`.

    A network of another kind needs a method `block(x, states)` that returns a Block. Raises SnnCompileError
    if it has none.
    """
    if isinstance(network, RecurrentNetwork):
        return _recurrent(network, x, states)
    if isinstance(network, SpikingNetwork):
        return _spiking(network, x, states)
    if not hasattr(network, "block"):
        raise SnnCompileError(
            f"a {type(network).__name__} cannot run block by block; give it a method block(x, states) that "
            "returns a train.blocks.Block"
        )
    made: Block = cast(Any, network).block(x, states)
    return made


def detached(states: States) -> States:
    """Return states that no gradient flows through."""
    if isinstance(states, tuple):
        return tuple(detached(state) for state in states)
    return states.detach() if isinstance(states, Tensor) else states


def cuts(steps: int, block: int) -> list[slice]:
    """Return the blocks of a sequence, each of `block` steps but the last, which may have fewer."""
    return [slice(first, min(first + block, steps)) for first in range(0, steps, block)]


def _recurrent(network: RecurrentNetwork, inputs: Tensor, states: States) -> Block:
    x = network.sequence(inputs)
    if network.config.neuron == "lstm":
        h, states = network.lstm(x, states)
        return Block(network.head(h).transpose(0, 1), {}, states)
    layer, y = (None, None) if states is None else states
    incoming, z, layer = network.layer(x, layer)
    assert z is not None
    out = leaky_block(network.readout, incoming, y)
    return Block(out.transpose(0, 1), {"hidden": z.transpose(0, 1)}, (layer, out[-1]))


def leaky_block(readout: LeakyReadout, x: Tensor, before: Tensor | None) -> Tensor:
    """Return a read-out's membranes for a weighted input; those before the block decay on top of them."""
    out: Tensor = readout(x)
    if before is None:
        return out
    a = torch.exp(-1 / readout.tau.abs())
    steps = torch.arange(1, len(x) + 1, dtype=x.dtype)
    kept: Tensor = before * a ** steps[:, None, None]
    return out + kept


def _spiking(network: SpikingNetwork, x: Tensor, states: States) -> Block:
    if network.config.integers:
        raise SnnCompileError("a network that computes in a chip's integers runs whole sequences only")
    held, after, spikes = iter(states or ()), [], {}
    for name, module in network.layers.named_children():
        if isinstance(module, Spiking):
            x, state = _population(module, x, next(held, None))
            spikes[name] = x
            after.append(state)
        elif isinstance(module, LI):
            x, state = _integrator(module, x, next(held, None))
            after.append(state)
        else:
            x = each_step(module, x) if isinstance(module, nn.Linear) else module(x)
    return Block(x, spikes, tuple(after))


def _population(layer: Spiking, x: Tensor, states: States) -> tuple[Tensor, States]:
    steps, step = x.shape[1], layer.step()
    x = as_sequence(x)
    alpha, beta = layer.decays()
    decays = layer.ordered(alpha), layer.ordered(beta)
    if layer.recurrent is not None:
        incoming = x.expand(-1, steps, -1).transpose(0, 1)
        z, states = run_integrators(incoming, layer.recurrent.weight, *decays, step, states)
        return z.transpose(0, 1), states
    states = rest(x.shape[0], x.shape[2], step, x) if states is None else states
    z, states = advance(x, states, decays, steps, step)
    return as_shape(z, layer.shape), states


def _integrator(layer: LI, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
    decay, steps, out = layer.decay(), x.shape[1], []
    v = x.new_zeros(x.shape[0], layer.size) if v is None else v
    for now in as_sequence(x).expand(-1, steps, -1).unbind(1):
        y, v = li_step(now, v, decay)
        out.append(y)
    return torch.stack(out, dim=1), v
