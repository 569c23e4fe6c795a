"""Lower a NIR graph to a Network: linear nodes are multiplied into the projections that they lie on.

Neuron nodes become populations. The input of one is a sum over paths of linear nodes back to other neurons or
inputs; each path becomes one projection, its biases a constant input, its delays a logical delay. An output
behind linear nodes reads a population without memory. `nodes.py` defines the meaning of single nodes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import nir
import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array, issparse

from snn_compile.compiler.contract.contract import Contract, Readout, graph_digest
from snn_compile.compiler.contract.resolve import resolution
from snn_compile.compiler.frontends.read import naming, read_graph
from snn_compile.compiler.linear_maps import LinearMap
from snn_compile.compiler.lowering import extensions  # noqa: F401 - registers the extension nodes
from snn_compile.compiler.lowering.explanation import with_fractions
from snn_compile.compiler.lowering.fixed_integers import apply_fixed_encoding, apply_fixed_scale
from snn_compile.compiler.lowering.flatten import Identity, flatten_graph
from snn_compile.compiler.lowering.liquid import unfold
from snn_compile.compiler.lowering.max_pool import unfold_pools
from snn_compile.compiler.lowering.nodes import DELAY_MAX, Linear, Neuron, lower_node
from snn_compile.compiler.lowering.shapes import Shapes
from snn_compile.compiler.lowering.synaptic_delays import join_synaptic_delays
from snn_compile.compiler.network import Float, Network, Population, Port, Projection, Weight
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.targets.errors import AmbiguousConvention, CompileError

Key = tuple[str, int, tuple[str, ...]]
"""Origin of a term: source, delay in steps, the linear nodes on its path."""

CONNECTIONS_MAX = 1 << 27
"""Connections of all maps and their products: six times the 8-bit synapses that fit a Loihi 2."""

PATHS_MAX, CHAIN_MAX = 1 << 14, 200
"""Most paths between neurons, and most linear nodes in a row on a path."""


def lower(graph_or_path: Any, conventions: Mapping[str, Any] | None = None, strict: bool = False) -> Network:
    """Return the Network that a NIR graph (or a `.nir` or `.net` file) means.

    `conventions` states what the file leaves open, for example {"dt": 1e-4, "reset": "subtract",
    "reset_timing": "same_step"}, for every node or, as {"nodes": {"3": {"reset": "value"}}}, for one;
    {"maker": "snntorch"} states the exporter. What the file of a known exporter does not hold takes the
    exporter's default and is listed in `Network.assumed`; with `strict` it is open. Raises
    AmbiguousConvention if something stays open, UnsupportedNode, and CompileError on shapes that do not fit,
    values that are not finite, unsupported contracts, and graphs that exceed the limits above. Errors of a
    file name it.
    """
    graph = graph_or_path
    if isinstance(graph, (str, os.PathLike)):
        with naming(graph):
            return lower(read_graph(graph, stated=conventions), conventions, strict)
    if isinstance(graph, RectifierNetwork):
        raise CompileError(
            f"{graph.name}: a ReLU network does not spike; convert it on calibration data "
            "(snn-compile MODEL --calibrate DATA, or compiler.convert)"
        )
    if isinstance(graph, Network):
        if left := sorted(key for key in conventions or {} if graph.decided.get(key) != "stated"):
            raise CompileError(f"conventions {', '.join(left)}: this network leaves nothing open to state")
        if strict and graph.assumptions:
            missing = {item.item: (str(item.value),) for item in graph.assumptions}
            raise AmbiguousConvention("; ".join(item.text for item in graph.assumptions), missing=missing)
        return graph
    found = resolution(graph, conventions, strict)
    try:
        network = _Lowering(graph, found.contract, found.decided).network()
    except CompileError as error:
        if not found.warnings:
            raise
        where = repr(error.facts.get("population", error.facts.get("node")))
        cause = next((text for text in found.warnings if where in text), found.warnings[0])
        raise type(error)(f"{error}; {cause}", **error.facts) from error
    return replace(network, assumptions=found.assumptions)


@dataclass(eq=False)
class _Sum:
    """A linear expression of one shape: weights by their origin, and a constant."""

    shape: tuple[int, ...]
    terms: dict[Key, Weight | None]
    constant: Float | None = None


class _Lowering:
    """One walk over a graph: neurons first, then the inputs of each of them."""

    def __init__(self, graph: Any, contract: Contract, decided: Mapping[str, str]) -> None:
        self.decided, self.digest = decided, graph_digest(graph)
        self.nodes, edges, delays = unfold_pools(*flatten_graph(graph), contract)
        self.contract = contract = replace(contract, delays=delays)
        self.sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in edges:
            if source not in self.nodes or target not in self.nodes:
                raise CompileError(f"edge {source!r} -> {target!r}: there is no such node")
            if source not in self.sources[target]:
                self.sources[target].append(source)
        self._check_names()
        self.inputs = [n for n, node in self.nodes.items() if isinstance(node, nir.Input)]
        self.outputs = [n for n, node in self.nodes.items() if isinstance(node, nir.Output)]
        self.lowered: dict[str, Neuron | Linear] = {}
        for name, node in self.nodes.items():
            if isinstance(node, Identity):
                self.lowered[name] = LinearMap
            elif name not in self.inputs and name not in self.outputs:
                self.lowered[name] = lower_node(node, name, contract.of(name))
        self.decided = with_fractions(self.lowered, decided)
        join_synaptic_delays(self.nodes, self.sources, self.lowered)
        self.shapes = {name: self._shape(name) for name in self.inputs}
        self.shapes |= {
            name: item.population.shape for name, item in self.lowered.items() if isinstance(item, Neuron)
        }
        self._maps: dict[tuple[str, tuple[int, ...]], LinearMap] = {}
        Shapes(self.nodes, self.sources, self.lowered, self.shapes, self._mapped).infer()
        self._found: dict[str, _Sum] = {}
        self._names: dict[str, int] = {}
        self._connections = self._paths = 0

    def _mapped(self, name: str, shape: tuple[int, ...]) -> LinearMap:
        """Return the map of a linear node for an input of this shape."""
        if (name, shape) not in self._maps:
            item = self.lowered[name]
            assert not isinstance(item, Neuron)
            self._maps[name, shape] = item(shape)
        return self._maps[name, shape]

    def _check_names(self) -> None:
        """Refuse a contract that names nodes or edges the graph does not have."""
        delays = {f"{a} -> {b}": b in self.sources and a in self.sources[b] for a, b in self.contract.delays}
        for item, named in (
            ("delays", delays),
            ("nodes", {name: name in self.nodes for name in self.contract.nodes}),
            ("readouts", {name: name in self.nodes for name in self.contract.readouts}),
            ("integers", {name: name in self.nodes for name in self.contract.integers}),
        ):
            if unknown := sorted(name for name, there in named.items() if not there):
                what = "edges" if item == "delays" else "nodes"
                raise CompileError(
                    f"contract: {item} name {what} the graph does not have: {', '.join(unknown)}"
                )

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = np.atleast_1d(np.asarray(self.nodes[name].input_type["input"]))
        if shape.dtype.kind not in "iu" or not shape.size or (shape < 1).any():
            raise CompileError(f"input node {name!r} has no usable shape ({shape.tolist()})", node=name)
        return tuple(int(n) for n in shape)

    def network(self) -> Network:
        populations: list[Population] = []
        projections: list[Projection] = []
        for name, item in self.lowered.items():
            if not isinstance(item, Neuron):
                continue
            if item.gates is None:
                self._neuron(name, item, populations, projections)
            else:
                own: tuple[list[Population], list[Projection]] = [], []
                self._neuron(name, item, *own)
                states, edges = unfold(own[0][0], item.gates, own[1])
                populations += states
                projections += edges
        outputs = tuple(self._output(name, populations, projections) for name in self.outputs)
        return Network(
            tuple(populations),
            tuple(projections),
            tuple(apply_fixed_encoding(Port(n, self.shapes[n]), self.contract.integers) for n in self.inputs),
            outputs,
            self.contract,
            self.decided,
            self.digest,
        )

    def _neuron(
        self, name: str, item: Neuron, populations: list[Population], projections: list[Projection]
    ) -> None:
        population, incoming = item.population, self._incoming(name, (name,))
        population = apply_fixed_scale(population, self.contract.integers)
        size = population.size
        if incoming.constant is not None:
            if incoming.constant.size != size:
                raise CompileError(
                    f"node {name!r} has {size} neurons and receives {incoming.constant.size} values",
                    node=name,
                )
            parameters = {**population.parameters, "input_bias": incoming.constant * item.gain}
            population = replace(population, parameters=parameters)
        populations.append(population)
        for (source, delay, path), weight in incoming.terms.items():
            matrix = self._identity(source) if weight is None else weight
            if matrix.shape != (size, prod(self.shapes[source])):
                raise CompileError(
                    f"{source!r} reaches {name!r} through {' -> '.join(path) or 'an edge'}"
                    f" with a weight of shape {matrix.shape}; their sizes need "
                    f"{(size, prod(self.shapes[source]))}",
                    node=name,
                )
            # Recurrence takes time: an undeclared self-connection has a delay of one step.
            steps = max(delay, 1) if source == name else delay
            gain = np.broadcast_to(item.gain, (size,)) * self._amplitude(source)
            scaled = csr_array(diags_array(gain) @ matrix) if _sparse(matrix) else gain[:, None] * matrix
            if steps > DELAY_MAX:
                raise CompileError(
                    f"node {name!r} receives {source!r} with a delay of {steps} steps; at most "
                    f"{DELAY_MAX} are possible",
                    node=name,
                )
            path_name = "/".join((source, *path, name))
            taken = self._names[path_name] = self._names.get(path_name, 0) + 1
            title = f"{path_name}@{steps}" if taken > 1 else path_name
            projections.append(Projection(title, source, name, scaled, steps))

    def _amplitude(self, source: str) -> float:
        item = self.lowered.get(source)
        spiking = isinstance(item, Neuron) and item.population.spiking
        return self.contract.spike_amplitude if spiking else 1.0

    def _identity(self, source: str) -> csr_array:
        return csr_array(eye_array(prod(self.shapes[source])))

    def _incoming(self, name: str, seen: tuple[str, ...]) -> _Sum:
        """Return the input of a node, summed over its edges."""
        total: _Sum | None = None
        for source in self.sources[name]:
            delay = int(self.contract.delays.get((source, name), 0))
            part = self._leaving(source, seen)
            if total is None:
                total = _Sum(part.shape, {})
            if prod(part.shape) != prod(total.shape):
                raise CompileError(
                    f"node {name!r} receives {prod(part.shape)} values from {source!r} and "
                    f"{prod(total.shape)} from others",
                    node=name,
                )
            for (origin, steps, path), weight in part.terms.items():
                key = (origin, steps + delay, path)
                known = key in total.terms
                self._paths += 1
                if self._paths > PATHS_MAX:
                    raise CompileError(
                        f"node {name!r}: more than {PATHS_MAX} paths of linear nodes up to here; multiply "
                        "some of them out, or put neurons between them",
                        node=name,
                    )
                total.terms[key] = self._add(origin, total.terms[key], weight) if known else weight
            if part.constant is not None:
                total.constant = part.constant if total.constant is None else total.constant + part.constant
        if total is None:
            return _Sum(self.shapes.get(name, ()), {})
        return total

    def _add(self, origin: str, a: Weight | None, b: Weight | None) -> Weight:
        a = self._identity(origin) if a is None else a
        return a + (self._identity(origin) if b is None else b)

    def _leaving(self, name: str, seen: tuple[str, ...]) -> _Sum:
        item = self.lowered.get(name)
        if item is None or isinstance(item, Neuron):
            if name in self.outputs:
                raise CompileError(f"output node {name!r} has an outgoing edge", node=name)
            return _Sum(self.shapes[name], {(name, 0, ()): None})
        if name in seen:
            loop = [name, *reversed(seen[seen.index(name) :])]
            raise CompileError(
                f"the linear nodes {' -> '.join(loop)} form a loop without a neuron", node=name
            )
        if len(seen) > CHAIN_MAX:
            raise CompileError(
                f"node {name!r}: more than {CHAIN_MAX} linear nodes follow it in a row", node=name
            )
        if name not in self._found:
            inner = self._incoming(name, (*seen, name))
            if not inner.terms and inner.constant is None:
                raise CompileError(f"node {name!r} has no input", node=name)
            self._found[name] = self._through(name, self._mapped(name, inner.shape), inner)
        return self._found[name]

    def _through(self, name: str, item: LinearMap, inner: _Sum) -> _Sum:
        if item.delays is not None and item.weight is None:
            return self._delayed(name, item.delays, inner)
        if item.weight is None:
            terms: dict[Key, Weight | None]
            terms = {(origin, steps, (*path, name)): w for (origin, steps, path), w in inner.terms.items()}
            return _Sum(item.shape, terms, inner.constant)
        if item.weight.shape[1] != prod(inner.shape):
            origin, _, path = next(iter(inner.terms), ("a bias", 0, ()))
            raise CompileError(
                f"node {name!r}: a weight of shape {item.weight.shape} takes {item.weight.shape[1]} "
                f"values, and receives {prod(inner.shape)} from {(path or (origin,))[-1]!r}",
                node=name,
            )
        self._count(name, item.weight.nnz if issparse(item.weight) else item.weight.size)
        parts = {0: item.weight}
        if item.delays is not None:
            parts = {int(d): item.weight * (item.delays == d) for d in np.unique(item.delays)}
        terms = {}
        for (origin, steps, path), weight in inner.terms.items():
            for late, own in parts.items():
                key = (origin, steps + late, (*path, name))
                part = own if weight is None else self._product(name, own, weight)
                terms[key] = self._add(origin, terms[key], part) if key in terms else part
        constant = None if inner.constant is None else item.weight @ inner.constant
        if item.bias is not None:
            constant = item.bias if constant is None else constant + item.bias
        return _Sum(item.shape, terms, constant)

    def _product(self, name: str, left: Weight, right: Weight) -> Weight:
        """Return left @ right; raises CompileError beforehand if it is too large."""
        size = left.shape[0] * right.shape[1]
        if issparse(left) and issparse(right):
            size = min(size, int(np.diff(right.indptr)[left.indices].sum()))
        self._count(name, size)
        return left @ right

    def _count(self, name: str, connections: int) -> None:
        self._connections += connections
        if self._connections > CONNECTIONS_MAX:
            raise CompileError(
                f"node {name!r}: {self._connections:,} connections up to here; at most {CONNECTIONS_MAX:,} "
                "are possible",
                node=name,
            )

    def _delayed(self, name: str, delays: Float, inner: _Sum) -> _Sum:
        """Delay elements by their own steps; a constant is there from the first step on."""
        terms: dict[Key, Weight | None] = {}
        different = np.unique(delays)
        if len(different) * len(inner.terms) > PATHS_MAX:
            raise CompileError(
                f"node {name!r}: {len(different)} different delays on {len(inner.terms)} path(s); at most "
                f"{PATHS_MAX} of both are possible",
                node=name,
            )
        for (origin, steps, path), weight in inner.terms.items():
            for late in different:
                kept = csr_array(diags_array((delays == late).astype(np.float64)))
                matrix = self._identity(origin) if weight is None else weight
                whole = bool((delays == late).all())
                key = (origin, steps + int(late), (*path, name))
                part = weight if whole else csr_array(self._product(name, kept, matrix))
                # Behind another delay the same sum of steps comes about in several ways.
                terms[key] = self._add(origin, terms[key], part) if key in terms else part
        return _Sum(inner.shape, terms, inner.constant)

    def _output(self, name: str, populations: list[Population], projections: list[Projection]) -> Port:
        sources = self.sources[name]
        if not sources:
            raise CompileError(f"output node {name!r} has no input", node=name)
        reads = self._read(sources)
        if reads is None:
            reads = self._memoryless(name, populations, projections)
        population = next(p for p in populations if p.name == reads)
        default = Readout() if population.spiking else Readout("membrane", "mean")
        readout = self.contract.readouts.get(name, default)
        if readout.signal == "spikes" and not population.spiking:
            raise CompileError(
                f"output node {name!r} counts spikes of {reads!r}, which never spikes", node=name
            )
        return Port(name, population.shape, reads, readout)

    def _read(self, sources: list[str]) -> str | None:
        """Return the one neuron node that an output reads, past nodes that change nothing; else None."""
        while len(sources) == 1:
            item = self.lowered.get(sources[0])
            if isinstance(item, Neuron):
                return sources[0]
            passes = isinstance(self.nodes[sources[0]], (Identity, nir.Flatten))
            if not passes:
                return None
            sources = self.sources[sources[0]]
        return None

    def _memoryless(self, name: str, populations: list[Population], projections: list[Projection]) -> str:
        """Add a population whose membrane is the input of an output in the same step."""
        shape = self._incoming(name, (name,)).shape
        one, zero = np.ones(1), np.zeros(1)
        parameters = {
            "current_decay": one,
            "voltage_decay": one,
            "bias": zero,
            "input_bias": zero,
            "v_init": zero,
            "offset": zero,
        }
        self._neuron(name, Neuron(Population(name, shape, "li", parameters), one), populations, projections)
        return name


def _sparse(weight: Weight) -> bool:
    return isinstance(weight, csr_array)
