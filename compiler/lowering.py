"""NIR graph to Network: the contract applied, one function a node type.

A node is either a neuron (it becomes a population) or linear (it is multiplied into the projections that
pass through it). Equations are those of NIR's nodes; with a = dt/tau (rule "euler") or 1 - exp(-dt/tau)
("exponential"):

    LIF      voltage_decay a, gain r a, bias v_leak a
    CubaLIF  current_decay a_syn, voltage_decay a_mem, gain w_in a_syn r a_mem, bias v_leak a_mem
    LI       as LIF, without a threshold
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from math import prod
from typing import Any

import nir
import numpy as np

from snn_compile.compiler.conventions import Contract, Readout, graph_digest, resolve
from snn_compile.compiler.frontends import read_graph
from snn_compile.compiler.network import Float, Network, Population, Port, Projection
from snn_compile.targets.errors import CompileError, UnsupportedNode

SUPPORTED = "Input, Output, Affine, Linear, Flatten, LIF, CubaLIF, LI"


def lower(graph_or_path: Any, conventions: Mapping[str, Any] | None = None) -> Network:
    """Return the Network that a NIR graph (or a `.nir` file) means.

    `conventions` answers what the file leaves open, for example {"dt": 1e-4, "reset": "subtract",
    "reset_timing": "same_step"}. Raises AmbiguousConvention if something stays open, UnsupportedNode,
    and CompileError on shapes that do not fit, values that are not finite, or contracts not supported.
    """
    if isinstance(graph_or_path, Network):
        return graph_or_path
    graph = read_graph(graph_or_path) if isinstance(graph_or_path, (str, os.PathLike)) else graph_or_path
    contract, decided = resolve(graph, conventions)
    return _Lowering(graph, contract, decided).network()


@dataclass(frozen=True, eq=False)
class Neuron:
    """A neuron node lowered: its population and the gain of its synaptic input, (1,) or (size,)."""

    population: Population
    gain: Float


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear node lowered: y = weight @ x + bias; weight None is the identity."""

    weight: Float | None
    bias: Float | None = None


@singledispatch
def lower_node(node: Any, name: str, contract: Contract) -> Neuron | Linear:
    """Return what a NIR node means under a contract."""
    raise UnsupportedNode(
        f"node {name!r} is a {type(node).__name__}; supported are {SUPPORTED}",
        node=name,
        type=type(node).__name__,
    )


def _share(tau: Any, contract: Contract, name: str) -> Float:
    """Return the share lost a step for a time constant in the contract's unit."""
    values = np.asarray(tau, np.float64).reshape(-1)
    if not (values > 0).all():
        raise CompileError(
            f"node {name!r}: a time constant of {values[~(values > 0)][0]:g}; it must be positive", node=name
        )
    ratio = contract.dt / values
    return ratio if contract.rule == "euler" else -np.expm1(-ratio)


def _population(
    node: Any, name: str, contract: Contract, model: str, current_decay: Float, voltage_decay: Float
) -> Population:
    _refuse_unsupported(name, contract)
    flat = {
        key: np.asarray(getattr(node, key), np.float64).reshape(-1)
        for key in ("v_leak", "v_reset", "v_threshold")
        if hasattr(node, key)
    }
    # Shifting v by v_reset makes every reset to a value a reset to 0.
    offset = flat["v_reset"] if model == "lif" and contract.reset == "value" else np.zeros(1)
    parameters = {
        "current_decay": current_decay,
        "voltage_decay": voltage_decay,
        "bias": (flat["v_leak"] - offset) * voltage_decay,
        "input_bias": np.zeros(1),
        "v_init": _initial(contract, flat) - offset,
        "offset": offset,
    }
    if model == "lif":
        parameters["threshold"] = flat["v_threshold"] - offset
    shape = tuple(int(n) for n in np.shape(node.v_leak)) or (1,)
    return Population(name, shape, model, parameters, contract.reset, contract.comparison)


def _initial(contract: Contract, flat: Mapping[str, Float]) -> Float:
    if isinstance(contract.v_init, str):
        if contract.v_init not in flat:
            raise CompileError(f"contract: v_init is {contract.v_init!r}; use a number, v_leak or v_reset")
        return flat[contract.v_init]
    return np.array([float(contract.v_init)])


def _refuse_unsupported(name: str, contract: Contract) -> None:
    runs = {
        "reset_timing": "same_step",
        "update_order": "synapse_first",
        "current_decay": "before",
        "spikes_per_step": "one",
        "v_min": None,
    }
    for item, value in runs.items():
        if getattr(contract, item) != value:
            raise UnsupportedNode(
                f"node {name!r}: {item} {getattr(contract, item)!r} is not supported; {value!r} is",
                node=name,
                item=item,
            )


