"""Random feedback networks whose cycle is a contraction by so much, and what steps them independently."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_compile.train.networks.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork

KINDS: dict[str, tuple[tuple[int, ...], tuple[FeedbackLayer, ...]]] = {
    "dense": ((14,), (FeedbackLayer(12),)),
    "wide": ((60,), (FeedbackLayer(200),)),
    "two dense": ((14,), (FeedbackLayer(12), FeedbackLayer(9))),
    "convolution": ((2, 9, 9), (FeedbackLayer(3, kernel=3, stride=2),)),
    "three, transposed feedback": (
        (1, 12, 12),
        (FeedbackLayer(3, 5, 1), FeedbackLayer(4, 3, 2), FeedbackLayer(3, 3, 2)),
    ),
    "convolution and dense": ((1, 8, 8), (FeedbackLayer(2, 3, 2), FeedbackLayer(10))),
}


def network(kind: str, seed: int, contraction: float = 0.9, **settings: Any) -> FeedbackNetwork:
    """Return a random float64 network, the norms on its cycle `contraction` of the bound."""
    torch.manual_seed(seed)
    shape, layers = KINDS[kind]
    made = FeedbackNetwork(FeedbackConfig(shape, layers, 4, **settings)).double()
    with torch.no_grad():
        for layer in made.forwards:
            if layer.norm is not None:
                layer.norm.running_mean.normal_(0, 0.3)
                layer.norm.running_var.uniform_(0.3, 2)
                layer.norm.weight.uniform_(0.3, 1.2)
                layer.norm.bias.uniform_(-0.2, 1.2)
            else:
                layer.bias.uniform_(-0.2, 1.2)
        made.readout.bias.normal_()
        for _ in range(300):
            made.feedback.iterate()
        bound = made.restriction()
        made.feedback.scale.mul_(contraction * bound.bound / bound.product)
    return made


def still(net: FeedbackNetwork, batch: int, steps: int, seed: int = 0) -> Tensor:
    """Return inputs (batch, steps, *shape) that stay the same."""
    drawn = torch.rand(batch, 1, *net.config.input_shape, generator=torch.Generator().manual_seed(seed))
    return drawn.double().expand(-1, steps, *net.config.input_shape)


def matrix(function: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the matrix of a linear map of (batch, *shape)."""
    size = int(np.prod(shape))
    with torch.no_grad():
        return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T.numpy()


def by_hand(
    net: FeedbackNetwork, inputs: Tensor, masks: dict[str, Tensor] | None = None
) -> Iterator[list[np.ndarray]]:
    """Step a network with matrices and numpy; give the spikes of all layers after each step."""
    config = net.config
    maps = [matrix(layer, layer.source) for layer in net.forwards]
    back = matrix(net.feedback, net.feedback.source)
    drops = {name: mask.flatten(1).numpy() for name, mask in (masks or {}).items()}
    membranes = [np.zeros((len(inputs), len(m))) for m in maps]
    spikes = [np.zeros_like(u) for u in membranes]
    for t in range(inputs.shape[1]):
        arrives = inputs[:, t].flatten(1).numpy()
        before = spikes[-1]
        for number, (layer, weight) in enumerate(zip(net.forwards, maps, strict=True)):
            now = arrives @ weight.T
            places = now.shape[1] // layer.target[0]
            if layer.norm is None:
                now = now + np.repeat(layer.bias.detach().numpy(), places)
            else:
                mean, var = (
                    np.repeat(x.numpy(), places) for x in (layer.norm.running_mean, layer.norm.running_var)
                )
                gamma, beta = (
                    np.repeat(x.detach().numpy(), places) for x in (layer.norm.weight, layer.norm.bias)
                )
                now = (now - mean) / np.sqrt(var + layer.norm.eps) * gamma + beta
            now = now * drops.get("input" if number == 0 else f"forward{number + 1}", 1)
            if number == 0:
                now = now + (before @ back.T) * drops.get("feedback", 1)
            u = config.decay * membranes[number] + now
            spikes[number] = (u >= config.threshold).astype(np.float64)
            membranes[number] = u - config.threshold * spikes[number]
            arrives = spikes[number]
        yield [z.copy() for z in spikes]
