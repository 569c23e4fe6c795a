"""Random NIR graphs, topology drawn too, with a contract and inputs: one recipe for seeds and hypothesis.

As in `random_programs.py` a `Picker` makes every choice, the plainest value first. A graph has inputs,
populations of any neuron node, chains of linear nodes between them (some inside nested graphs), branches,
skips, weights shared by several edges, self-connections, cycles through several populations, and outputs
that read neurons or linear nodes. Whether its cycles have enough delay is left to chance; `timing` says
how it came out, from the edges alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod
from typing import Any

import networkx as nx
import nir
import numpy as np
from hypothesis import strategies as st

from snn_compile.targets.program.rule import CHOICES

NEURONS = (nir.LIF, nir.CubaLIF, nir.IF, nir.Threshold, nir.LI, nir.CubaLI, nir.I)
GRADED = (nir.LI, nir.CubaLI, nir.I)
GRID = 1 << 16
LATE = (0, 0, 0, 0, 0, 0, 0, 1, 3)
"""Delays of edges."""


@dataclass(frozen=True)
class Limits:
    """How large graphs get."""

    populations: int = 5
    inputs: int = 2
    size: int = 6
    steps: int = 12
    samples: int = 2
    back: int = 3


SMALL = Limits(populations=3, inputs=1, size=3, steps=7, samples=1, back=1)


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph, its contract as keywords of `Contract`, inputs (samples, steps, *shape) by Input node.

    `timing`: "fine", "short" (a cycle has less delay than synapse stages) or "open" (a cycle has none).
    """

    graph: nir.NIRGraph
    contract: Mapping[str, Any]
    inputs: Mapping[str, Any]
    timing: str
    seed: int = -1


def graph(seed: int, pickers: Any, limits: Limits | None = None) -> Graph:
    """Return the graph of a seed; `pickers` is the module `random_programs`."""
    return replace(build(pickers.SeededPicker(seed), limits or Limits()), seed=seed)


def graphs(pickers: Any, limits: Limits | None = None) -> st.SearchStrategy[Graph]:
    """Return the strategy of small graphs."""
    return st.composite(lambda draw: build(pickers.DrawnPicker(draw), limits or SMALL))()


def build(pick: Any, limits: Limits) -> Graph:
    """Make one graph, its contract and inputs."""
    draft = _Draft(pick, limits, pick.choice((1.0, 0.5, 1e-3)))
    for i in range(pick.integer(1, limits.inputs)):
        draft.add(f"in{i}", nir.Input(np.array(shape := draft.any_shape())), shape)
    inputs = list(draft.shapes)
    for i in range(pick.integer(1, limits.populations)):
        draft.population(f"p{i}", first=inputs[0] if i == 0 else None)
    for _ in range(pick.integer(0, limits.back)):
        ends = [pick.integer(0, len(draft.neurons) - 1) for _ in range(2)]
        late, early = sorted(ends, reverse=True) if pick.choice((True, True, False)) else ends
        draft.connect_back(draft.neurons[late], draft.neurons[early])
    heard = {a for a, _ in draft.edges}
    loose = [name for name in draft.shapes if name not in heard]
    if not loose or pick.choice((False, False, True)):
        loose.append(draft.neurons[-1])
    for i, name in enumerate(loose):
        draft.output(f"out{i}", name)
    steps, samples = pick.integer(5, limits.steps), pick.integer(1, limits.samples)
    data = {name: draft.data(draft.shapes[name], samples, steps) for name in inputs}
    made = nir.NIRGraph(nodes=draft.nodes, edges=draft.edges, type_check=False)
    contract = draft.contract()
    return Graph(made, contract, data, timing(made, contract))


