"""snnTorch: modules with hidden states, stepped by hand; see `framework_files.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import snntorch as snn
import torch
from framework_nets import RESETS, Case, Cases, between, drawn, nodes, spikes, written
from snntorch import utils
from snntorch.export_nir import export_to_nir
from torch import nn


def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
    """Return the case of layers in a row."""
    whole = nn.Sequential(*layers).double()
    sent = {
        str(i) if not hasattr(m, "recurrent") else f"{i}": m
        for i, m in enumerate(layers)
        if isinstance(m, snn.SpikingNeuron)
    }

    def run(data: Any) -> None:
        utils.reset(whole)
        for t in range(data.shape[1]):
            whole(data[:, t])

    def export() -> Any:
        utils.reset(whole)
        return export_to_nir(whole, torch.as_tensor(inputs[:1, 0]), ignore_dims=[0])

    return Case(f"snntorch-{name}", net, inputs, sent, run, export, **more)


def fc(scale: float) -> list[Any]:
    """The two dense layers."""
    return drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6, bias=False))


def leaky(scale: float, mechanism: str = "subtract", reset_delay: bool = True) -> Case:
    """Two layers of Leaky."""
    a, b = fc(scale)
    options = {"init_hidden": True, "reset_mechanism": mechanism, "reset_delay": reset_delay}
    layers = [
        a, snn.Leaky(between(1, 0.6, 0.95, 12), between(2, 0.5, 1, 12), **options),
        b, snn.Leaky(between(3, 0.6, 0.95, 6), between(4, 0.5, 1, 6), **options),
    ]  # fmt: skip
    known = {"reset": RESETS[mechanism]}
    if not reset_delay:
        known["reset_timing"] = "pending"
    name = f"leaky-{mechanism}" + ("" if reset_delay else "-no-delay")
    net = f"Linear 8-12, Leaky, Linear 12-6, Leaky, reset {mechanism}, reset_delay {reset_delay}"
    return case(name, net, spikes(41, 8), layers, known=known)


def synaptic(scale: float, mechanism: str = "zero") -> Case:
    """Two layers with synaptic currents."""
    a, b = fc(scale)
    options = {"init_hidden": True, "reset_mechanism": mechanism}
    ranges = ((0.3, 0.8), (0.6, 0.95), (0.5, 1))
    first = snn.Synaptic(*(between(i, *r, 12) for i, r in enumerate(ranges, 1)), **options)
    second = snn.Synaptic(*(between(i, *r, 6) for i, r in enumerate(ranges, 4)), **options)
    layers = [a, first, b, second]
    net = f"Linear 8-12, Synaptic, Linear 12-6, Synaptic, reset {mechanism}"
    return case(f"synaptic-{mechanism}", net, spikes(42, 8), layers, known={"reset": RESETS[mechanism]})


def rleaky(scale: float, mechanism: str = "subtract", synapse: bool = False) -> Case:
    """A recurrent layer and one of Leaky."""
    a, b = fc(scale)
    options = {"init_hidden": True, "reset_mechanism": mechanism, "linear_features": 12}
    if synapse:
        first = snn.RSynaptic(0.5, between(2, 0.6, 0.9, 12), threshold=between(3, 0.5, 1, 12), **options)
    else:
        first = snn.RLeaky(between(2, 0.6, 0.9, 12), threshold=between(3, 0.5, 1, 12), **options)
    drawn(0.3, first.recurrent, seed=5)
    second = snn.Leaky(0.8, init_hidden=True, reset_mechanism=mechanism)
    second.beta, second.threshold = torch.full((6,), 0.8), torch.ones(6)
    kind = "RSynaptic" if synapse else "RLeaky"
    net = f"Linear 8-12, {kind} all-to-all with bias, Linear 12-6, Leaky, reset {mechanism}"
    known = {"reset": RESETS[mechanism]}
    return case(f"{kind.lower()}-{mechanism}", net, spikes(43, 8), [a, first, b, second], known=known)


def lost(*layers: Any, shape: tuple[int, ...] = (1, 8)) -> str:
    """Export and write a network; describe its graph."""
    graph = export_to_nir(nn.Sequential(*layers), torch.zeros(shape), ignore_dims=[0])
    written(graph)
    return "writes " + nodes(graph)


def cases() -> Cases:
    """Builders of the cases, and attempts that the exporter refuses or does not write whole."""
    hidden = {"init_hidden": True}
    four = partial(snn.Leaky, torch.full((4,), 0.9), torch.ones(4), **hidden)
    image = (1, 2, 6, 6)
    failures = [
        ("documentation example: a number as beta", lambda: lost(nn.Linear(8, 4), snn.Leaky(0.9, **hidden))),
        (
            "beta by neuron, a number as threshold",
            lambda: lost(nn.Linear(8, 4), snn.Leaky(torch.full((4,), 0.9), **hidden)),
        ),
        ("Flatten and MLP", lambda: lost(nn.Flatten(), nn.Linear(72, 4), four(), shape=image)),
        ("Conv2d", lambda: lost(nn.Conv2d(2, 3, 3), snn.Leaky(0.9, **hidden), shape=image)),
        ("MaxPool2d", lambda: lost(nn.MaxPool2d(6), nn.Flatten(), nn.Linear(2, 4), four(), shape=image)),
        ("AvgPool2d", lambda: lost(nn.AvgPool2d(6), nn.Flatten(), nn.Linear(2, 4), four(), shape=image)),
        ("BatchNorm1d", lambda: lost(nn.Linear(8, 4), nn.BatchNorm1d(4).eval(), four())),
        ("Dropout", lambda: lost(nn.Linear(8, 4), nn.Dropout().eval(), four())),
        (
            "RLeaky one to one with a scalar V",
            lambda: lost(snn.RLeaky(0.9, V=0.5, all_to_all=False, **hidden)),
        ),
        ("Alpha", lambda: lost(nn.Linear(8, 4), snn.Alpha(0.8, 0.7, **hidden))),
    ]
    return [
        leaky,
        partial(leaky, mechanism="zero"),
        partial(leaky, reset_delay=False),
        synaptic,
        partial(synaptic, mechanism="subtract"),
        rleaky,
        partial(rleaky, mechanism="zero"),
        partial(rleaky, mechanism="zero", synapse=True),
    ], failures
