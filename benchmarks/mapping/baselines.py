"""Other mappers, and what a mapping costs, counted here neuron by neuron.

vendor             as Intel's compiler prints it; cores row by row
row-major          the fewest blocks, each into the first core with room; cores row by row
Hilbert + force    the same cores along a Hilbert curve, then exchanged in pairs while hops fall
greedy             blocks in random order, each to the core with room that has most of the same sources;
                   next the core with most traffic to those placed, where it costs the fewest hops; the
                   best of 20
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt
from networks import Drawn

from snn_compile.compiler.mapping.blocks import Block
from snn_compile.compiler.mapping.core_memory import CoreMemory, Present, core_limits
from snn_compile.compiler.mapping.kernel import EAST_WEST_NS, NORTH_SOUTH_NS
from snn_compile.compiler.mapping.partition import Partition, fewest_blocks, partition
from snn_compile.compiler.mapping.search import first_fit, slots_per_chip
from snn_compile.compiler.mapping.work import Work

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESTARTS = 20


@dataclass(frozen=True)
class Cost:
    """Cores, nanoseconds of the fullest core or link per step, and hops of all messages per step."""

    cores: int
    ns: float
    hops: float

    def no_worse(self, other: Cost) -> bool:
        """Whether cores, then time, then hops are no more, to 1e-9 of their size."""
        for mine, its in ((self.cores, other.cores), (self.ns, other.ns), (self.hops, other.hops)):
            if abs(mine - its) > 1e-9 * max(abs(its), 1.0):
                return mine < its
        return True


def cost(drawn: Drawn, cores: Sequence[Sequence[tuple[str, int, int]]], slots: Sequence[int]) -> Cost:
    """Count a mapping's cost; `cores` by slices, `slots` as in `place.py`, all on one chip.

    It is infinite in time and hops where the chip has too few cores.
    """
    if len(cores) > drawn.chip.cores:
        return Cost(len(cores), inf, inf)
    work = Work(drawn.network, drawn.chip, drawn.rates)
    busy = [sum(work.neuron_ns[name][a:b].sum() for name, a, b in slices) for slices in cores]
    sent = flow(drawn, _places(drawn, cores), len(cores))
    hops, links = traffic(sent, tiles(drawn, slots))
    return Cost(len(cores), float(max(*busy, links)), hops)


def _places(drawn: Drawn, cores: Sequence[Sequence[tuple[str, int, int]]]) -> dict[str, Ints]:
    """Return the core of each neuron, by population."""
    found = {p.name: np.full(p.size, -1) for p in drawn.network.populations}
    for number, slices in enumerate(cores):
        for name, start, stop in slices:
            found[name][start:stop] = number
    assert all((array >= 0).all() for array in found.values())
    return found


def flow(drawn: Drawn, place: dict[str, Ints], cores: int) -> Float:
    """Return messages per step from core to core: one per source neuron and core that holds its targets."""
    sent = np.zeros((cores, cores))
    for source, here in place.items():
        reach = np.zeros((here.size, cores), bool)
        for edge in drawn.network.projections:
            if edge.source == source:
                for table in edge.tables:
                    of_target = np.repeat(place[edge.target], np.diff(table.nonzero.indptr))
                    reach[table.nonzero.indices, of_target] = True
        rate = np.broadcast_to(np.asarray(drawn.rates[source]), here.shape)
        np.add.at(sent, here, reach * rate[:, None])
    np.fill_diagonal(sent, 0.0)
    return sent


def tiles(drawn: Drawn, slots: Sequence[int]) -> Ints:
    """Return (row, column) of each core."""
    columns, _, each = slots_per_chip(drawn.chip)
    tile = np.asarray(slots) // each
    return np.column_stack([tile // columns, tile % columns])


def traffic(sent: Float, tile: Ints) -> tuple[float, float]:
    """Return hops per step, and the time of the busiest link; messages go along a row, then a column."""
    hops = float((sent * np.abs(tile[:, None] - tile[None]).sum(axis=2)).sum())
    load: dict[tuple[int, int, int, int], float] = {}
    for a, b in zip(*np.nonzero(sent), strict=True):
        (row, column), (to_row, to_column) = tile[a], tile[b]
        while (row, column) != (to_row, to_column):
            across = column != to_column
            step = int(np.sign(to_column - column)) if across else int(np.sign(to_row - row))
            link = (row, column, 0, step) if across else (row, column, step, 0)
            ns = EAST_WEST_NS if across else NORTH_SOUTH_NS
            load[link] = load.get(link, 0.0) + sent[a, b] * ns
            row, column = (row, column + step) if across else (row + step, column)
    return hops, max(load.values(), default=0.0)


def best(drawn: Drawn, effort: int, spread: int | None = None) -> Cost:
    """Map by `--mapper best`."""
    found = partition(drawn.network, drawn.chip, "best", effort, drawn.rates, spread)
    return cost(drawn, found.cores, found.slots)


def vendor(drawn: Drawn) -> Cost:
    """Map as Intel's compiler prints it."""
    found: Partition = partition(drawn.network, drawn.chip, "vendor")
    return cost(drawn, found.cores, range(len(found.cores)))


def row_major(drawn: Drawn) -> Cost:
    """Map the fewest blocks, in their order."""
    cores = _slices(first_fit(_blocks(drawn), CoreMemory(drawn.network, drawn.chip)))
    return cost(drawn, cores, range(len(cores)))


