"""Projections as layers: what they store, what a dense pass multiplies, whom each source reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from snn_compile.targets.program.kernels import Kernel, shared_kernel
from snn_compile.targets.program.program import Program, Projection

BASE = 1 << 10
"""Tells the weights of a synapse apart that lie in several tables; beyond any weight of 8 bits."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One projection; a weight that is split over several tables counts once.

    `kind`: "convolution" (a kernel that positions share), "dense" or "sparse", by how a table is stored.
    `weights`: numbers that the layer stores, `zeros` of them zero; a sparse layer stores no zeros.
    `connections`: products of one dense pass, zeros included, positions beyond an image's edge left out.
    `fan_out`: weights other than zero that each source reaches, (source,). `weight_bits`: the widest table's;
    `storage_bits`: of all weights in all tables. `message_bits`: 1 for spikes. `recurrent`: the projection
    lies on a cycle.
    """

    name: str
    source: str
    target: str
    kind: str
    weights: int
    zeros: int
    connections: int
    fan_out: npt.NDArray[np.int64]
    weight_bits: int
    storage_bits: int
    message_bits: int
    recurrent: bool


_layers: WeakKeyDictionary[Program, tuple[Layer, ...]] = WeakKeyDictionary()


def layers(program: Program) -> tuple[Layer, ...]:
    """Return the projections of a program as layers, in its order."""
    if program not in _layers:
        reach = _reachable(program)
        _layers[program] = tuple(_layer(program, edge, reach) for edge in program.projections)
    return _layers[program]


def _layer(program: Program, edge: Projection, reach: Mapping[str, set[str]]) -> Layer:
    shapes = {node.name: node.shape for node in program.nodes}
    target, source = shapes[edge.target], shapes[edge.source]
    joined = _joined(edge)
    nonzero = int(joined.nnz)
    found = shared_kernel(joined, target, source) if len(target) == len(source) == 3 else None
    dense = not all(table.sparse for table in edge.tables)
    if found is not None:
        kind, taps = "convolution", found.weights.shape[2] * found.weights.shape[3]
        # A pair of channels without any weight is a grouped kernel's, and stores and multiplies nothing.
        pairs = int(np.count_nonzero(found.weights.any(axis=(2, 3))))
        weights, connections = pairs * taps, pairs * _positions(found, target, source)
        zeros = weights - int(np.count_nonzero(found.weights))
    elif dense:
        kind, weights = "dense", joined.shape[0] * joined.shape[1]
        connections, zeros = weights, weights - nonzero
    else:
        kind, weights, connections, zeros = "sparse", nonzero, nonzero, 0
    storage = sum((table.synapses if kind == "sparse" else weights) * table.bits for table in edge.tables)
    return Layer(
        edge.name,
        edge.source,
        edge.target,
        kind,
        weights,
        zeros,
        connections,
        np.bincount(joined.indices, minlength=joined.shape[1]),
        max(table.bits for table in edge.tables),
        storage,
        _message_bits(program, edge),
        edge.source in reach[edge.target],
    )


def _positions(kernel: Kernel, target: tuple[int, ...], source: tuple[int, ...]) -> int:
    """Return the number of taps of all target positions that lie within the source."""
    inside = []
    for axis in range(2):
        places = np.arange(target[1 + axis]) * kernel.stride[axis] + kernel.origin[axis]
        taps = places[:, None] + np.arange(kernel.weights.shape[2 + axis])
        inside.append(int(((taps >= 0) & (taps < source[1 + axis])).sum()))
    return inside[0] * inside[1]


def _joined(edge: Projection) -> csr_array:
    """Return one table, (target, source), that is zero where every table is and differs where any does."""
    total = csr_array(edge.tables[0].weights.astype(np.int64))
    for table in edge.tables[1:]:
        total = csr_array(total * BASE + csr_array(table.weights.astype(np.int64)))
        total.eliminate_zeros()
        # Numbered anew, so that any number of tables stays within exact floats.
        total.data = 1 + np.unique(total.data, return_inverse=True)[1]
    total.eliminate_zeros()
    total.sort_indices()
    return total


def _message_bits(program: Program, edge: Projection) -> int:
    for port in program.inputs:
        if port.name == edge.source:
            return port.bits + port.signed if port.kind == "graded" else 1
    return max(1, *(table.message_bits for table in edge.tables))


def _reachable(program: Program) -> dict[str, set[str]]:
    """Return, by population, everything that its messages reach, over any number of projections."""
    onward: dict[str, set[str]] = {node.name: set() for node in program.nodes}
    for edge in program.projections:
        onward[edge.source].add(edge.target)
    found = {}
    for start in onward:
        seen: set[str] = set()
        ahead = list(onward[start])
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += onward[name]
        found[start] = seen
    return found
