"""The search of `--mapper best`: cut, fill, and anneal, for the fewest cores, then the least time, then hops.

1. Populations are cut in several sizes of block; cores are filled with the blocks of each (`kernel.fill`).
   The size that takes the fewest cores is kept, and cores are filled again up to the least time that still
   takes as few.
2. Blocks are moved and exchanged between cores, and cores between tiles, by simulated annealing: first for
   the longest time of a core or link, then for hops at no longer time. It is seeded and ends after a count
   of moves that follows from the effort and the size of the network alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf
from typing import NamedTuple

import numpy as np

from snn_compile.compiler.mapping.blocks import Block
from snn_compile.compiler.mapping.core_memory import RESOURCES, CoreMemory, Present, core_limits
from snn_compile.compiler.mapping.cuts import Size, cut
from snn_compile.compiler.mapping.fill import Cores, Needs, fill, needs_of
from snn_compile.compiler.mapping.lower_bound import least_cores
from snn_compile.compiler.mapping.vendor import vendor_blocks
from snn_compile.compiler.mapping.work import Work
from snn_compile.targets.chips.chip import Chip

EFFORTS = (1, 2, 3, 4, 5)
DEFAULT_EFFORT = 2

SIZES = (
    (1, inf),
    (1 / 2, 1),
    (1 / 3, 1 / 2),
    (1 / 4, 1 / 3),
    (1, 1),
    (1 / 2, inf),
    (1 / 6, 1 / 4),
    (1 / 8, 1 / 6),
)
"""Sizes of block that are tried: the share of a core, and of the mean time of a core."""

SIZES_TRIED = {1: 4, 2: 8, 3: 8, 4: 8, 5: 8}
NOISES = {1: 2, 2: 2, 3: 8, 4: 16, 5: 32}
"""Fillings tried per size, all but the first with noise."""

VISITS = {1: 0, 2: 22_000_000, 3: 80_000_000, 4: 200_000_000, 5: 350_000_000}
"""Hyperedges and cores visited by annealing; a move visits those of its block."""

MOVES = {1: 0, 2: 3000, 3: 10_000, 4: 40_000, 5: 150_000}
"""Moves per block and core, at most."""

BLOCKS_MOST, FILLED_MOST, COUNTS_MOST = 4000, 3_000_000, 30_000_000
"""Blocks, ends of hyperedges times cores, and hyperedges times cores, up to which a network is searched."""

TRIAL = 4
"""Moves of the last annealings, per move of those that choose among fillings, all together."""


class Cooling(NamedTuple):
    """First and last temperature, in the units of what is lowered, and the share of changes that exchange
    cores; the others move blocks.
    """

    first: float
    last: float
    trades: float = 0.3


FOR_TIME = Cooling(0.02, 1e-4)
FOR_HOPS = (Cooling(0.02, 1e-5), Cooling(0.005, 1e-5), Cooling(0.05, 1e-5, trades=1.0))


@dataclass(frozen=True, eq=False)
class Assignment:
    """Blocks, the core of each, and the slot of each core."""

    blocks: Sequence[Block]
    core: Cores
    slot: Cores


def best_cores(
    memory: CoreMemory, work: Work, fewest: Sequence[Block], effort: int, spread: int | None = None
) -> tuple[list[list[Block]], tuple[int, ...]]:
    """Return the blocks of each core, and the cores' slots; `fewest`: the fewest blocks that fit a core.

    `spread`: cores that may be taken for a shorter step where fewer would do.
    """
    others = [_assignment(memory, first_fit(fewest, memory))]
    if memory.network.populations and len(fewest) <= BLOCKS_MOST:
        for rows in (memory, memory.with_dense_rows()):
            alone: list[list[Block]] = []
            for p in memory.network.populations:
                alone += [[block] for block in vendor_blocks(p.name, p.shape, rows, memory.chip)]
            if all(_fits(memory, core) for core in alone):
                others.append(_assignment(memory, alone))
    found, *time = _search(memory, work, fewest, effort, others, 0)
    if spread is not None and len(found.slot) < spread:
        wider, *its = _search(memory, work, fewest, effort, others, spread)
        found = wider if its < time else found
    order = np.argsort(found.slot, kind="stable")
    number = np.argsort(order)[found.core]
    cores: list[list[Block]] = [[] for _ in order]
    for block, core in zip(found.blocks, number, strict=True):
        cores[core].append(block)
    held = [k for k, core in enumerate(cores) if core]
    cores = [_joined(memory, core) for core in cores]
    return [cores[k] for k in held], tuple(int(found.slot[order[k]]) for k in held)


def _joined(memory: CoreMemory, core: list[Block]) -> list[Block]:
    """Join blocks of a population that lie beside each other on a core, which then share rows."""
    joined = True
    while joined:
        joined = False
        for a, b in combinations(core, 2):
            whole = a.joined(b)
            if whole is None:
                continue
            fewer = [whole, *(block for block in core if block not in (a, b))]
            if _fits(memory, fewer):
                core, joined = fewer, True
                break
    return core


def first_fit(blocks: Sequence[Block], memory: CoreMemory) -> list[list[Block]]:
    """Put each block into the first core with room."""
    most = core_limits(memory.chip)
    cores: list[list[Block]] = []
    used: list[dict[str, float]] = []
    there: list[Present] = []
    for block in blocks:
        for index, use in enumerate(used):
            added = memory.added(block, there[index])
            if all(use[key] + added[key] <= limit for key, limit in most.items()):
                break
        else:
            index, added = len(cores), memory.alone(block)
            cores.append([])
            used.append(dict.fromkeys(most, 0.0))
            there.append(Present())
        cores[index].append(block)
        used[index] = {key: used[index][key] + added[key] for key in most}
        there[index].add(memory.sources(block))
    return cores


def _fits(memory: CoreMemory, core: list[Block]) -> bool:
    use = memory.core(core)
    return all(use[key] <= limit for key, limit in core_limits(memory.chip).items())


def _assignment(memory: CoreMemory, cores: list[list[Block]]) -> Assignment:
    core = np.repeat(np.arange(len(cores)), [len(blocks) for blocks in cores])
    return Assignment([block for blocks in cores for block in blocks], core, _row_major(memory, len(cores)))


def _search(
    memory: CoreMemory,
    work: Work,
    fewest: Sequence[Block],
    effort: int,
    others: Sequence[Assignment],
    spread: int,
) -> tuple[Assignment, float, float]:
    """Return the best assignment found, no worse than any of `others` on as many cores; its time and hops.

    Both are infinite where nothing was searched.
    """
    if len(fewest) > BLOCKS_MOST:
        return min(others, key=lambda found: len(found.slot)), inf, inf
    found = [*_filled(memory, work, list(fewest), effort, spread), *others]
    least = max(min(len(one.slot) for one in found), spread)
    found = [one for one in found if len(one.slot) <= least]
    if least == 1:
        return found[0], work.total_ns, 0.0
    needs = [needs_of(memory, work, list(one.blocks), traffic=True) for one in found]
    if max(len(one.graph.source) for one in needs) * least > COUNTS_MOST:
        return found[0], inf, inf
    found = [_near(memory, one, its) for one, its in zip(found, needs, strict=True)]
    moves = [_moves(its, len(one.slot), effort) for one, its in zip(found, needs, strict=True)]
    # Which filling is the best one depends on where its cores are.
    tried = [
        _annealed(memory, one, its, most // (TRIAL * len(found)))
        for one, its, most in zip(found, needs, moves, strict=True)
    ]
    at = min(range(len(found)), key=lambda k: tried[k][1:])
    best, ns, hops = tried[at]
    if left := moves[at]:
        shortest = max(float(needs[at].ns.max()), float(needs[at].ns.sum()) / len(best.slot))
        if ns > shortest * (1 + 1e-9):
            best, ns, hops = _annealed(memory, best, needs[at], left)
        else:
            left *= 2
        for cooling in FOR_HOPS:
            best, ns, hops = _annealed(memory, best, needs[at], left, ns, cooling)
    return best, ns, hops


def _near(memory: CoreMemory, one: Assignment, its: Needs) -> Assignment:
    """Return cores along a Hilbert curve, exchanged while hops fall; those of several chips as they are."""
    from snn_compile.compiler.mapping.kernel import exchange

    if memory.chip.chips > 1 or len(one.slot) > memory.chip.cores:
        return one
    graph, cores = its.graph, len(one.slot)
    reached = np.zeros((len(graph.source), cores), bool)
    reached[graph.edges, np.repeat(one.core, np.diff(graph.starts))] = True
    sends = graph.source >= 0
    sent = np.zeros((cores, cores))
    np.add.at(sent, one.core[graph.source[sends]], reached[sends] * graph.messages[sends, None])
    columns, rows, each = slots_per_chip(memory.chip)
    row, column = np.divmod(np.arange(columns * rows * each) // each, columns)
    far = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    slot = np.array(hilbert(columns, rows, each)[:cores])
    at = np.full(len(far), -1)
    at[slot] = np.arange(cores)
    exchange(sent + sent.T, far.astype(np.float64), slot, at)
    return replace(one, slot=slot)


def hilbert(columns: int, rows: int, each: int) -> list[int]:
    """Return the slots of a chip, tile after tile along a Hilbert curve through a square that holds them."""
    side = 1 << (max(columns, rows) - 1).bit_length()
    found: list[int] = []
    for index in range(side * side):
        x, y, rest, scale = 0, 0, index, 1
        while scale < side:
            right, up = (rest >> 1) & 1, (rest ^ (rest >> 1)) & 1
            if not up:
                x, y = (scale - 1 - x, scale - 1 - y) if right else (x, y)
                x, y = y, x
            x, y = x + scale * right, y + scale * up
            rest, scale = rest >> 2, 2 * scale
        if x < columns and y < rows:
            found += [(y * columns + x) * each + k for k in range(each)]
    return found


def _moves(its: Needs, cores: int, effort: int) -> int:
    """Return the moves of one annealing: as many as the effort's visits allow, and no more than its moves."""
    n = len(its.blocks)
    moves = VISITS[effort] // (4 * (len(its.graph.edges) // n + 1) + 6 * cores)
    return min(moves, MOVES[effort] * (n + cores)) // 2


