"""The random networks that `framework_files.py` asks each framework to build, run and export.

Every function returns the builders of its cases, each a function of the scale of the weights, and a list
of (network, attempt) that the released exporter refuses or does not write whole.
"""

from __future__ import annotations

import io
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
    dtype: str = "float64"


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
        return case(
            "lif", "Linear 8-12, LIFBox, Linear 12-6, LIFBox", spikes(1, 8), [a, box(1, 12), b, box(3, 6)]
        )

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
        return case(
            "readout", "Linear 8-12, LIFBox, Linear 12-6, LIBox", spikes(5, 8), layers, readouts=("3",)
        )

    def lost(*layers: Any, shape: tuple[int, ...] = (1, 8)) -> str:
        whole = n.SequentialState(*layers).double()
        graph = to_nir(whole, torch.zeros(shape, dtype=torch.float64))
        written(graph)
        return "writes " + nodes(graph)

    image = (1, 2, 4, 4)

    failures = [
        ("LIFRecurrentCell", lambda: lost(nn.Linear(8, 4), n.LIFRecurrentCell(4, 4))),
        ("AvgPool2d", lambda: lost(nn.AvgPool2d(2), nn.Conv2d(2, 3, 2), box(1, 1), shape=image)),
        ("Flatten", lambda: lost(nn.Flatten(), nn.Linear(32, 4), box(1, 4), shape=image)),
        ("Conv2d", lambda: lost(nn.Conv2d(2, 3, 3), box(1, 1), shape=image)),
        ("Conv2d without bias", lambda: lost(nn.Conv2d(2, 3, 3, bias=False), box(1, 1), shape=image)),
    ]
    return [lif, leak, synaptic, integrate, readout], failures


def sinabs() -> Cases:
    """Sinabs: layers that take (batch, steps, ...), and the squeezed ones for convolutions."""
    import sinabs.activation as act
    import sinabs.layers as sl
    from sinabs.nir import to_nir

    def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
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
        a, b = drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))
        first = sl.LIF(between(1, 3, 20, 12), spike_threshold=between(2, 0.5, 1, 12), **options).double()
        second = sl.LIF(between(3, 3, 20, 6), spike_threshold=between(4, 0.5, 1, 6), **options).double()
        net = "Linear 8-12, LIF, Linear 12-6, LIF" + more
        return case(name, net, spikes(11, 8), [a, first, b, second], known=known or {})

    def readout(scale: float) -> Case:
        a, b = drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))
        first = sl.LIF(between(1, 3, 20, 12), spike_threshold=between(2, 0.5, 1, 12)).double()
        layers = [a, first, b, sl.ExpLeak(between(3, 3, 20, 6)).double()]
        net = "Linear 8-12, LIF, Linear 12-6, ExpLeak"
        return case("readout", net, spikes(12, 8), layers, readouts=("3",))

    def iaf(scale: float) -> Case:
        a, b = drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6))
        clip = {"min_v_mem": -1.0}
        layers = [a, sl.IAF(**clip).double(), b, sl.IAF(torch.tensor(0.7), **clip).double()]
        net = "Linear 8-12, IAF, Linear 12-6, IAF, membranes clipped at -1"
        return case("iaf", net, analog(13, 8), layers, known={"v_min": -1.0})

    def conv(scale: float) -> Case:
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
        torch.set_default_dtype(torch.float32)
        whole, data = nn.Sequential(*layers).float(), torch.zeros((1, 4, 8))
        whole(data)
        graph = to_nir(whole, data)
        written(graph)
        return "writes " + nodes(graph)

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


def spikingjelly() -> Cases:
    """SpikingJelly: multi-step layers, (steps, batch, ...)."""
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
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
        return drawn(scale, layer.Linear(8, 12), layer.Linear(12, 6, bias=False))

    def lif(scale: float, decay_input: bool = False) -> Case:
        a, b = fc(scale)
        first = neuron.LIFNode(tau=3.5, decay_input=decay_input, v_threshold=0.8)
        second = neuron.LIFNode(tau=6.0, decay_input=decay_input)
        return case(
            "lif-decay-input" if decay_input else "lif",
            f"Linear 8-12, LIFNode, Linear 12-6, LIFNode, decay_input {decay_input}",
            spikes(21, 8), [a, first, b, second], known={"dt": 1e-4} if decay_input else {},
        )  # fmt: skip

    def reset(scale: float) -> Case:
        a, b = fc(scale)
        layers = [
            a,
            neuron.LIFNode(tau=4.0, v_reset=-0.3),
            b,
            neuron.CUBALIFNode(v_reset=0.2, v_threshold=3.0, c_decay=0.6, v_decay=0.7),
        ]
        net = "Linear 8-12, LIFNode with v_reset -0.3, Linear 12-6, CUBALIFNode with v_reset 0.2"
        return case("v-reset", net, analog(22, 8), layers)

    def cuba(scale: float) -> Case:
        a, b = fc(scale)
        layers = [
            a,
            neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75),
            b,
            neuron.CUBALIFNode(c_decay=0.3, v_decay=0.9),
        ]
        return case("cuba", "Linear 8-12, CUBALIFNode, Linear 12-6, CUBALIFNode", spikes(23, 8), layers)

    def conv(scale: float) -> Case:
        a, b, c = drawn(scale, layer.Conv2d(2, 3, 3, padding=1), layer.Conv2d(3, 4, 3), layer.Linear(16, 5))
        layers = [
            a, neuron.IFNode(), layer.AvgPool2d(2), b, neuron.IFNode(v_threshold=0.6),
            layer.Flatten(), c, neuron.IFNode(v_threshold=0.9),
        ]  # fmt: skip
        net = "Conv2d, IFNode, AvgPool2d, Conv2d, IFNode, Flatten, Linear 16-5, IFNode"
        return case("conv", net, spikes(24, 2, 8, 8), layers)

    def lost(*layers: Any, shape: tuple[int, ...] = (4, 1, 8)) -> str:
        whole = nn.Sequential(*layers).double()
        functional.set_step_mode(whole, "m")
        graph = export_to_nir(whole, torch.zeros(shape, dtype=torch.float64))
        written(graph)
        return "writes " + nodes(graph)

    elementwise = layer.ElementWiseRecurrentContainer(neuron.LIFNode(), lambda x, y: x + y)
    failures = [
        ("soft reset (v_reset None)", lambda: lost(layer.Linear(8, 4), neuron.LIFNode(v_reset=None))),
        ("ElementWiseRecurrentContainer", lambda: lost(layer.Linear(8, 4), elementwise)),
        ("MaxPool2d", lambda: lost(layer.MaxPool2d(2), neuron.IFNode(), shape=(4, 1, 2, 4, 4))),
    ]
    return [lif, partial(lif, decay_input=True), reset, cuba, conv], failures