def hilbert_force(drawn: Drawn) -> Cost:
    """Place the cores of row-major along a Hilbert curve, then by forces."""
    cores = _slices(first_fit(_blocks(drawn), CoreMemory(drawn.network, drawn.chip)))
    if len(cores) > drawn.chip.cores:
        return Cost(len(cores), inf, inf)
    sent = flow(drawn, _places(drawn, cores), len(cores))
    order = np.array(list(_hilbert_slots(drawn)))
    return cost(drawn, cores, _forced(sent + sent.T, order, len(cores), drawn))


def greedy(drawn: Drawn) -> Cost:
    """Return the best of many greedy mappings."""
    found = [_greedy(drawn, np.random.default_rng(seed)) for seed in range(RESTARTS)]
    return min(found, key=lambda one: (one.cores, one.ns, one.hops))


BASELINES: dict[str, Callable[[Drawn], Cost]] = {
    "vendor": vendor,
    "row-major": row_major,
    "Hilbert + force": hilbert_force,
    "greedy": greedy,
}


def _blocks(drawn: Drawn) -> list[Block]:
    memory = CoreMemory(drawn.network, drawn.chip)
    return [
        block
        for p in drawn.network.populations
        for block in fewest_blocks(p.name, p.shape, memory, drawn.chip)
    ]


def _slices(cores: Sequence[Sequence[Block]]) -> list[list[tuple[str, int, int]]]:
    return [[piece for block in core for piece in block.slices()] for core in cores]


def _hilbert_slots(drawn: Drawn) -> Iterator[int]:
    """Yield the slots of a chip, tile after tile along a Hilbert curve through a square that holds them."""
    columns, rows, each = slots_per_chip(drawn.chip)
    side = 1
    while side < max(columns, rows):
        side *= 2
    for index in range(side * side):
        x = y = 0
        rest, scale = index, 1
        while scale < side:
            right = 1 & (rest // 2)
            up = 1 & (rest ^ right)
            if up == 0:
                if right:
                    x, y = scale - 1 - x, scale - 1 - y
                x, y = y, x
            x, y = x + scale * right, y + scale * up
            rest, scale = rest // 4, 2 * scale
        if x < columns and y < rows:
            yield from ((y * columns + x) * each + k for k in range(each))


def _forced(both: Float, slots: Ints, cores: int, drawn: Drawn) -> list[int]:
    """Exchange each core with the best slot, empty or not, while hops fall."""
    n = len(slots)
    weight = np.zeros((n, n))
    weight[:cores, :cores] = both
    order, tile = slots.copy(), tiles(drawn, slots)
    far = np.abs(tile[:, None] - tile[None]).sum(axis=2).astype(float)
    at = np.arange(n)
    improved = True
    while improved:
        improved = False
        for a in range(cores):
            # Hops of core a in every slot, and of every core in a's, but for the messages between the two.
            of = far[:, at] @ weight[a]
            others = weight @ far[at[a]][at]
            gain = of[at[a]] + (weight * far[at][:, at]).sum(axis=1) - of[at] - others
            gain -= 2 * weight[a] * far[at[a], at]
            b = int(np.argmax(gain))
            if gain[b] > 1e-9:
                at[a], at[b] = at[b], at[a]
                improved = True
    return [int(order[at[k]]) for k in range(cores)]


def _greedy(drawn: Drawn, rng: np.random.Generator) -> Cost:
    memory, most = CoreMemory(drawn.network, drawn.chip), core_limits(drawn.chip)
    blocks = _blocks(drawn)
    cores: list[list[Block]] = []
    used: list[dict[str, float]] = []
    there: list[Present] = []
    for index in rng.permutation(len(blocks)):
        block = blocks[index]
        shared = [present.shared(memory.sources(block)) for present in there]
        for at in sorted(range(len(cores)), key=lambda k: (-shared[k], k)):
            added = memory.added(block, there[at])
            if all(used[at][key] + added[key] <= limit for key, limit in most.items()):
                break
        else:
            at, added = len(cores), memory.alone(block)
            cores.append([])
            used.append(dict.fromkeys(most, 0.0))
            there.append(Present())
        cores[at].append(block)
        used[at] = {key: used[at][key] + added[key] for key in most}
        there[at].add(memory.sources(block))
    slices = _slices(cores)
    fits = len(cores) <= drawn.chip.cores
    return cost(drawn, slices, _placed(drawn, slices) if fits else ())


def _placed(drawn: Drawn, cores: list[list[tuple[str, int, int]]]) -> list[int]:
    sent = flow(drawn, _places(drawn, cores), len(cores))
    both = sent + sent.T
    columns, rows, each = slots_per_chip(drawn.chip)
    free = np.arange(columns * rows * each)
    tile = tiles(drawn, free.tolist())
    slots = np.full(len(cores), -1)
    middle = int(np.argmin(np.abs(tile - tile.mean(axis=0)).sum(axis=1)))
    for _ in cores:
        done = slots >= 0
        pull = np.where(done, -1.0, both[:, done].sum(axis=1))
        core = int(np.argmax(pull)) if done.any() else int(np.argmax(both.sum(axis=1)))
        far = np.abs(tile[free][:, None] - tile[slots[done]][None]).sum(axis=2) @ both[core, done]
        spot = int(np.argmin(far)) if done.any() else int(np.argmax(free == middle))
        slots[core] = free[spot]
        free = np.delete(free, spot)
    return slots.tolist()
