"""Shapes that exporters leave open: neurons with one value per layer, inputs with a batch or time dimension.

A neuron node whose parameters are single values takes the shape of its input, and parameters with axes of
length 1 are repeated along them. The leading dimensions of an Input that the following nodes do not take are
dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import nir
import numpy as np

from snn_compile.compiler.linear_maps import LinearMap
from snn_compile.compiler.lowering.nodes import Linear, Neuron, Shape
from snn_compile.compiler.network import Float
from snn_compile.targets.errors import CompileError

RANKS: Mapping[type, int] = {
    nir.Affine: 1,
    nir.Linear: 1,
    nir.Conv1d: 2,
    nir.Conv2d: 3,
    nir.SumPool2d: 3,
    nir.AvgPool2d: 3,
}
"""Dimensions of the input that a linear node takes."""

CHAIN_MAX = 200
"""Most nodes in a row that shapes are followed through; lowering refuses longer chains of linear nodes."""

log = logging.getLogger(__name__)


def broadcast(item: Neuron, shape: Shape) -> Neuron:
    """Return a neuron node with its parameters repeated over `shape`; unchanged if they do not broadcast."""
    population = item.population
    own = population.shape
    aligned = len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True))
    if not shape or prod(shape) == population.size or not (population.size == 1 or aligned):
        return item

    def repeated(values: Float) -> Float:
        if values.size == 1:
            return values
        return np.array(np.broadcast_to(values.reshape(own), shape)).reshape(-1)

    parameters = {key: repeated(values) for key, values in population.parameters.items()}
    grown = replace(population, shape=shape, parameters=parameters)
    return replace(item, population=grown, gain=repeated(item.gain))


def _open(item: Any) -> bool:
    """Whether a neuron node's parameters may have to be repeated over its input's shape."""
    if not isinstance(item, Neuron) or item.gates is not None:
        return False
    return item.population.size == 1 or 1 in item.population.shape


@dataclass(eq=False)
class Shapes:
    """Shape inference over a flattened graph.

    `lowered` holds the meaning of each node (Output nodes have none), `shapes` the shapes of what inputs and
    neurons send. `mapped` returns the map of a linear node for the shape of its input.
    """

    nodes: Mapping[str, Any]
    sources: Mapping[str, Sequence[str]]
    lowered: dict[str, Neuron | Linear]
    shapes: dict[str, Shape]
    mapped: Callable[[str, Shape], LinearMap]
    targets: dict[str, list[str]] = field(default_factory=dict)

    def infer(self) -> None:
        """Fill in the shapes of neurons, and drop leading dimensions of inputs, with a warning."""
        self.targets = {name: [] for name in self.nodes}
        for name, sources in self.sources.items():
            for source in sources:
                self.targets[source].append(name)
        for name in [name for name in self.shapes if name not in self.lowered]:
            self.shapes[name] = self._input(name, self.shapes[name])
        waiting = [name for name, item in self.lowered.items() if _open(item)]
        for name in waiting:
            self.shapes.pop(name, None)
        while waiting:
            left = [name for name in waiting if not self._settle(name)]
            if len(left) == len(waiting):
                break
            waiting = left
        for name in waiting:  # nothing but these neurons leads to them
            self._keep(name)

    def _settle(self, name: str) -> bool:
        shape = self._incoming(name, set(), 0)
        if shape is None:
            return False
        item = self.lowered[name]
        assert isinstance(item, Neuron)
        self.lowered[name] = broadcast(item, shape)
        self._keep(name)
        return True

    def _keep(self, name: str) -> None:
        item = self.lowered[name]
        assert isinstance(item, Neuron)
        self.shapes[name] = item.population.shape

    def _incoming(self, name: str, seen: set[str], depth: int) -> Shape | None:
        """Return the shape of a node's input, or None while it depends on neurons of unknown shape."""
        found = (self._leaving(source, seen, depth) for source in self.sources[name])
        return next((shape for shape in found if shape is not None), None)

    def _leaving(self, name: str, seen: set[str], depth: int) -> Shape | None:
        if name in self.shapes:
            return self.shapes[name]
        item = self.lowered.get(name)
        if item is None or isinstance(item, Neuron) or name in seen or depth > CHAIN_MAX:
            return None
        seen.add(name)
        node = self.nodes[name]
        if isinstance(node, (nir.Affine, nir.Linear)):
            return (int(np.shape(node.weight)[0]),)
        inner = self._incoming(name, seen, depth + 1)
        return None if inner is None else self.mapped(name, inner).shape

    def _input(self, name: str, shape: Shape) -> Shape:
        """Return the shape of an input without the leading dimensions that nothing takes."""
        choices = [shape[dropped:] for dropped in range(len(shape))]
        fitting = [choice for choice in choices if self._taken(name, choice, set())]
        if not fitting:
            return shape  # lowering names what does not fit
        chosen = fitting[0]
        rank = self._rank(name, set())
        if rank is not None and len(chosen) > rank and set(chosen[: len(chosen) - rank]) == {1}:
            chosen = chosen[len(chosen) - rank :]
        if chosen != shape:
            log.warning(
                "input %r: its shape %s has %d leading dimension(s) that the next node does not take (batch "
                "or time); reading it as %s",
                name,
                shape,
                len(shape) - len(chosen),
                chosen,
            )
        return chosen

    def _taken(self, name: str, shape: Shape, seen: set[tuple[str, Shape]], depth: int = 0) -> bool:
        """Whether all nodes behind `name`, up to the next neurons of known shape, take this shape."""
        ahead = [target for target in self.targets[name] if (target, shape) not in seen]
        seen |= {(target, shape) for target in ahead}
        return depth > CHAIN_MAX or all(self._takes(target, shape, seen, depth + 1) for target in ahead)

    def _takes(self, name: str, shape: Shape, seen: set[tuple[str, Shape]], depth: int) -> bool:
        item, node = self.lowered.get(name), self.nodes[name]
        if item is None:
            return True
        if isinstance(item, Neuron):
            grown = broadcast(item, shape) if _open(item) else item
            fits = grown.population.size == prod(shape)
            return fits and (not _open(item) or self._taken(name, shape, seen, depth))
        try:
            found = self.mapped(name, shape)
        except CompileError:
            return False
        if found.weight is not None and found.weight.shape[1] != prod(shape):
            return False
        return isinstance(node, (nir.Affine, nir.Linear)) or self._taken(name, found.shape, seen, depth)

    def _rank(self, name: str, seen: set[str], depth: int = 0) -> int | None:
        """Return the number of dimensions that the nodes behind `name` take, None if they leave it open."""
        ranks: set[int | None] = {None} if depth > CHAIN_MAX else set()
        for target in [target for target in self.targets[name] if target not in seen and not ranks & {None}]:
            seen.add(target)
            item, node = self.lowered.get(target), self.nodes[target]
            if type(node) in RANKS:
                ranks.add(RANKS[type(node)])
            elif isinstance(item, Neuron) and item.population.size > 1:
                ranks.add(len(item.population.shape))
            elif item is not None and not isinstance(node, (nir.Flatten, nir.Scale)):
                ranks.add(self._rank(target, seen, depth + 1))
            else:
                ranks.add(None)
        return ranks.pop() if len(ranks) == 1 else None
