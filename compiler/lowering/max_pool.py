"""Max pooling as graded relays: a tournament of max(a, b) = b + max(a - b, 0).

A `MaxPool` node becomes populations without memory. NAME.in relays the sums that are pooled; each level of
the tournament is a population NAME.1, NAME.2, ... of rectifiers that take the differences of pairs; NAME
relays the winners. Between them lie linear nodes of ones. All edges are within a step, so the stages that a
chip needs for them are aligned with everything else by retiming, and the integers of a program are compared
as they are: an exponent is applied to the winners alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, eye_array

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.frontends.nir_extensions import MaxPool
from snn_compile.compiler.linear_maps import MATRIX_MAX, WINDOW_MAX, LinearMap
from snn_compile.compiler.lowering.nodes import Linear, Neuron, lower_node
from snn_compile.compiler.network import Population
from snn_compile.targets.errors import CompileError

Index = npt.NDArray[np.int64]
Expression = dict[str, csr_array]
"""Weights (values, source) by source."""


@dataclass(frozen=True, eq=False)
class Relay:
    """Neurons without memory that send what they receive, or its positive part."""

    shape: tuple[int, ...]
    rectified: bool = False


@dataclass(frozen=True, eq=False)
class Choice:
    """A linear node of a sparse weight."""

    shape: tuple[int, ...]
    weight: csr_array


@lower_node.register
def _(node: Relay, name: str, contract: Contract) -> Neuron:
    parameters = {"input_bias": np.zeros(1), "offset": np.zeros(1)}
    model = "rectifier" if node.rectified else "relay"
    return Neuron(Population(name, node.shape, model, parameters), np.ones(1))


@lower_node.register
def _(node: Choice, name: str, contract: Contract) -> Linear:
    return lambda shape: LinearMap(node.shape, node.weight)


def unfold_pools(
    nodes: Mapping[str, Any], edges: Sequence[tuple[str, str]], contract: Contract
) -> tuple[dict[str, Any], list[tuple[str, str]], dict[tuple[str, str], int]]:
    """Return nodes, edges and delays of a graph with every MaxPool node made of relays."""
    pools = {name for name, node in nodes.items() if isinstance(node, MaxPool)}
    found: dict[str, Any] = {}
    into = {name: f"{name}.in" for name in pools}
    added = [(source, into.get(target, target)) for source, target in edges]
    for name, node in nodes.items():
        if name not in pools:
            found[name] = node
            continue
        made, inner = _tournament(name, node)
        if taken := sorted(made.keys() & (nodes.keys() - {name})):
            raise CompileError(
                f"node {name!r}: max pooling makes a node {taken[0]!r}, which is there", node=name
            )
        found |= made
        added += inner
    delays = {(source, into.get(target, target)): n for (source, target), n in contract.delays.items()}
    return found, added, delays


def _tournament(name: str, node: MaxPool) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    before, after, members = pool_members(name, node)
    nodes: dict[str, Any] = {f"{name}.in": Relay(before)}
    edges: list[tuple[str, str]] = []
    count, size = members.shape[1], prod(before)
    left: list[Expression] = [
        {f"{name}.in": csr_array((np.ones(count), (np.arange(count), row)), shape=(count, size))}
        for row in members
    ]
    level = 0
    while len(left) > 1:
        level += 1
        pairs = list(zip(left[::2], left[1::2], strict=False))
        stage, shape = f"{name}.{level}", (len(pairs), *after)
        nodes[stage] = Relay(shape, rectified=True)
        _connect(stage, shape, [_plus(a, b, -1.0) for a, b in pairs], nodes, edges)
        winners: list[Expression] = []
        for number, (_, b) in enumerate(pairs):
            place = csr_array(eye_array(count, len(pairs) * count, k=number * count))
            winners.append({**b, stage: place})
        left = winners + (left[-1:] if len(left) % 2 else [])
    nodes[name] = Relay(after)
    _connect(name, after, left, nodes, edges)
    return nodes, edges


def _connect(
    target: str,
    shape: tuple[int, ...],
    parts: list[Expression],
    nodes: dict[str, Any],
    edges: list[tuple[str, str]],
) -> None:
    """Add a linear node per source of stacked expressions."""
    from scipy.sparse import vstack

    sources = dict.fromkeys(source for part in parts for source in part)
    for source in sources:
        columns = next(part[source] for part in parts if source in part).shape[1]
        rows = parts[0][next(iter(parts[0]))].shape[0]
        blocks = [part.get(source, csr_array((rows, columns))) for part in parts]
        between = f"{target}<{source}"
        nodes[between] = Choice(shape, csr_array(vstack(blocks)))
        edges += [(source, between), (between, target)]


def _plus(a: Expression, b: Expression, factor: float) -> Expression:
    found = dict(a)
    for source, weight in b.items():
        found[source] = csr_array(found[source] + factor * weight) if source in found else factor * weight
    return found


def pool_of(name: str, projections: Sequence[Any]) -> str:
    """Return the population whose sums a level, or the winners, of a tournament compares; "" for others."""
    head, _, tail = name.rpartition(".")
    base = head if tail.isdigit() else name
    sources = {edge.source for edge in projections if edge.target == name}
    own = {source for source in sources if source == f"{base}.in" or source.startswith(f"{base}.")}
    return f"{base}.in" if sources and own == sources else ""


def pool_members(name: str, node: MaxPool) -> tuple[tuple[int, ...], tuple[int, ...], Index]:
    """Return the shapes before and after a pool, and the members of each window, (places, windows).

    Padding never wins: a place in it holds another member of its window.
    """
    before = tuple(int(n) for n in np.asarray(node.input_shape).reshape(-1))
    kernel, stride, padding, dilation = (
        tuple(int(n) for n in np.asarray(getattr(node, key)).reshape(-1))
        for key in ("kernel_size", "stride", "padding", "dilation")
    )
    after = tuple(int(n) for n in np.asarray(node.output_shape).reshape(-1))
    if prod(kernel) > WINDOW_MAX or prod(kernel) * prod(after) > MATRIX_MAX:
        raise CompileError(f"node {name!r}: windows of {kernel} at {after} positions are too many", node=name)
    flat = np.arange(prod(before)).reshape(before)
    places = []
    for tap in np.ndindex(*kernel):
        rows = [
            np.arange(n) * s - p + t * d
            for n, s, p, t, d in zip(after[1:], stride, padding, tap, dilation, strict=True)
        ]
        inside = [(row >= 0) & (row < size) for row, size in zip(rows, before[1:], strict=True)]
        clipped = [np.clip(row, 0, size - 1) for row, size in zip(rows, before[1:], strict=True)]
        index = flat[np.ix_(np.arange(before[0]), *clipped)]
        real = np.ones(after[:1], bool)
        for one in inside:
            real = real[..., None] & one
        places.append(np.where(real, index, -1).reshape(-1))
    members = np.stack(places)
    first = members[(members >= 0).argmax(axis=0), np.arange(members.shape[1])]
    if (first < 0).any():
        raise CompileError(f"node {name!r}: a window lies in the padding alone", node=name)
    return before, after, np.where(members >= 0, members, first)