def _filled(
    memory: CoreMemory, work: Work, fewest: list[Block], effort: int, spread: int
) -> list[Assignment]:
    """Return, of the sizes of block that take the fewest cores, each filled to the least time.

    With `spread` that is of those that take no more cores than this.
    """
    most, mean = core_limits(memory.chip), work.total_ns / max(least_cores(memory), spread, 1)
    tried: list[tuple[int, Needs, Cores]] = []
    for number, (share, time) in enumerate(SIZES[: SIZES_TRIED[effort]]):
        blocks: list[Block] = fewest if number == 0 else []
        for p in memory.network.populations if number else ():
            found = cut(p.name, p.shape, memory, work, most, Size(share, time * mean))
            blocks += found or [block for block in fewest if block.population == p.name]
        if not blocks or len(blocks) > BLOCKS_MOST or any(blocks == needs.blocks for _, needs, _ in tried):
            continue
        needs = needs_of(memory, work, blocks)
        if tried and len(needs.graph.edges) * max(least_cores(memory), 1) > FILLED_MOST:
            continue
        core = _fewest_filled(needs, memory, inf, effort)
        tried.append((int(core.max()) + 1, needs, core))
    least = max(min((cores for cores, _, _ in tried), default=0), spread)
    return [
        Assignment(needs.blocks, core, _row_major(memory, int(core.max()) + 1))
        for cores, needs, first in tried
        if cores <= least
        for core in _balanced(needs, memory, first, least, effort)
    ]


