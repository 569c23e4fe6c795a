"""The random networks that `framework_files.py` asks each framework to build, run and export.

Every function returns the builders of its cases, each a function of the scale of the weights, and a list
of (network, attempt) that the released exporter refuses or does not write whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

BATCH, STEPS = 2, 80
Cases = tuple[list[Callable[[float], "Case"]], list[tuple[str, Callable[[], str]]]]


@dataclass
class Case:
    """A network, its input (batch, steps, *shape), how to run it, and how to export it.

    `layers` are the modules to listen to by NIR node; `known` is what the network's author knows and the
    file does not hold, in the words of the contract; `order` says how the layers return time.
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
    loses: str = ""


def spikes(seed: int, *shape: int, rate: float = 0.3) -> Any:
    """Random spikes, (batch, steps, *shape)."""
    return (np.random.default_rng(seed).random((BATCH, STEPS, *shape)) < rate).astype(np.float64)


def analog(seed: int, *shape: int) -> Any:
    """Random values between -0.4 and 1 with few bits, (batch, steps, *shape)."""
    return np.round(np.random.default_rng(seed).uniform(-0.4, 1, (BATCH, STEPS, *shape)) * 256) / 256


def drawn(scale: float, *layers: Any, seed: int = 1) -> list[Any]:
    """Give the weights of layers positive means, so that deep layers hear something, and some spread."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        layer.double()
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


def nodes(graph: Any) -> str:
    """Say in words what a graph consists of."""
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    return ", ".join(f"{name}: {kind}" for name, kind in kinds.items()) + f"; edges {sorted(graph.edges)}"


def norse() -> Cases:
    """Norse: cells stepped by hand in a SequentialState."""
    import norse.torch as n
    from norse.torch.utils.export_nir import to_nir

    def step(net: Any, data: Any) -> None:
        state = None
        for t in range(data.shape[1]):
            _, state = net(data[:, t], state)

    def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
        whole = n.SequentialState(*layers)
        cells = {str(i): m for i, m in enumerate(layers) if not hasattr(m, "weight")}
        return Case(
            f"norse-{name}", net, inputs, cells, partial(step, whole),
            lambda: to_nir(whole, torch.as_tensor(inputs[:1, 0])), **more,
        )  # fmt: skip

    def box(seed: int, size: int, leak: float = 0.0) -> Any:
        return n.LIFBoxCell(
            n.LIFBoxParameters(
                tau_mem_inv=between(seed, 60, 300, size),
                v_leak=torch.full((size,), leak, dtype=torch.float64),
                v_th=between(seed + 1, 0.5, 1, size),
            )
        )

    def cuba(seed: int, size: int, leak: float = 0.0) -> Any:
        return n.LIFCell(
            n.LIFParameters(
                tau_syn_inv=between(seed, 100, 400, size),
                tau_mem_inv=between(seed + 1, 60, 300, size),
                v_leak=torch.full((size,), leak, dtype=torch.float64),
                v_th=between(seed + 2, 0.5, 1, size),
            )
        )

    def iaf(seed: int, size: int) -> Any:
        return n.IAFCell(n.IAFParameters(v_th=between(seed, 0.5, 1, size)))

    def fc(scale: float) -> list[Any]:
        return drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))

    def lif(scale: float) -> Case:
        a, b = fc(scale)
        return case("lif", "Linear 8-12, LIFBox, Linear 12-6, LIFBox", spikes(1, 8), [a, box(1, 12), b, box(3, 6)])

    def leak(scale: float) -> Case:
        a, b = fc(scale)
        net = "Linear 8-12, LIFBox with v_leak 0.2, Linear 12-6, LIF with v_leak -0.1"
        return case("leak", net, analog(2, 8), [a, box(5, 12, 0.2), b, cuba(7, 6, -0.1)])

    def synaptic(scale: float) -> Case:
        a, b = fc(scale)
        net = "Linear 8-12, LIF (synaptic current), Linear 12-6, LIF"
        return case("cuba", net, spikes(3, 8), [a, cuba(1, 12), b, cuba(4, 6)])

    def integrate(scale: float) -> Case:
        a, b = fc(scale)
        return case("if", "Linear 8-12, IAF, Linear 12-6, IAF", spikes(4, 8), [a, iaf(1, 12), b, iaf(2, 6)])

    def readout(scale: float) -> Case:
        a, b = fc(scale)
        p = n.LIBoxParameters(
            tau_mem_inv=between(9, 60, 300, 6), v_leak=torch.full((6,), 0.1, dtype=torch.float64)
        )
        layers = [a, box(1, 12), b, n.LIBoxCell(p)]
        return case("readout", "Linear 8-12, LIFBox, Linear 12-6, LIBox", spikes(5, 8), layers, readouts=("3",))

    def conv(scale: float) -> Case:
        a, b = drawn(scale, nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2))
        layers = [a, box(1, 1), b, box(3, 1)]
        return case("conv", "Conv2d, LIFBox, Conv2d stride 2, LIFBox", spikes(6, 2, 7, 7), layers)

    def lost(*layers: Any, shape: tuple[int, ...] = (1, 8)) -> str:
        whole = n.SequentialState(*layers).double()
        return "writes " + nodes(to_nir(whole, torch.zeros(shape, dtype=torch.float64)))

    failures = [
        ("LIFRecurrentCell", lambda: lost(nn.Linear(8, 4), n.LIFRecurrentCell(4, 4))),
        ("AvgPool2d, Flatten", lambda: lost(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 4), box(1, 4), shape=(1, 2, 4, 4))),
        ("Conv2d without bias", lambda: lost(nn.Conv2d(2, 3, 3, bias=False), box(1, 1), shape=(1, 2, 4, 4))),
    ]  # fmt: skip
    return [lif, leak, synaptic, integrate, readout, conv], failures
