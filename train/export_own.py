"""Networks of ours as NIR graphs, with the contract that says how their numbers are stepped.

    nn.Linear     Affine with a bias, Linear without        nn.Flatten    Flatten
    LIF           tau = dt / (1 - beta), r = gain tau / dt
    CubaLIF       tau_syn = dt / (1 - alpha), w_in = tau_syn / dt,
                  tau_mem = dt / (1 - beta), r = tau_mem / dt
    LI            tau = dt / (1 - a), r = 1

so that a forward Euler step of length dt is the module's step. A recurrent layer becomes a cycle
through a Linear node; the edge into it has a logical delay of one step. Neuron parameters are
float64, so that 1 - dt / tau gives the decay back; weights keep their type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_compile.compiler.conventions import Contract, Readout, attach
from snn_compile.targets.errors import ExportError
from snn_compile.train.networks import SpikingNetwork
from snn_compile.train.neurons import LI, LIF, CubaLIF, Decay


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


def own_to_nir(module: nn.Module, sample_input: Tensor, dt: float | None = None) -> Any:
    """Return the NIR graph of a SpikingNetwork or an nn.Sequential of our layers, and contract.

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
    for name, layer in _named_layers(module):
        _add(layer, name, graph)
    graph.add("output", nir.Output({"output": np.array(graph.shape)}))
    result = nir.NIRGraph(nodes=graph.nodes, edges=graph.edges)
    attach(result, _contract(graph, "s" if dt else "step"))
    return result


def is_own(module: nn.Module) -> bool:
    """Whether a module is a network of our layers, which runs over all steps at once."""
    if isinstance(module, (SpikingNetwork, LIF, CubaLIF, LI)):
        return True
    return isinstance(module, nn.Sequential) and any(
        isinstance(layer, (LIF, CubaLIF, LI)) for layer in module
    )


def _named_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    layers = module.layers if isinstance(module, SpikingNetwork) else module
    if not isinstance(layers, nn.Sequential):
        layers = nn.Sequential(layers)
    for name, layer in layers.named_children():
        if name in ("input", "output"):
            raise ExportError(f"a layer is called {name!r}, the name of a graph's end; rename it")
        yield (f"{type(layer).__name__.lower()}_{name}" if name.isdigit() else name), layer


def _contract(graph: _Graph, time_unit: str) -> Contract:
    resets = sorted(set(graph.resets.values())) or ["value"]
    nodes = {} if len(resets) == 1 else {n: {"reset": reset} for n, reset in graph.resets.items()}
    spiking = isinstance(graph.nodes[graph.edges[-1][0]], (nir.LIF, nir.CubaLIF))
    readout = Readout("spikes", "count", "classify") if spiking else Readout("membrane", "mean", "classify")
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
        "supported are Linear, Flatten, LIF, CubaLIF and LI",
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
    graph.add(name, _projection(module, name))
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
def _(module: LIF, name: str, graph: _Graph) -> None:
    tau = _time_constant(module.beta, name, graph)
    gain = np.full(module.size, module.gain)
    _add_spiking(module, name, graph, nir.LIF(tau=tau, r=gain * tau / graph.dt, **_firing(module)))


@_add.register
def _(module: CubaLIF, name: str, graph: _Graph) -> None:
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
    graph.add(name, nir.LI(tau=tau, r=np.ones(module.size), v_leak=np.zeros(module.size)))


def _add_spiking(module: LIF | CubaLIF, name: str, graph: _Graph, node: Any) -> None:
    _check_size(module, name, graph)
    graph.add(name, node)
    graph.resets[name] = module.firing.reset
    if module.recurrent is not None:
        back = f"{name}_recurrent"
        graph.nodes[back] = _projection(module.recurrent, back)
        graph.edges += [(name, back), (back, name)]
        graph.delays[name, back] = 1


def _check_size(module: LIF | CubaLIF | LI, name: str, graph: _Graph) -> None:
    if graph.shape != (module.size,):
        raise ExportError(f"{name}: has {module.size} neurons and gets {graph.shape}", node=name)


def _projection(module: nn.Linear, name: str) -> Any:
    weight = _array(module.weight, name, "weight")
    if module.bias is None:
        return nir.Linear(weight=weight)
    return nir.Affine(weight=weight, bias=_array(module.bias, name, "bias"))


def _time_constant(decay: Decay, name: str, graph: _Graph) -> NDArray[np.float64]:
    size = graph.shape[0]
    factor = np.broadcast_to(_array(decay(), name, "decay").astype(np.float64), (size,))
    if (factor >= 1).any():
        raise ExportError(f"{name}: a decay is {factor.max()}; it must be below 1", node=name)
    return np.asarray(graph.dt / (1.0 - factor))


def _firing(module: LIF | CubaLIF) -> Mapping[str, NDArray[np.float64]]:
    return {
        "v_leak": np.zeros(module.size),
        "v_reset": np.zeros(module.size),
        "v_threshold": np.full(module.size, float(module.firing.threshold)),
    }


def _array(tensor: Tensor, name: str, what: str) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy().copy()
    if not np.isfinite(array).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ExportError(f"{name}: {what}{where} is {array[tuple(where)]}; it must be finite", node=name)
    return array