@lower_node.register
def _(node: nir.LIF, name: str, contract: Contract) -> Neuron:
    decay = _share(node.tau, contract, name)
    population = _population(node, name, contract, "lif", np.ones(1), decay)
    return Neuron(population, np.asarray(node.r, np.float64).reshape(-1) * decay)


@lower_node.register
def _(node: nir.CubaLIF, name: str, contract: Contract) -> Neuron:
    synapse = _share(node.tau_syn, contract, name)
    membrane = _share(node.tau_mem, contract, name)
    gain = (
        np.asarray(node.w_in, np.float64).reshape(-1)
        * synapse
        * np.asarray(node.r, np.float64).reshape(-1)
        * membrane
    )
    return Neuron(_population(node, name, contract, "lif", synapse, membrane), gain)


@lower_node.register
def _(node: nir.LI, name: str, contract: Contract) -> Neuron:
    decay = _share(node.tau, contract, name)
    population = _population(node, name, contract, "li", np.ones(1), decay)
    return Neuron(population, np.asarray(node.r, np.float64).reshape(-1) * decay)


@lower_node.register
def _(node: nir.Affine, name: str, contract: Contract) -> Linear:
    weight, bias = _matrix(node.weight, name), _finite(node.bias, "bias", name).reshape(-1)
    if bias.size != weight.shape[0]:
        raise CompileError(
            f"node {name!r}: a bias of {bias.size} values and a weight of shape {weight.shape}", node=name
        )
    return Linear(weight, bias)


@lower_node.register
def _(node: nir.Linear, name: str, contract: Contract) -> Linear:
    return Linear(_matrix(node.weight, name))


@lower_node.register
def _(node: nir.Flatten, name: str, contract: Contract) -> Linear:
    return Linear(None)  # neurons are flat in C order already


def _finite(value: Any, what: str, name: str) -> Float:
    array = np.asarray(value, np.float64)
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CompileError(
            f"node {name!r}: its {what} holds {array[first]} at index {first}; every value must be finite",
            node=name,
            index=first,
        )
    return array


def _matrix(weight: Any, name: str) -> Float:
    matrix = _finite(weight, "weight", name)
    if matrix.ndim != 2:
        raise CompileError(f"node {name!r}: a weight of shape {matrix.shape}; expected (out, in)", node=name)
    return matrix


@dataclass(eq=False)
class _Sum:
    """A linear expression: weights by (source, delay, path), and a constant."""

    terms: dict[tuple[str, int, tuple[str, ...]], Float | None]
    constant: Float | None = None


