"""Axons as a directed hypergraph: one hyperedge leads from a source's block to the blocks that it reaches.

Source neurons of one block that reach the same blocks share a hyperedge (Ronzani, Silvano, arXiv 2601.16118,
section 3, has one per axon). It carries their messages per step, which every other core in its reach is
sent, and their number, which every core in its reach holds as input axons. Projections whose kernels
positions share enter by population axons, which do not depend on the number of sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.mapping.blocks import Block
from snn_compile.compiler.mapping.core_memory import CoreMemory
from snn_compile.compiler.mapping.work import Work, labels

HOST = -1
"""Source of the hyperedges of inputs, whose messages come from outside the mesh."""

Bits = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Hypergraph:
    """Hyperedges, and by block those that reach it: `edges[starts[b]:starts[b + 1]]`.

    `source`: a block, or HOST. `messages` per step; `axons`: input axons in each core reached.
    """

    source: npt.NDArray[np.int32]
    messages: npt.NDArray[np.float64]
    axons: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int32]


def hypergraph(memory: CoreMemory, work: Work, blocks: Sequence[Block], traffic: bool = True) -> Hypergraph:
    """Return the hypergraph of some blocks; without `traffic` of input axons alone, in less time."""
    network = memory.network
    label = labels(network, blocks)
    numbers: dict[str, list[int]] = {p.name: [] for p in network.populations}
    for number, block in enumerate(blocks):
        numbers[block.population].append(number)
    parts: list[tuple[Any, ...]] = []
    for node in network.nodes:
        targets = dict.fromkeys(e.target for e in network.projections if e.source == node.name)
        owner = np.array([number for target in targets for number in numbers[target]], np.int64)
        if not owner.size:
            continue
        row = np.zeros(len(blocks), np.int64)
        row[owner] = np.arange(owner.size)
        rows = {target: row[label[target]] for target in targets}
        reached, counted = _reach(memory, node.name, (owner.size, node.size), rows, traffic)
        # Input axons alone do not depend on where the sources are.
        here = label.get(node.name) if traffic else None
        from_block = np.full(node.size, HOST, np.int32) if here is None else here
        parts += _grouped(reached, counted, from_block, work.rates[node.name], owner)
    return _joined(parts, len(blocks))


def _reach(
    memory: CoreMemory,
    source: str,
    shape: tuple[int, int],
    rows: dict[str, npt.NDArray[np.int64]],
    traffic: bool,
) -> tuple[Bits, Bits]:
    """Return (target blocks, sources): who reaches whom at all, and who does by an axon of its own.

    `rows`: by target, the row of each neuron's block.
    """
    shared: Bits = np.zeros(shape, bool)
    counted: Bits = np.zeros(shape, bool)
    for target, row in rows.items():
        for table, kernel in memory.tables(source, target):
            if kernel and not traffic:
                continue
            if memory.dense and not table.sparse:
                counted[np.unique(row)] |= table.fan_out > 0
                continue
            found = shared if kernel else counted
            stored = table.nonzero
            found[np.repeat(row, np.diff(stored.indptr)), stored.indices] = True
    return shared | counted, counted


def _grouped(
    reached: Bits, counted: Bits, from_block: npt.NDArray[np.int32], rate: npt.NDArray[np.float64], owner: Any
) -> list[tuple[Any, ...]]:
    """Return (source, messages, axons, blocks) of each group of sources that reach the same blocks."""
    key = np.random.default_rng(0).integers(1, 1 << 62, 2 * len(owner), np.uint64)
    signature = np.zeros(len(rate), np.uint64)
    for row, value in zip((*reached, *counted), key, strict=True):
        signature[row] += value
    received: Bits = np.asarray(reached.any(axis=0))
    order = np.lexsort((signature, from_block))
    order = order[received[order]]
    if not order.size:
        return []
    change = (np.diff(signature[order]) != 0) | (np.diff(from_block[order]) != 0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    sizes = np.diff(np.concatenate([starts, [order.size]]))
    messages = np.add.reduceat(rate[order], starts)
    found: list[tuple[Any, ...]] = []
    one = order[starts]
    for k, sample in enumerate(one):
        reach, own = reached[:, sample], counted[:, sample]
        together = bool((reach == own).all())
        found.append((from_block[sample], messages[k], sizes[k] * together, owner[reach]))
        if own.any() and not together:
            found.append((from_block[sample], 0.0, sizes[k], owner[own]))
    return found


def _joined(parts: list[tuple[Any, ...]], blocks: int) -> Hypergraph:
    source, messages, axons, pins = zip(*parts, strict=True) if parts else ((), (), (), ())
    edge = np.repeat(np.arange(len(pins), dtype=np.int32), [len(p) for p in pins])
    pin = np.concatenate([*pins, np.zeros(0, int)]).astype(np.int64)
    order = np.argsort(pin, kind="stable")
    starts = np.searchsorted(pin[order], np.arange(blocks + 1))
    return Hypergraph(
        np.array(source, np.int32),
        np.array(messages, np.float64),
        np.array(axons, np.int64),
        starts.astype(np.int64),
        edge[order],
    )
