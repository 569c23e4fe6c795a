"""Training on the numbers that a chip can hold: weights on a grid of few bits, decays of 12.

While the context is open every weight is a whole multiple of its projection's step and every learned
decay a multiple of 1/4096; gradients are taken there and then applied to the weights behind them
(straight-through). The steps of projections into the same population differ by powers of two, as tables
with exponents do, and the first projection's largest weight is the largest of its table: one scale of the
population then makes all its tables exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snn_compile.train.networks import SpikingNetwork
from snn_compile.train.neurons import LIF, CubaLIF, Decay

DECAY_STEPS = 4096


@contextmanager
def rounded(network: SpikingNetwork, bits: int) -> Iterator[None]:
    """Round the network's weights to `bits` bits, sign included, and give them back on leaving.

    0 bits round nothing.
    """
    if not bits:
        yield
        return
    behind = [(p, p.detach().clone()) for p in network.parameters()]
    with torch.no_grad():
        round_(network, bits)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in behind:
                parameter.copy_(value)


def round_(network: SpikingNetwork, bits: int) -> None:
    """Round weights and learned decays in place, without gradients."""
    step: float | None = None
    for layer in network.layers:
        if isinstance(layer, nn.Linear):
            step = _round_weight(layer.weight, bits, None)
        elif isinstance(layer, (LIF, CubaLIF)) and layer.recurrent is not None:
            _round_weight(layer.recurrent.weight, bits, step)
    for module in network.modules():
        if isinstance(module, Decay) and module.learn:
            share = torch.sigmoid(module.logit.double())
            kept = (share * DECAY_STEPS).round().clamp(1, DECAY_STEPS - 1) / DECAY_STEPS
            module.logit.copy_(torch.logit(kept))


def _round_weight(weight: Tensor, bits: int, sibling: float | None) -> float:
    top = (1 << (bits - 1)) - 1
    largest = float(weight.abs().max())
    if largest == 0:
        return sibling or 1.0
    step = largest / top
    if sibling is not None:
        step = sibling * 2.0 ** math.ceil(math.log2(step / sibling) - 1e-9)
    weight.copy_((weight.double() / step).round() * step)
    return step