class _Lowering:
    """One walk over a graph: neurons first, then what arrives at each of them."""

    def __init__(self, graph: Any, contract: Contract, decided: Mapping[str, str]) -> None:
        self.contract, self.decided, self.digest = contract, decided, graph_digest(graph)
        self.nodes = dict(graph.nodes)
        self.sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in graph.edges:
            if source not in self.nodes or target not in self.nodes:
                raise CompileError(f"edge {source!r} -> {target!r}: there is no such node")
            self.sources[target].append(source)
        self._check_names()
        self.inputs = [n for n, node in self.nodes.items() if isinstance(node, nir.Input)]
        outputs = [n for n, node in self.nodes.items() if isinstance(node, nir.Output)]
        self.outputs = outputs
        self.lowered = {
            name: lower_node(node, name, contract.of(name))
            for name, node in self.nodes.items()
            if name not in (*self.inputs, *outputs)
        }
        self.sizes = {name: prod(self._shape(name)) for name in self.inputs}
        self.sizes |= {
            name: item.population.size for name, item in self.lowered.items() if isinstance(item, Neuron)
        }

    def _check_names(self) -> None:
        """Refuse a contract that names what the graph does not have: it would say nothing."""
        delays = {f"{a} -> {b}": b in self.sources and a in self.sources[b] for a, b in self.contract.delays}
        for item, named in (
            ("delays", delays),
            ("nodes", {name: name in self.nodes for name in self.contract.nodes}),
            ("readouts", {name: name in self.nodes for name in self.contract.readouts}),
        ):
            if unknown := sorted(name for name, there in named.items() if not there):
                what = "edges" if item == "delays" else "nodes"
                raise CompileError(
                    f"contract: {item} name {what} the graph does not have: {', '.join(unknown)}"
                )

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in np.atleast_1d(self.nodes[name].input_type["input"]))

    def network(self) -> Network:
        populations, projections = [], []
        for name, item in self.lowered.items():
            if not isinstance(item, Neuron):
                continue
            arriving = self._arriving(name, (name,))
            population = item.population
            if arriving.constant is not None:
                if arriving.constant.size != population.size:
                    raise CompileError(
                        f"node {name!r} has {population.size} neurons and gets "
                        f"{arriving.constant.size} values",
                        node=name,
                    )
                constant = arriving.constant * item.gain
                population = Population(
                    name,
                    population.shape,
                    population.model,
                    {**population.parameters, "input_bias": constant},
                    population.reset,
                    population.comparison,
                )
            populations.append(population)
            for (source, delay, path), weight in arriving.terms.items():
                matrix = np.eye(self.sizes[source]) if weight is None else weight
                if matrix.shape != (population.size, self.sizes[source]):
                    raise CompileError(
                        f"{source!r} reaches {name!r} through {' -> '.join(path) or 'an edge'}"
                        f" with a weight of {matrix.shape}; their sizes need "
                        f"{(population.size, self.sizes[source])}",
                        node=name,
                    )
                amplitude = 1.0 if source in self.inputs else self.contract.spike_amplitude
                # A population can hear itself only later: an undeclared self-connection takes one step.
                steps = max(delay, 1) if source == name else delay
                projections.append(
                    Projection(
                        "/".join((source, *path, name)),
                        source,
                        name,
                        item.gain[:, None] * matrix * amplitude,
                        steps,
                    )
                )
        return Network(
            tuple(populations),
            tuple(projections),
            tuple(Port(name, self._shape(name)) for name in self.inputs),
            tuple(self._output(name) for name in self.outputs),
            self.contract,
            self.decided,
            self.digest,
        )

    def _arriving(self, name: str, seen: tuple[str, ...]) -> _Sum:
        """Return the sum of what arrives at a node over all its edges."""
        total = _Sum({})
        for source in self.sources[name]:
            delay = int(self.contract.delays.get((source, name), 0))
            part = self._leaving(source, seen)
            for (origin, steps, path), weight in part.terms.items():
                key = (origin, steps + delay, path)
                total.terms[key] = _add(total.terms.get(key), weight, self.sizes[origin], key in total.terms)
            if part.constant is not None:
                if total.constant is not None and total.constant.size != part.constant.size:
                    raise CompileError(
                        f"node {name!r} gets {part.constant.size} values from {source!r} and "
                        f"{total.constant.size} from others",
                        node=name,
                    )
                total.constant = part.constant if total.constant is None else total.constant + part.constant
        return total

    def _leaving(self, name: str, seen: tuple[str, ...]) -> _Sum:
        item = self.lowered.get(name)
        if not isinstance(item, Linear):
            if name in self.outputs:
                raise CompileError(f"output node {name!r} has an outgoing edge", node=name)
            if isinstance(item, Neuron) and not item.population.spiking:
                raise UnsupportedNode(
                    f"node {name!r} never spikes, and {seen[-1]!r} needs its membrane as "
                    "input; only outputs can read a membrane",
                    node=name,
                )
            return _Sum({(name, 0, ()): None})
        if name in seen:
            loop = [name, *reversed(seen[seen.index(name) :])]
            raise CompileError(
                f"the linear nodes {' -> '.join(loop)} form a loop without a neuron", node=name
            )
        return self._through(name, item, self._arriving(name, (*seen, name)))

    def _through(self, name: str, item: Linear, inner: _Sum) -> _Sum:
        if item.weight is None:
            terms: dict[tuple[str, int, tuple[str, ...]], Float | None]
            terms = {(origin, steps, (*path, name)): w for (origin, steps, path), w in inner.terms.items()}
            return _Sum(terms, inner.constant)
        for (origin, _, path), weight in inner.terms.items():
            arriving = self.sizes[origin] if weight is None else weight.shape[0]
            if item.weight.shape[1] != arriving:
                raise CompileError(
                    f"node {name!r}: a weight of shape {item.weight.shape} takes {item.weight.shape[1]} "
                    f"values, and {arriving} arrive from {(path or (origin,))[-1]!r}",
                    node=name,
                )
        terms = {
            (origin, steps, (*path, name)): item.weight if weight is None else item.weight @ weight
            for (origin, steps, path), weight in inner.terms.items()
        }
        constant = None if inner.constant is None else item.weight @ inner.constant
        if item.bias is not None:
            constant = item.bias if constant is None else constant + item.bias
        return _Sum(terms, constant)

    def _output(self, name: str) -> Port:
        sources = self.sources[name]
        if len(sources) != 1 or not isinstance(self.lowered.get(sources[0]), Neuron):
            raise UnsupportedNode(
                f"output node {name!r} reads {sources}; it must read one neuron node (LIF, CubaLIF, LI)",
                node=name,
            )
        population = self.lowered[sources[0]]
        assert isinstance(population, Neuron)
        default = Readout() if population.population.spiking else Readout("membrane", "mean")
        readout = self.contract.readouts.get(name, default)
        if readout.signal == "spikes" and not population.population.spiking:
            raise CompileError(
                f"output node {name!r} counts spikes of {sources[0]!r}, which never spikes", node=name
            )
        return Port(name, population.population.shape, sources[0], readout)


def _add(old: Float | None, new: Float | None, size: int, both: bool) -> Float | None:
    if not both:
        return new
    eye = np.eye(size)
    total: Float = (eye if old is None else old) + (eye if new is None else new)
    return total
