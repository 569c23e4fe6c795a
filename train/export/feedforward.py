"""Feed-forward networks of this package's layers as NIR graphs, with their contract.

    nn.Linear     Affine with a bias, Linear without        nn.Flatten    Flatten
    Conv2d        Conv2d                                    AvgPool2d     AvgPool2d
    LIF           tau = dt / (1 - beta), r = gain tau / dt
    CubaLIF       tau_syn = dt / (1 - alpha), w_in = tau_syn / dt,
                  tau_mem = dt / (1 - beta), r = tau_mem / dt
    LI            tau = dt / (1 - a), r = 1

so that a forward Euler step of length dt is the module's step. A recurrent layer becomes a cycle
through a Linear node; the edge into it has a logical delay of one step. Neuron parameters are
float64, so that 1 - dt / tau gives the decay back; weights keep their type. A network that computes in a
chip's integers is exported as the float64 numbers that they stand for, with its scales in the contract.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_compile.compiler.contract.contract import Contract, Readout, attach
from snn_compile.targets.errors import ExportError
from snn_compile.train.export.nodes import convolution_node, linear_node, numbers
from snn_compile.train.export.registry import exporter
from snn_compile.train.networks.convolution import AvgPool2d, Conv2d
from snn_compile.train.networks.feedforward import SpikingNetwork
from snn_compile.train.networks.integers import deployed, trained_integers
from snn_compile.train.networks.layers import LI, LIF, CubaLIF, Decay


@dataclass
class _Graph:
    """The graph as it grows; `last` is the node that the next module reads."""

    dt: float
    shape: tuple[int, ...]
    nodes: dict[str, Any]
    last: str = "input"
    edges: list[tuple[str, str]] = field(default_factory=list)
    delays: dict[tuple[str, str], int] = field(default_factory=dict)
    resets: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, node: Any) -> None:
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.last = name


def _holds_neurons(module: nn.Module) -> bool:
    return not isinstance(module, nn.Sequential) or any(
        isinstance(layer, (LIF, CubaLIF, LI)) for layer in module
    )


@exporter(SpikingNetwork, LIF, CubaLIF, LI, nn.Sequential, accepts=_holds_neurons)
def feedforward_to_nir(module: nn.Module, sample_input: Tensor, dt: float | None = None) -> Any:
    """Return the NIR graph, with its contract, of a SpikingNetwork, a layer or an nn.Sequential of layers.

    `sample_input` is what `forward` takes, (batch, steps, *shape); only its shape is used. `dt`
    is the length of a step in seconds; None means one step of no unit. Nodes carry the modules'
    names. Raises ExportError for a module without a counterpart in NIR, weights that are not
    finite, and decays of 1.
    """
    if sample_input.ndim < 3:
        raise ExportError(
            f"the sample input has shape {tuple(sample_input.shape)}; it must be (batch, steps, *shape)",
            shape=tuple(sample_input.shape),
        )
    shape = tuple(sample_input.shape[2:])
    graph = _Graph(dt or 1.0, shape, {"input": nir.Input({"input": np.array(shape)})})
    integers: dict[str, dict[str, Any]] = {}
    readout = Readout("membrane", "mean", "classify")
    if isinstance(module, SpikingNetwork):
        read = module.config
        readout = Readout("membrane", read.readout, read.task, read.skip)
    if isinstance(module, SpikingNetwork) and module.config.integers:
        integers = trained_integers(module.stages(), module.config.integers)
        module = deployed(module, module.stages(), module.config.integers)
    for name, layer in _named_layers(module):
        _add(layer, name, graph)
    graph.add("output", nir.Output({"output": np.array(graph.shape)}))
    result = nir.NIRGraph(nodes=graph.nodes, edges=graph.edges)
    attach(result, replace(_contract(graph, "s" if dt else "step", readout), integers=integers))
    return result


def _named_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    layers = module.layers if isinstance(module, SpikingNetwork) else module
    if not isinstance(layers, nn.Sequential):
        layers = nn.Sequential(layers)
    for name, layer in layers.named_children():
        if name in ("input", "output"):
            raise ExportError(f"a layer is called {name!r}, the name of a graph's end; rename it")
        yield (f"{type(layer).__name__.lower()}_{name}" if name.isdigit() else name), layer


def _contract(graph: _Graph, time_unit: str, readout: Readout) -> Contract:
    resets = sorted(set(graph.resets.values())) or ["value"]
    nodes = {} if len(resets) == 1 else {n: {"reset": reset} for n, reset in graph.resets.items()}
    spiking = isinstance(graph.nodes[graph.edges[-1][0]], (nir.LIF, nir.CubaLIF))
    readout = Readout("spikes", "count", "classify") if spiking else readout
    return Contract(
        dt=graph.dt,
        time_unit=time_unit,
        rule="euler",
        comparison=">",
        reset=resets[0],
        reset_timing="same_step",
        update_order="synapse_first",
        current_decay="before",
        delays=graph.delays,
        readouts={"output": readout},
        nodes=nodes,
    )


@singledispatch
def _add(module: nn.Module, name: str, graph: _Graph) -> None:
    raise ExportError(
        f"{name}: no NIR counterpart for a module of class {type(module).__name__}; "
        "supported are Linear, Conv2d, AvgPool2d, Flatten, LIF, CubaLIF and LI",
        node=name,
        type=type(module).__name__,
    )


@_add.register
def _(module: nn.Linear, name: str, graph: _Graph) -> None:
    if graph.shape != (module.in_features,):
        raise ExportError(
            f"{name}: takes {module.in_features} values and gets {graph.shape}; put an "
            "nn.Flatten(start_dim=2) before it",
            node=name,
        )
    graph.add(name, linear_node(module.weight, module.bias, name))
    graph.shape = (module.out_features,)


@_add.register
def _(module: nn.Flatten, name: str, graph: _Graph) -> None:
    if (module.start_dim, module.end_dim) != (2, -1):
        raise ExportError(
            f"{name}: Flatten(start_dim={module.start_dim}, end_dim={module.end_dim}) "
            "joins samples or steps; use nn.Flatten(start_dim=2)",
            node=name,
        )
    graph.add(name, nir.Flatten({"input": np.array(graph.shape)}, start_dim=0, end_dim=-1))
    graph.shape = (int(np.prod(graph.shape)),)


@_add.register
def _(module: Conv2d, name: str, graph: _Graph) -> None:
    _check_image(name, graph, module.in_channels)
    if module.padding_mode != "zeros":
        raise ExportError(f"{name}: pads by {module.padding_mode}; NIR pads by zeros", node=name)
    settings = {key: getattr(module, key) for key in ("stride", "padding", "dilation", "groups")}
    node = convolution_node(module.weight, module.bias, graph.shape, settings, name)
    graph.add(name, node)
    graph.shape = tuple(int(n) for n in node.output_type["output"])


@_add.register
def _(module: AvgPool2d, name: str, graph: _Graph) -> None:
    _check_image(name, graph, None)
    if module.ceil_mode or not module.count_include_pad or module.divisor_override is not None:
        raise ExportError(
            f"{name}: ceil_mode, count_include_pad=False and divisor_override have no NIR counterpart",
            node=name,
        )
    size, stride, padding = (
        np.broadcast_to(np.array(n), (2,)) for n in (module.kernel_size, module.stride, module.padding)
    )
    room = graph.shape[1:] + 2 * padding - size
    if min(*size, *stride) < 1 or min(*padding, *room) < 0 or (2 * padding > size).any():
        raise ExportError(
            f"{name}: a window of {size.tolist()}, stride {stride.tolist()} and padding {padding.tolist()} "
            f"does not fit {graph.shape[1:]} values",
            node=name,
        )
    graph.add(name, nir.AvgPool2d(kernel_size=size.copy(), stride=stride.copy(), padding=padding.copy()))
    places = (room // stride + 1).tolist()
    graph.shape = (graph.shape[0], *places)


def _check_image(name: str, graph: _Graph, channels: int | None) -> None:
    if len(graph.shape) != 3 or channels not in (None, graph.shape[0]):
        raise ExportError(
            f"{name}: takes (channels, height, width), with {channels or 'any'} channels, and gets "
            f"{graph.shape}",
            node=name,
        )


@_add.register
def _(module: LIF, name: str, graph: _Graph) -> None:
    _check_size(module, name, graph)
    tau = _time_constant(module.beta, name, graph)
    gain = np.full(module.shape, module.gain)
    _add_spiking(module, name, graph, nir.LIF(tau=tau, r=gain * tau / graph.dt, **_firing(module)))


@_add.register
def _(module: CubaLIF, name: str, graph: _Graph) -> None:
    _check_size(module, name, graph)
    tau_syn = _time_constant(module.alpha, name, graph)
    tau_mem = _time_constant(module.beta, name, graph)
    _add_spiking(
        module,
        name,
        graph,
        nir.CubaLIF(
            tau_syn=tau_syn, tau_mem=tau_mem, r=tau_mem / graph.dt, w_in=tau_syn / graph.dt, **_firing(module)
        ),
    )


@_add.register
def _(module: LI, name: str, graph: _Graph) -> None:
    _check_size(module, name, graph)
    tau = _time_constant(module.decay, name, graph)
    graph.add(name, nir.LI(tau=tau, r=np.ones(module.shape), v_leak=np.zeros(module.shape)))


def _add_spiking(module: LIF | CubaLIF, name: str, graph: _Graph, node: Any) -> None:
    graph.add(name, node)
    graph.resets[name] = module.firing.reset
    if module.recurrent is not None:
        back = f"{name}_recurrent"
        graph.nodes[back] = linear_node(module.recurrent.weight, None, back)
        graph.edges += [(name, back), (back, name)]
        graph.delays[name, back] = 1


def _check_size(module: LIF | CubaLIF | LI, name: str, graph: _Graph) -> None:
    if graph.shape != module.shape:
        raise ExportError(f"{name}: has {module.size} neurons and gets {graph.shape}", node=name)


def _time_constant(decay: Decay, name: str, graph: _Graph) -> NDArray[np.float64]:
    factor = numbers(decay(), name, "decay").astype(np.float64)
    factor = np.broadcast_to(factor if factor.ndim == 0 else factor.reshape(graph.shape), graph.shape)
    if (factor >= 1).any():
        raise ExportError(f"{name}: a decay is {factor.max()}; it must be below 1", node=name)
    return np.asarray(graph.dt / (1.0 - factor))


def _firing(module: LIF | CubaLIF) -> Mapping[str, NDArray[np.float64]]:
    return {
        "v_leak": np.zeros(module.shape),
        "v_reset": np.zeros(module.shape),
        "v_threshold": np.full(module.shape, float(module.firing.threshold)),
    }
