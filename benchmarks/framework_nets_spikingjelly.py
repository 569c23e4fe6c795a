"""SpikingJelly: multi-step layers, (steps, batch, ...); see `framework_files.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from framework_nets import Case, Cases, analog, drawn, nodes, spikes, written
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.nir_exchange import export_to_nir
from torch import nn


def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
    """Return the case of layers in a row."""
    whole = nn.Sequential(*layers).double()
    functional.set_step_mode(whole, "m")
    sent = {str(i): m for i, m in enumerate(layers) if isinstance(m, neuron.BaseNode)}

    def run(data: Any) -> None:
        functional.reset_net(whole)
        whole(data.swapaxes(0, 1))

    def export() -> Any:
        functional.reset_net(whole)
        return export_to_nir(whole, torch.as_tensor(inputs).swapaxes(0, 1))

    return Case(f"spikingjelly-{name}", net, inputs, sent, run, export, order="time_batch", **more)


def fc(scale: float) -> list[Any]:
    """The two dense layers."""
    return drawn(scale, layer.Linear(8, 12), layer.Linear(12, 6, bias=False))


def lif(scale: float, decay_input: bool = False) -> Case:
    """Two layers of LIF."""
    a, b = fc(scale)
    first = neuron.LIFNode(tau=3.5, decay_input=decay_input, v_threshold=0.8)
    second = neuron.LIFNode(tau=6.0, decay_input=decay_input)
    return case(
        "lif-decay-input" if decay_input else "lif",
        f"Linear 8-12, LIFNode, Linear 12-6, LIFNode, decay_input {decay_input}",
        spikes(21, 8), [a, first, b, second], known={"dt": 1e-4} if decay_input else {},
    )  # fmt: skip


def reset(scale: float) -> Case:
    """Resets to other values than 0."""
    a, b = fc(scale)
    layers = [
        a,
        neuron.LIFNode(tau=4.0, v_reset=0.6),
        b,
        neuron.CUBALIFNode(v_reset=0.2, v_threshold=3.0, c_decay=0.6, v_decay=0.7),
    ]
    net = "Linear 8-12, LIFNode with v_reset 0.6, Linear 12-6, CUBALIFNode with v_reset 0.2"
    return case("v-reset", net, analog(22, 8), layers)


def cuba(scale: float) -> Case:
    """A layer with a synaptic current."""
    a, b = fc(scale)
    layers = [
        a,
        neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75),
        b,
        neuron.CUBALIFNode(c_decay=0.3, v_decay=0.9),
    ]
    return case("cuba", "Linear 8-12, CUBALIFNode, Linear 12-6, CUBALIFNode", spikes(23, 8), layers)


def conv(scale: float) -> Case:
    """A convolutional network."""
    a, b, c = drawn(scale, layer.Conv2d(2, 3, 3, padding=1), layer.Conv2d(3, 4, 3), layer.Linear(16, 5))
    layers = [
        a, neuron.IFNode(), layer.AvgPool2d(2), b, neuron.IFNode(v_threshold=0.6),
        layer.Flatten(), c, neuron.IFNode(v_threshold=0.9),
    ]  # fmt: skip
    net = "Conv2d, IFNode, AvgPool2d, Conv2d, IFNode, Flatten, Linear 16-5, IFNode"
    return case("conv", net, spikes(24, 2, 8, 8), layers)


def lost(*layers: Any, shape: tuple[int, ...] = (4, 1, 8)) -> str:
    """Export and write a network; describe its graph."""
    whole = nn.Sequential(*layers).double()
    functional.set_step_mode(whole, "m")
    graph = export_to_nir(whole, torch.zeros(shape, dtype=torch.float64))
    written(graph)
    return "writes " + nodes(graph)


def cases() -> Cases:
    """Builders of the cases, and attempts that the exporter refuses or does not write whole."""
    elementwise = layer.ElementWiseRecurrentContainer(neuron.LIFNode(), lambda x, y: x + y)
    failures = [
        ("soft reset (v_reset None)", lambda: lost(layer.Linear(8, 4), neuron.LIFNode(v_reset=None))),
        ("ElementWiseRecurrentContainer", lambda: lost(layer.Linear(8, 4), elementwise)),
        ("MaxPool2d", lambda: lost(layer.MaxPool2d(2), neuron.IFNode(), shape=(4, 1, 2, 4, 4))),
    ]
    return [lif, partial(lif, decay_input=True), reset, cuba, conv], failures