def rockpool() -> Cases:
    """Rockpool: torch modules that take (batch, steps, channels) and return (output, state, record)."""
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules.torch import ExpSynTorch, LIFNeuronTorch, LIFTorch, LinearTorch
    from rockpool.nn.modules.torch.nir import to_nir

    def whole_of(layers: list[Any]) -> Any:
        for layer in layers:  # rockpool draws in float32 and keeps what it is given
            for name, value in list(layer.named_parameters()):
                getattr(layer, name).data = value.data.double()
        return Sequential(*layers)

    def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
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
        return LIFTorch(
            size,
            tau_mem=between(seed, 4e-3, 2e-2, size),
            tau_syn=between(seed + 1, 2e-3, 1e-2, size, 1),
            threshold=between(seed + 2, 0.5, 1, size),
            bias=more.pop("bias", torch.zeros(size, dtype=torch.float64)),
            **more,
        )

    def synaptic(scale: float, dt: float = 1e-3) -> Case:
        a, b = fc(scale)
        name, net = ("dt", ", dt 0.5 ms") if dt != 1e-3 else ("lif", "")
        net = "Linear 8-12, LIFTorch, Linear 12-6, LIFTorch" + net
        return case(name, net, spikes(31, 8), [a, cuba(1, 12, dt=dt), b, cuba(4, 6, dt=dt)])

    def neuron(scale: float) -> Case:
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
        a, b = fc(scale)
        layers = [a, cuba(1, 12), b, ExpSynTorch(6, tau=between(3, 4e-3, 2e-2, 6))]
        layers[-1].tau.requires_grad_(False)  # else the file cannot be written
        net = "Linear 8-12, LIFTorch, Linear 12-6, ExpSynTorch"
        last = list(whole_of(layers).named_children())[-1][0]
        return case("readout", net, spikes(33, 8), layers, readouts=(last,))

    def lost(layer: Any, what: str = "") -> str:
        graph = to_nir(Sequential(LinearTorch((8, 6), has_bias=False), layer), torch.zeros((1, 8)))
        written(graph)
        return f"writes {nodes(graph)}{what}"

    bias = LIFTorch(6, bias=torch.full((6,), 0.1))
    failures = [
        ("LIFTorch with recurrent weights", lambda: lost(LIFTorch(6, has_rec=True), "; they are dropped")),
        ("ExpSynTorch as it is made", lambda: lost(ExpSynTorch(6))),
        ("LIFTorch with bias 0.1", lambda: lost(bias, "; v_leak 0, the bias is dropped")),
    ]
    return [synaptic, partial(synaptic, dt=5e-4), neuron, readout], failures


def snntorch() -> Cases:
    """snnTorch: modules with hidden states, stepped by hand."""
    import snntorch as snn
    from snntorch import utils
    from snntorch.export_nir import export_to_nir

    def case(name: str, net: str, inputs: Any, layers: list[Any], **more: Any) -> Case:
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
        return drawn(scale, nn.Linear(8, 12), nn.Linear(12, 6, bias=False))

    def leaky(scale: float, mechanism: str = "subtract", reset_delay: bool = True) -> Case:
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
        a, b = fc(scale)
        options = {"init_hidden": True, "reset_mechanism": mechanism}
        layers = [
            a, snn.Synaptic(between(1, 0.3, 0.8, 12), between(2, 0.6, 0.95, 12), between(3, 0.5, 1, 12), **options),
            b, snn.Synaptic(between(4, 0.3, 0.8, 6), between(5, 0.6, 0.95, 6), between(6, 0.5, 1, 6), **options),
        ]  # fmt: skip
        net = f"Linear 8-12, Synaptic, Linear 12-6, Synaptic, reset {mechanism}"
        return case(f"synaptic-{mechanism}", net, spikes(42, 8), layers, known={"reset": RESETS[mechanism]})

    def rleaky(scale: float, mechanism: str = "subtract", synapse: bool = False) -> Case:
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
        graph = export_to_nir(nn.Sequential(*layers), torch.zeros(shape), ignore_dims=[0])
        written(graph)
        return "writes " + nodes(graph)

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