def _fewest_filled(needs: Needs, memory: CoreMemory, most_ns: float, effort: int) -> Cores:
    """Return the filling of the fewest cores among some with noise."""
    rng, n = np.random.default_rng(1), len(needs.blocks)
    most = min(most_ns, float(needs.ns.sum()) + 1.0)
    found = fill(needs, memory, most, np.ones(n))
    few = len(needs.graph.edges) * (int(found.max()) + 1) <= FILLED_MOST
    for _ in range(NOISES[effort] - 1 if few else 0):
        if found.max() == 0:
            break
        core = fill(needs, memory, most, np.exp(0.3 * rng.standard_normal(n)))
        if core.max() < found.max():
            found = core
    return found


def _balanced(needs: Needs, memory: CoreMemory, first: Cores, least: int, effort: int) -> list[Cores]:
    """Return cores filled up to the least time that takes no more of them, by bisection."""
    found = first
    if len(needs.graph.edges) * least > 4 * FILLED_MOST:
        return [found]
    low, high = float(needs.ns.sum()) / least, float(np.bincount(first, needs.ns).max())
    for _ in range(8):
        middle = (low + high) / 2
        core = _fewest_filled(needs, memory, middle, effort)
        if core.max() < least:
            found, high = core, middle
        else:
            low = middle
    return [found]


