"""Norse: cells stepped by hand in a SequentialState; see `framework_files.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import norse.torch as n
import torch
from framework_nets import Case, Cases, analog, between, drawn, nodes, spikes, written
from norse.torch.utils.export_nir import to_nir
from torch import nn


def step(net: Any, data: Any) -> None:
    """Run a network step by step."""
    state = None
    for t in range(data.shape[1]):
        _, state = net(data[:, t], state)


def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
    """Return the case of layers in a row."""
    whole = n.SequentialState(*layers)
    cells = {str(i): m for i, m in enumerate(layers) if not hasattr(m, "weight")}
    return Case(
        f"norse-{name}", net, inputs, cells, partial(step, whole),
        lambda: to_nir(whole, torch.as_tensor(inputs[:1, 0])), **more,
    )  # fmt: skip


def box(seed: int, size: int, leak: float = 0.0) -> Any:
    """A layer without a synaptic current."""
    return n.LIFBoxCell(
        n.LIFBoxParameters(
            tau_mem_inv=between(seed, 60, 300, size),
            v_leak=torch.full((size,), leak, dtype=torch.float64),
            v_th=between(seed + 1, 0.5, 1, size),
        )
    )


def cuba(seed: int, size: int, leak: float = 0.0) -> Any:
    """A layer with a synaptic current."""
    return n.LIFCell(
        n.LIFParameters(
            tau_syn_inv=between(seed, 100, 400, size),
            tau_mem_inv=between(seed + 1, 60, 300, size),
            v_leak=torch.full((size,), leak, dtype=torch.float64),
            v_th=between(seed + 2, 0.5, 1, size),
        )
    )


def iaf(seed: int, size: int) -> Any:
    """Neurons that integrate."""
    return n.IAFCell(n.IAFParameters(v_th=between(seed, 0.5, 1, size)))


def fc(scale: float) -> list[Any]:
    """The two dense layers."""
    return drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))


def lif(scale: float) -> Case:
    """Two layers of LIF."""
    a, b = fc(scale)
    return case(
        "lif", "Linear 8-12, LIFBox, Linear 12-6, LIFBox", spikes(1, 8), [a, box(1, 12), b, box(3, 6)]
    )


def leak(scale: float) -> Case:
    """Leaks that are not 0, and both kinds of LIF."""
    a, b = fc(scale)
    net = "Linear 8-12, LIFBox with v_leak 0.2, Linear 12-6, LIF with v_leak -0.1"
    return case("leak", net, analog(2, 8), [a, box(5, 12, 0.2), b, cuba(7, 6, -0.1)])


def synaptic(scale: float) -> Case:
    """Two layers with synaptic currents."""
    a, b = fc(scale)
    net = "Linear 8-12, LIF (synaptic current), Linear 12-6, LIF"
    return case("cuba", net, spikes(3, 8), [a, cuba(1, 12), b, cuba(4, 6)])


def integrate(scale: float) -> Case:
    """Two layers that integrate."""
    a, b = fc(scale)
    return case("if", "Linear 8-12, IAF, Linear 12-6, IAF", spikes(4, 8), [a, iaf(1, 12), b, iaf(2, 6)])


def readout(scale: float) -> Case:
    """A spiking layer and one that never spikes."""
    a, b = fc(scale)
    p = n.LIBoxParameters(
        tau_mem_inv=between(9, 60, 300, 6), v_leak=torch.full((6,), 0.1, dtype=torch.float64)
    )
    layers = [a, box(1, 12), b, n.LIBoxCell(p)]
    return case("readout", "Linear 8-12, LIFBox, Linear 12-6, LIBox", spikes(5, 8), layers, readouts=("3",))


def lost(*layers: Any, shape: tuple[int, ...] = (1, 8)) -> str:
    """Export and write a network; describe its graph."""
    whole = n.SequentialState(*layers).double()
    graph = to_nir(whole, torch.zeros(shape, dtype=torch.float64))
    written(graph)
    return "writes " + nodes(graph)


def cases() -> Cases:
    """Builders of the cases, and attempts that the exporter refuses or does not write whole."""
    image = (1, 2, 4, 4)
    failures = [
        ("LIFRecurrentCell", lambda: lost(nn.Linear(8, 4), n.LIFRecurrentCell(4, 4))),
        ("AvgPool2d", lambda: lost(nn.AvgPool2d(2), nn.Conv2d(2, 3, 2), box(1, 1), shape=image)),
        ("Flatten", lambda: lost(nn.Flatten(), nn.Linear(32, 4), box(1, 4), shape=image)),
        ("Conv2d", lambda: lost(nn.Conv2d(2, 3, 3), box(1, 1), shape=image)),
        ("Conv2d without bias", lambda: lost(nn.Conv2d(2, 3, 3, bias=False), box(1, 1), shape=image)),
    ]
    return [lif, leak, synaptic, integrate, readout], failures
