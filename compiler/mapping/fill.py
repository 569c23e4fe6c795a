"""Fill: one core after the other takes the blocks that suit its room best, for the fewest cores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.mapping.blocks import Block
from snn_compile.compiler.mapping.core_memory import RESOURCES, CoreMemory, core_limits
from snn_compile.compiler.mapping.hypergraph import Hypergraph, hypergraph
from snn_compile.compiler.mapping.work import Work

Float = npt.NDArray[np.float64]
Cores = npt.NDArray[np.int64]

WORDS, IN_AXONS = RESOURCES.index("words"), RESOURCES.index("in_axons")


@dataclass(frozen=True, eq=False)
class Needs:
    """What blocks use, (blocks, resources), without the axons of hyperedges, and their times per step."""

    blocks: list[Block]
    need: Float
    ns: Float
    graph: Hypergraph


def needs_of(memory: CoreMemory, work: Work, blocks: list[Block], traffic: bool = False) -> Needs:
    """Return what blocks need; without `traffic` the hypergraph holds input axons alone."""
    need = np.array([[memory.alone(b)[key] for key in RESOURCES] for b in blocks], np.float64)
    axons = np.array([sum(map(len, memory.sources(b).values())) for b in blocks], np.float64)
    need[:, IN_AXONS] -= axons
    need[:, WORDS] -= axons * memory.chip.memory.in_axon_words
    ns = np.array([work.block_ns(b) for b in blocks])
    return Needs(blocks, need, ns, hypergraph(memory, work, blocks, traffic))


def fill(needs: Needs, memory: CoreMemory, most_ns: float, noise: Float) -> Cores:
    """Return the core of each block; no core of several blocks takes more than a time per step.

    The block that suits a core is the one with the largest dot product of its use and the core's room, in
    shares of the limits and weighted by demand (Panigrahy et al. 2011), times its `noise`.
    """
    graph, n = needs.graph, len(needs.blocks)
    limits = np.array(list(core_limits(memory.chip).values()), np.float64)
    per_axon = np.zeros(len(limits) + 1)
    per_axon[IN_AXONS], per_axon[WORDS] = 1.0, memory.chip.memory.in_axon_words
    limits = np.append(limits, most_ns)
    by_edge = np.argsort(graph.edges, kind="stable")
    owner = np.repeat(np.arange(n), np.diff(graph.starts))[by_edge]
    first = np.searchsorted(graph.edges[by_edge], np.arange(len(graph.axons) + 1))
    sums = np.concatenate([[0], np.cumsum(graph.axons[graph.edges])])
    alone = (sums[graph.starts[1:]] - sums[graph.starts[:-1]]).astype(np.float64)
    whole = np.column_stack([needs.need, needs.ns]) + alone[:, None] * per_axon
    demand = whole.sum(axis=0) / limits
    weight = demand / max(demand.max(), 1e-300) / limits
    core = np.full(n, -1, np.int64)
    cores = 0
    while (core < 0).any():
        more, used, empty = whole.copy(), np.zeros(len(limits)), True
        present = np.zeros(len(graph.axons), bool)
        while True:
            open_ = core < 0
            if not empty:
                open_ &= (used + more <= limits + 1e-9).all(axis=1)
            if not open_.any():
                break
            score = np.where(open_, more @ (weight * np.maximum(1 - used / limits, 0)) * noise, -1.0)
            chosen = int(np.argmax(score))
            core[chosen], empty = cores, False
            used += more[chosen]
            reached = graph.edges[graph.starts[chosen] : graph.starts[chosen + 1]]
            reached = reached[~present[reached] & (graph.axons[reached] > 0)]
            present[reached] = True
            if reached.size:
                pins = np.concatenate([owner[first[h] : first[h + 1]] for h in reached])
                counts = first[reached + 1] - first[reached]
                taken = np.bincount(pins, np.repeat(graph.axons[reached], counts), n)
                more -= taken[:, None] * per_axon
        cores += 1
    return core