def slots_per_chip(chip: Chip) -> tuple[int, int, int]:
    """Return columns, rows and cores per tile of a chip's mesh, with as many rows as its cores need."""
    columns, rows = chip.grid
    return columns, max(rows, -(-chip.cores // (columns * chip.cores_per_tile))), chip.cores_per_tile


def _row_major(memory: CoreMemory, cores: int) -> Cores:
    columns, rows, each = slots_per_chip(memory.chip)
    index = np.arange(cores)
    return index // memory.chip.cores * (columns * rows * each) + index % memory.chip.cores


def _annealed(
    memory: CoreMemory,
    one: Assignment,
    needs: Needs,
    moves: int,
    limit_ns: float = 0.0,
    cooling: Cooling = FOR_TIME,
) -> tuple[Assignment, float, float]:
    """Anneal for time, or up to a limit of it for hops; return the best, its time and its hops per step."""
    from snn_compile.compiler.mapping.kernel import LINKS, State, anneal

    graph, cores, n = needs.graph, len(one.slot), len(one.blocks)
    columns, rows, each = slots_per_chip(memory.chip)
    chips = int(one.slot.max()) // (columns * rows * each) + 1
    at = np.full(chips * columns * rows * each, -1, np.int64)
    at[one.slot] = np.arange(cores)
    core = one.core.astype(np.int64)
    longest = float(np.bincount(core, needs.ns).max()) or 1.0
    state = State(
        core,
        needs.need,
        needs.ns,
        np.zeros((n, cores)),
        graph.source,
        graph.messages,
        graph.axons,
        graph.starts,
        graph.edges,
        np.zeros((len(graph.source), cores), np.int32),
        one.slot.astype(np.int64),
        np.zeros((cores, len(RESOURCES))),
        np.zeros((cores, cores)),
        np.zeros(cores + LINKS * chips * columns * rows),
        at,
        np.array(list(core_limits(memory.chip).values()), np.float64),
        np.array([columns, rows, each, cores]),
        np.array([memory.chip.memory.in_axon_words, longest], np.float64),
        np.zeros(2),
        np.zeros((2, cores)),
        np.zeros((8 * cores, 3)),
    )
    kept = (core.copy(), state.slot.copy(), np.full(2, inf))
    anneal(state, moves, 1, np.array(cooling[:2]), limit_ns, cooling.trades, kept)
    return Assignment(one.blocks, kept[0], kept[1]), float(kept[2][0]), float(kept[2][1])
