"""Sinabs: layers that take (batch, steps, ...), and the squeezed ones; see `framework_files.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import sinabs.activation as act
import sinabs.layers as sl
import torch
from framework_nets import BATCH, Case, Cases, analog, between, drawn, nodes, spikes, written
from sinabs.nir import to_nir
from torch import nn


def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
    """Return the case of layers in a row."""
    whole = nn.Sequential(*layers)
    squeezed = more.get("order") == "squeezed"
    sent = {str(i): m for i, m in enumerate(layers) if isinstance(m, sl.StatefulLayer)}

    def run(data: Any) -> None:
        for layer in sent.values():
            layer.reset_states()
        whole(data.reshape(-1, *data.shape[2:]) if squeezed else data)

    def export() -> Any:
        data = torch.as_tensor(inputs)
        run(data)
        graph = to_nir(whole, data[0] if squeezed else data[:1, :1])
        if squeezed:
            graph.infer_types()  # the exporter leaves convolutions without an input shape
        return graph

    more.setdefault("order", "batch_time")
    return Case(f"sinabs-{name}", net, inputs, sent, run, export, **more)


def lif(scale: float, name: str = "lif", more: str = "", known: Any = None, **options: Any) -> Case:
    """Two layers of LIF."""
    a, b = drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))
    first = sl.LIF(between(1, 3, 20, 12), spike_threshold=between(2, 0.5, 1, 12), **options).double()
    second = sl.LIF(between(3, 3, 20, 6), spike_threshold=between(4, 0.5, 1, 6), **options).double()
    net = "Linear 8-12, LIF, Linear 12-6, LIF" + more
    return case(name, net, spikes(11, 8), [a, first, b, second], known=known or {}, least=0.12)


def readout(scale: float) -> Case:
    """A spiking layer and one that never spikes."""
    a, b = drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))
    first = sl.LIF(between(1, 3, 20, 12), spike_threshold=between(2, 0.5, 1, 12)).double()
    layers = [a, first, b, sl.ExpLeak(between(3, 3, 20, 6)).double()]
    net = "Linear 8-12, LIF, Linear 12-6, ExpLeak"
    return case("readout", net, spikes(12, 8), layers, readouts=("3",))


def iaf(scale: float) -> Case:
    """Neurons that integrate."""
    a, b = drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))
    clip = {"min_v_mem": -1.0}
    layers = [a, sl.IAF(**clip).double(), b, sl.IAF(torch.tensor(0.7), **clip).double()]
    net = "Linear 8-12, IAF, Linear 12-6, IAF, membranes clipped at -1"
    return case("iaf", net, analog(13, 8), layers, known={"v_min": -1.0}, least=0.15)


def conv(scale: float) -> Case:
    """A convolutional network."""
    one = {"spike_fn": act.SingleSpike, "batch_size": BATCH}
    a, b, c = drawn(
        scale, nn.Conv2d(2, 3, 3, stride=2), nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(4, 5)
    )
    layers = [
        a, sl.IAFSqueeze(**one).double(), b, sl.IAFSqueeze(**one).double(),
        sl.SumPool2d((2, 2)), nn.Flatten(), c, sl.IAFSqueeze(**one).double(),
    ]  # fmt: skip
    net = "Conv2d stride 2, IAF, Conv2d, IAF, SumPool2d, Flatten, Linear 4-5, IAF, single spikes"
    known = {"spikes_per_step": "one"}
    return case("conv", net, spikes(14, 2, 6, 6), layers, order="squeezed", known=known)


def lost(*layers: Any) -> str:
    """Export and write a network; describe its graph."""
    torch.set_default_dtype(torch.float32)
    whole, data = nn.Sequential(*layers).float(), torch.zeros((1, 4, 8))
    whole(data)
    graph = to_nir(whole, data)
    written(graph)
    return "writes " + nodes(graph)


def cases() -> Cases:
    """Builders of the cases, and attempts that the exporter refuses or does not write whole."""
    recurrent = sl.LIFRecurrent(10.0, rec_connect=nn.Linear(8, 8))
    failures = [
        ("LIFRecurrent", lambda: lost(nn.Linear(8, 8), recurrent)),
        ("LIF with tau by neuron and the default threshold", lambda: lost(sl.LIF(torch.full((8,), 10.0)))),
        (
            "LIF with tau_syn",
            lambda: lost(nn.Linear(8, 4), sl.LIF(10.0, tau_syn=5.0)) + "; tau_syn is dropped",
        ),
        ("AvgPool2d", lambda: lost(nn.AvgPool2d(1), nn.Linear(8, 4), sl.LIF(10.0))),
    ]
    single = {"spike_fn": act.SingleSpike, "reset_fn": act.MembraneReset()}
    words = {"spikes_per_step": "one", "reset": "value"}
    return [
        lif,
        partial(lif, name="plain-input", more=", norm_input False", known={"gain": "unit"}, norm_input=False),
        partial(lif, name="zero", more=", single spikes, reset to zero", known=words, **single),
        readout,
        iaf,
        conv,
    ], failures
