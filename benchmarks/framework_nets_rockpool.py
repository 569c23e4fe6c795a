"""Rockpool: torch modules that take (batch, steps, channels); see `framework_files.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from framework_nets import Case, Cases, analog, between, nodes, spikes, written
from rockpool.nn.combinators import Sequential
from rockpool.nn.modules.torch import ExpSynTorch, LIFNeuronTorch, LIFTorch, LinearTorch
from rockpool.nn.modules.torch.nir import to_nir


def whole_of(layers: list[Any]) -> Any:
    """Return layers in a row, their parameters in float64."""
    for layer in layers:  # rockpool draws in float32 and keeps what it is given
        for name, value in list(layer.named_parameters()):
            getattr(layer, name).data = value.data.double()
    return Sequential(*layers)


def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
    """Return the case of layers in a row."""
    whole = whole_of(layers)
    names = [n for n, _ in whole.named_children()]
    sent = {n: m for n, m in zip(names, layers, strict=True) if not isinstance(m, LinearTorch)}

    def run(data: Any) -> None:
        whole.reset_state()
        for layer in layers:
            for state in ("vmem", "isyn"):
                if hasattr(layer, state):
                    setattr(layer, state, getattr(layer, state).double())
        whole(data)

    def export() -> Any:
        whole.reset_state()
        return to_nir(whole, torch.as_tensor(inputs[:1, 0]))

    return Case(f"rockpool-{name}", net, inputs, sent, run, export, order="batch_time", **more)


def fc(scale: float) -> list[Any]:
    """The two dense layers."""
    made = []
    for seed, (rows, columns) in enumerate(((8, 12), (12, 6)), 1):
        layer = LinearTorch((rows, columns), has_bias=seed == 1)
        layer.register_forward_pre_hook(lambda module, given: tuple(x.double() for x in given))
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn((rows, columns), generator=generator, dtype=torch.float64)
        layer.weight.data = scale * (weight + 0.4) / rows**0.5
        if seed == 1:
            layer.bias.data = 0.05 * torch.randn(columns, generator=generator, dtype=torch.float64)
        made.append(layer)
    return made


def cuba(seed: int, size: int, **more: Any) -> Any:
    """A layer with a synaptic current."""
    return LIFTorch(
        size,
        tau_mem=between(seed, 4e-3, 2e-2, size),
        tau_syn=between(seed + 1, 2e-3, 1e-2, size, 1),
        threshold=between(seed + 2, 0.5, 1, size),
        bias=more.pop("bias", torch.zeros(size, dtype=torch.float64)),
        **more,
    )


def synaptic(scale: float, dt: float = 1e-3) -> Case:
    """Two layers with synaptic currents."""
    a, b = fc(scale)
    name, net = ("dt", ", dt 0.5 ms") if dt != 1e-3 else ("lif", "")
    net = "Linear 8-12, LIFTorch, Linear 12-6, LIFTorch" + net
    return case(name, net, spikes(31, 8), [a, cuba(1, 12, dt=dt), b, cuba(4, 6, dt=dt)])


def neuron(scale: float) -> Case:
    """A layer without a synaptic current, and one with."""
    a, b = fc(scale)
    layers = [
        a,
        LIFNeuronTorch(
            12, tau_mem=between(1, 4e-3, 2e-2, 12), bias=torch.zeros(12), threshold=between(2, 0.5, 1, 12)
        ),
        b,
        cuba(4, 6),
    ]
    return case("neuron", "Linear 8-12, LIFNeuronTorch, Linear 12-6, LIFTorch", analog(32, 8), layers)


def readout(scale: float) -> Case:
    """A spiking layer and one that never spikes."""
    a, b = fc(scale)
    layers = [a, cuba(1, 12), b, ExpSynTorch(6, tau=between(3, 4e-3, 2e-2, 6))]
    layers[-1].tau.requires_grad_(False)  # else the file cannot be written
    net = "Linear 8-12, LIFTorch, Linear 12-6, ExpSynTorch"
    last = list(whole_of(layers).named_children())[-1][0]
    return case("readout", net, spikes(33, 8), layers, readouts=(last,))


def lost(layer: Any, what: str = "") -> str:
    """Export and write a network; describe its graph."""
    graph = to_nir(Sequential(LinearTorch((8, 6), has_bias=False), layer), torch.zeros((1, 8)))
    written(graph)
    return f"writes {nodes(graph)}{what}"


def cases() -> Cases:
    """Builders of the cases, and attempts that the exporter refuses or does not write whole."""
    bias = LIFTorch(6, bias=torch.full((6,), 0.1))
    failures = [
        ("LIFTorch with recurrent weights", lambda: lost(LIFTorch(6, has_rec=True), "; they are dropped")),
        ("ExpSynTorch as it is made", lambda: lost(ExpSynTorch(6))),
        ("LIFTorch with bias 0.1", lambda: lost(bias, "; v_leak 0, the bias is dropped")),
    ]
    return [synaptic, partial(synaptic, dt=5e-4), neuron, readout], failures