@dataclass(eq=False)
class _Draft:
    """A graph in the making; `shapes` of everything that can be a source, by name."""

    pick: Any
    limits: Limits
    dt: float
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    delays: dict[tuple[str, str], int] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    loud: set[str] = field(default_factory=set)
    """Sources that send numbers."""

    @property
    def neurons(self) -> list[str]:
        """Nodes with a neuron in them, nested graphs among them."""
        return [name for name, node in self.nodes.items() if isinstance(core(node), NEURONS)]

    def add(self, name: str, node: Any, shape: tuple[int, ...]) -> str:
        self.nodes[name], self.shapes[name] = node, shape
        return name

    def reals(self, low: float, high: float, shape: tuple[int, ...]) -> Any:
        """Draw numbers that meet no threshold exactly, whatever they are multiplied with."""
        return low + (high - low) * (self.pick.integers(0, GRID, shape) / GRID) + np.pi * 1e-6

    def weights(self, *shape: int, strength: float = 1.6) -> Any:
        """Draw weights so that a few spikes reach a threshold."""
        scale = strength / np.sqrt(max(1, prod(shape[1:])))
        return self.reals(-1.2 * scale, 1.8 * scale, shape)

    def any_shape(self) -> tuple[int, ...]:
        pick, kind = self.pick, self.pick.choice((1, 1, 1, 2, 3, 3))
        if kind == 1:
            return (pick.integer(1, self.limits.size),)
        if kind == 2:
            return (pick.integer(1, 2), pick.integer(3, 6))
        return (pick.integer(1, 2), pick.integer(3, 4), pick.integer(3, 4))

    def edge(self, source: str, target: str, late: Sequence[int] = LATE) -> None:
        self.edges.append((source, target))
        if steps := self.pick.choice(late):
            self.delays[source, target] = steps

    def population(self, name: str, first: str | None) -> None:
        """Add a neuron node, what leads to it from one source, and perhaps from others."""
        pick = self.pick
        source = first or pick.choice((self.neurons[-1], pick.choice(list(self.shapes))))
        entry, last, shape = self.chain(name, source)
        kind = pick.choice((nir.LIF, nir.CubaLIF, nir.IF, *NEURONS))
        nested = entry is None and pick.choice((False, False, False, False, True))
        node = self.neuron(kind, shape)
        if nested:
            name = self.nest(name, node, shape)
            full = f"{name}.cell"
        else:
            full = self.add(name, node, shape)
        self.rules[full] = self.rule(kind)
        if kind in GRADED or self.rules[full].get("spikes_per_step") == "floor":
            self.loud.add(name)
        self.edge(last, name)
        for _ in range(pick.choice((0, 0, 1, 2))):
            other = pick.choice([n for n in self.shapes if n != name])
            known = {b for a, b in self.edges if a == other}
            if entry is not None and self.shapes[other] == self.shapes[source] and entry not in known:
                if other != source and not self.after(entry, other):
                    self.edge(other, entry)  # the same weights for another source
            elif self.shapes[other] == shape and name not in known:
                self.edge(other, name)
            else:
                self.dense(f"{name}_skip{len(self.nodes)}", other, name, 0.8)

    def after(self, name: str, other: str) -> bool:
        """Whether `other` comes after `name`: an edge from there would close a cycle."""
        heard, todo = set(), [name]
        while todo:
            here = todo.pop()
            heard.add(here)
            todo += [b for a, b in self.edges if a == here and b not in heard]
        return other in heard

    def dense(self, name: str, source: str, target: str, strength: float, late: Sequence[int] = LATE) -> None:
        """Connect all to all, flattened where the source is not, through a node of the name."""
        size = prod(self.shapes[source])
        self.loud |= {name, f"{name}_flat"} if source in self.loud else set()
        if len(self.shapes[source]) > 1:
            self.add(f"{name}_flat", nir.Flatten({"input": np.array(self.shapes[source])}, 0), (size,))
            self.edge(source, f"{name}_flat", late)
            source = f"{name}_flat"
        weight = self.weights(prod(self.shapes[target]), size, strength=strength)
        biased = self.pick.choice((False, True))
        node = nir.Affine(weight, self.reals(-0.2, 0.3, (len(weight),))) if biased else nir.Linear(weight)
        self.add(name, node, (len(weight),))
        self.edge(source, name, late)
        self.edge(name, target, late)

    def chain(self, name: str, source: str) -> tuple[str | None, str, tuple[int, ...]]:
        """Add linear nodes behind a source; return the first and last of them and what arrives then."""
        first, last = None, source
        for i in range(self.pick.choice((1, 1, 0, 2, 3))):
            shape = self.shapes[last]
            node, made = self.linear(shape)
            if min(made) < 1:  # the window is larger than what is left
                break
            step = f"{name}_{i}"
            if self.pick.choice((False, False, False, False, False, True)):
                step = self.nest(step, node, made, shape)
            else:
                self.add(step, node, made)
            self.edge(last, step)
            self.loud |= {step} if last in self.loud else set()
            first, last = first or step, step
        return first, last, self.shapes[last]

    def nest(self, name: str, node: Any, made: tuple[int, ...], shape: tuple[int, ...] | None = None) -> str:
        """Add a node inside a nested graph."""
        inner = "cell" if isinstance(node, NEURONS) else "map"
        nodes = {"i": nir.Input(np.array(shape or made)), inner: node, "o": nir.Output(np.array(made))}
        nested = nir.NIRGraph(nodes, [("i", inner), (inner, "o")], type_check=False)
        return self.add(name, nested, made)

    def linear(self, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """Make a linear node for an input of a shape; return it and the shape that leaves."""
        pick = self.pick
        kinds = [nir.Scale, nir.Delay]
        kinds += {1: [nir.Linear, nir.Affine] * 2, 2: [nir.Conv1d, nir.Conv1d, nir.Flatten]}.get(
            len(shape), [nir.Conv2d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d, nir.Flatten]
        )
        kind = pick.choice(kinds[::-1])
        if kind is nir.Scale:
            return nir.Scale(self.reals(0.4, 1.5, shape)), shape
        if kind is nir.Delay:
            return nir.Delay(self.dt * pick.integers(0, 3, shape)), shape
        if kind is nir.Flatten:
            start = pick.choice((0, 0, 1)) if len(shape) == 3 else 0
            return nir.Flatten({"input": np.array(shape)}, start), (*shape[:start], prod(shape[start:]))
        if kind in (nir.Linear, nir.Affine):
            weight = self.weights(pick.integer(1, self.limits.size), *shape)
            bias = (self.reals(-0.2, 0.3, (len(weight),)),) if kind is nir.Affine else ()
            return kind(weight, *bias), (len(weight),)
        if kind in (nir.Conv1d, nir.Conv2d):
            return self.convolution(kind, shape)
        size, stride = pick.integers(1, 3, (2,)), pick.integers(1, 2, (2,))
        size, padding = np.maximum(size, stride), pick.integers(0, 1, (2,)) * (size > 1)
        out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, size, stride, strict=True)]
        return kind(size, stride, padding), (shape[0], *map(int, out))

    def convolution(self, kind: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """Make a convolution of one or two dimensions."""
        pick, space = self.pick, shape[1:]
        groups = pick.choice((1, shape[0]))
        kernel = tuple(pick.integer(1, 3) for _ in space)
        # A dilated kernel of 2 spans as much as a plain one of 3.
        dilation = tuple(pick.choice((1, 2)) if k == 2 else 1 for k in kernel)
        stride = tuple(pick.choice((1, 2)) for _ in space)
        padding: Any = tuple(pick.integer(0, 1) for _ in space)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        word = pick.choice((None, None, "same", "valid"))
        if word == "same":
            stride = (1,) * len(space)
        out = [
            n if word == "same" else (n + (0 if word else 2 * p) - r - 1) // s + 1
            for n, p, r, s in zip(space, padding, reach, stride, strict=True)
        ]
        weight = self.weights(groups * pick.integer(1, 2), shape[0] // groups, *kernel)
        values: list[Any] = [stride, word or padding, dilation]
        if kind is nir.Conv1d:
            values = [value if isinstance(value, str) else value[0] for value in values]
        bias = self.reals(-0.1, 0.2, (len(weight),))
        node = kind(None, weight, values[0], values[1], values[2], groups, bias)
        return node, (len(weight), *out)

    def neuron(self, kind: Any, shape: tuple[int, ...]) -> Any:
        """Make a neuron node, its parameters one a neuron; time constants from a step on."""
        if kind is nir.Threshold:
            return nir.Threshold(self.reals(0.15, 0.6, shape))
        times = ("tau_syn", "tau_mem") if kind in (nir.CubaLIF, nir.CubaLI) else ("tau",)
        values = {key: self.dt * self.reals(1.2, 8, shape) for key in times}
        if kind in (nir.IF, nir.I):
            values = {"r": self.reals(0.5, 1.2, shape) / self.dt}
        else:
            values |= {"r": self.reals(1.5, 3, shape), "v_leak": self.reals(-0.1, 0.2, shape)}
        if kind in (nir.CubaLIF, nir.CubaLI):
            values["w_in"] = self.reals(1, 2, shape)
        if kind not in GRADED:
            values["v_threshold"] = self.reals(0.25, 0.7, shape)
            values["v_reset"] = self.reals(-0.2, 0.15, shape)
        return kind(**values)

    def rule(self, kind: Any) -> dict[str, Any]:
        """Draw what the contract says of one neuron node: half of the time Lava's rule."""
        pick = self.pick
        items: dict[str, Any] = {"reset": pick.choice(("value", "subtract", "none"))}
        if kind is nir.Threshold or pick.choice((True, False)):
            return items
        items |= {key: pick.choice(words) for key, words in CHOICES.items()}
        if items["reset_timing"] == "pending":
            items |= {"reset": "subtract", "spikes_per_step": "one"}
        if items["spikes_per_step"] == "floor" and items["reset"] == "value":
            items["reset"] = "subtract"  # with a reset to a value that value has to be 0
        items["v_min"] = pick.choice((None, -0.4 - np.pi * 1e-6))
        items["v_init"] = pick.choice((0.0, "v_leak", "v_reset", 0.1))
        return items

    def connect_back(self, source: str, target: str) -> None:
        """Connect any neuron to any: mostly back or to itself; early or late enough."""
        strength = 0.3 if source in self.loud or self.loud & {target} else 1.2
        name, late = f"back{len(self.nodes)}", self.pick.choice((0, 1, 1, 1, 1, 2, 3, 6))
        self.dense(name, source, target, strength, late=(0,))
        if late:
            self.delays[name, target] = late

    def output(self, name: str, source: str) -> None:
        self.add(name, nir.Output(np.array(self.shapes[source])), self.shapes[source])
        self.edges.append((source, name))

    def data(self, shape: tuple[int, ...], samples: int, steps: int) -> Any:
        """Draw spikes, or real numbers."""
        if self.pick.choice((True, True, False)):
            return self.pick.integers(0, 1, (samples, steps, *shape)).astype(float)
        return self.reals(-1, 1.5, (samples, steps, *shape))

    def inside(self, edge: tuple[str, str]) -> tuple[str, str]:
        """Return an edge as a contract names it, from and to the ports in nested graphs."""
        source, target = (isinstance(self.nodes[name], nir.NIRGraph) for name in edge)
        return edge[0] + ".o" * source, edge[1] + ".i" * target

    def contract(self) -> dict[str, Any]:
        pick = self.pick
        return {
            "dt": self.dt,
            "rule": pick.choice(("euler", "exponential")),
            "reset": "value",
            "reset_timing": "same_step",
            "comparison": ">",
            "spike_amplitude": pick.choice((1.0, 1.0, 0.7)),
            "delays": {self.inside(edge): steps for edge, steps in self.delays.items()},
            "nodes": self.rules,
        }


def core(node: Any) -> Any:
    """Return a node, or the one between the ports of a nested graph."""
    if not isinstance(node, nir.NIRGraph):
        return node
    return next(n for n in node.nodes.values() if not isinstance(n, (nir.Input, nir.Output)))


def wires(graph: nir.NIRGraph, contract: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    """Return (neuron, neuron, delay) of every way from one neuron to another through linear nodes."""
    late = {(a.split(".")[0], b.split(".")[0]): steps for (a, b), steps in contract["delays"].items()}
    found: set[tuple[str, str, int]] = set()

    def follow(start: str, here: str, delay: int) -> None:
        for a, b in graph.edges:
            if a != here:
                continue
            then, node = delay + late.get((a, b), 0), core(graph.nodes[b])
            if isinstance(node, NEURONS):
                found.add((start, b, max(then, 1) if start == b else then))
            elif isinstance(node, nir.Delay):
                for more in np.unique(np.rint(node.delay / contract["dt"])):
                    follow(start, b, then + int(more))
            else:
                follow(start, b, then)

    for name, node in graph.nodes.items():
        if isinstance(core(node), NEURONS):
            follow(name, name, 0)
    return found


def timing(graph: nir.NIRGraph, contract: Mapping[str, Any]) -> str:
    """Return whether cycles have less delay than synapse stages ("short"), none at all, or enough."""
    instant = nx.DiGraph((a, b) for a, b, delay in wires(graph, contract) if delay == 0)
    if not nx.is_directed_acyclic_graph(instant):
        return "open"
    return "short" if least_period(graph, contract) > 1 else "fine"


def least_period(graph: nir.NIRGraph, contract: Mapping[str, Any]) -> int:
    """Return the least c with which c times the delay of every cycle is at least its synapse stages."""
    least: dict[tuple[str, str], int] = {}
    for source, target, delay in wires(graph, contract):
        least[source, target] = min(delay, least.get((source, target), delay))
    stages = nx.DiGraph()
    for period in count(1):
        stages.add_weighted_edges_from((a, b, period * delay - 1) for (a, b), delay in least.items())
        if not nx.negative_edge_cycle(stages):
            return period
    raise AssertionError
