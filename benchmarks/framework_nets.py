"""What the random networks of `framework_nets_<framework>.py` share.

Each of those files has `cases`, which returns the builders of its cases, each a function of the scale of
the weights, and a list of (network, attempt) that the released exporter refuses or does not write whole.
They are imported only in an environment that has the framework.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

BATCH, STEPS = 2, 80
Cases = tuple[list[Callable[[float], "Case"]], list[tuple[str, Callable[[], str]]]]


@dataclass
class Case:
    """A network, its input (batch, steps, *shape), how to run it, and how to export it.

    `layers` are the modules to listen to by NIR node; `known` is what the network's author knows and the
    file does not hold, in the words of the contract; `order` says how the layers return time;
    `least` is the share of active entries that every layer needs.
    """

    name: str
    net: str
    inputs: Any
    layers: Mapping[str, Any]
    run: Callable[[Any], Any]
    export: Callable[[], Any]
    order: str = "steps"
    known: Mapping[str, Any] = field(default_factory=dict)
    readouts: tuple[str, ...] = ()
    least: float = 0.05
    dtype: str = "float64"


def spikes(seed: int, *shape: int, rate: float = 0.3) -> Any:
    """Random spikes, (batch, steps, *shape)."""
    return (np.random.default_rng(seed).random((BATCH, STEPS, *shape)) < rate).astype(np.float64)


def analog(seed: int, *shape: int) -> Any:
    """Random values between -0.4 and 1 with few bits, (batch, steps, *shape)."""
    return np.round(np.random.default_rng(seed).uniform(-0.4, 1, (BATCH, STEPS, *shape)) * 256) / 256


def drawn(scale: float, *layers: Any, seed: int = 1) -> list[Any]:
    """Give the weights of layers positive means, so that deep layers receive input, and some spread."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        layer.double()
        # Some frameworks send float32 spikes, which are exact in float64 too.
        layer.register_forward_pre_hook(lambda module, given: tuple(x.double() for x in given))
        weight = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
        fan_in = layer.weight[0].numel()
        layer.weight.data = scale * (weight + 0.4) / fan_in**0.5
        if layer.bias is not None:
            layer.bias.data = 0.05 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64)
    return list(layers)


def between(seed: int, low: float, high: float, *shape: int) -> Any:
    """Random parameters."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


RESETS = {"subtract": "subtract", "zero": "value", "none": "none"}


def written(graph: Any) -> None:
    """Write a graph to memory, which some exports do not survive."""
    import nir

    nir.write(io.BytesIO(), graph)


def nodes(graph: Any) -> str:
    """Describe the nodes and edges of a graph."""
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    return ", ".join(f"{name}: {kind}" for name, kind in kinds.items()) + f"; edges {sorted(graph.edges)}"
