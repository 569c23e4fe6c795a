"""The compiled loop of annealing: blocks are moved between cores, and cores between slots of the mesh.

Resources are numbered as `core_memory.RESOURCES`. Slot s is on tile s // slots per tile; tiles are numbered
row by row, chip after chip. Each function is called from one place, which keeps the compilation short.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

WORDS, IN_AXONS = 3, 4
SHARPNESS = 8
"""Exponent of the mean over cores and links that stands for their maximum."""

EAST_WEST_NS, NORTH_SOUTH_NS, PORT_NS = 4.1, 6.5, 15.0
"""Time of a message on a link of the mesh (Davies et al. 2018, table 2), and on one between chips: 12
bytes at 8 bits and 800 MHz."""

PORT_HOPS = 8
"""Hops that a message between chips counts as, beside those to and from the first tile of each."""

EAST, WEST, SOUTH, NORTH, PORT = range(5)
LINKS = 5
"""Links of a tile."""

START, MOVE, TRADE = range(3)
"""Changes: a block is put onto its core; a block moves to a core; a core moves to a slot."""


class State(NamedTuple):
    """A mapping while it is searched.

    By block: `core`; `need` (blocks, resources), without the input axons of hyperedges; `ns`, its time per
    step; `sent` (blocks, cores), its messages per step. By hyperedge: as in `hypergraph.py`, and `count`
    (hyperedges, cores), the blocks on a core that it reaches. By core: `slot`, `use` (cores, resources),
    `flow` (cores, cores), messages per step. `busy`: time per step of each core, then of the links of each
    tile. `at`: core of each slot, or -1. `mesh`: columns, rows, slots per tile, cores. `facts`: words per
    input axon, and the time that counts as 1 in sums of powers. `totals`: hops per step, the sum of powers.
    `arrivals`, `sends`: room for intermediate values.
    """

    core: Any
    need: Any
    ns: Any
    sent: Any
    source: Any
    messages: Any
    axons: Any
    starts: Any
    edges: Any
    count: Any
    slot: Any
    use: Any
    flow: Any
    busy: Any
    at: Any
    limits: Any
    mesh: Any
    facts: Any
    totals: Any
    arrivals: Any
    sends: Any


@njit(cache=True, error_model="numpy")
def send(s: Any, a: int, b: int, messages: float) -> None:
    """Add messages from one slot to another to hops and links: along a row, then a column.

    What a message costs depends on its two slots here alone. Between chips it passes the first tile of each.
    """
    columns, tiles, each = s.mesh[0], s.mesh[0] * s.mesh[1], s.mesh[2]
    tile, goal, target = a // each % tiles, b // each % tiles, b // each % tiles
    chip, last = a // each // tiles, b // each // tiles
    if chip != last:
        goal = 0
    while tile != goal or chip != last:
        x, y, u, v = tile % columns, tile // columns, goal % columns, goal // columns
        link, ns, hops, step = PORT, PORT_NS, PORT_HOPS, 0
        if x != u:
            link, ns, hops, step = (EAST, EAST_WEST_NS, 1, 1) if u > x else (WEST, EAST_WEST_NS, 1, -1)
        elif v > y:
            link, ns, hops, step = SOUTH, NORTH_SOUTH_NS, 1, columns
        elif v < y:
            link, ns, hops, step = NORTH, NORTH_SOUTH_NS, 1, -columns
        at = s.mesh[3] + LINKS * (chip * tiles + tile) + link
        before = s.busy[at]
        s.busy[at] = max(before + messages * ns, 0.0)
        s.totals[1] += (s.busy[at] / s.facts[1]) ** SHARPNESS - (before / s.facts[1]) ** SHARPNESS
        s.totals[0] += messages * hops
        tile += step
        if link == PORT:
            chip, goal = last, target


@njit(cache=True, error_model="numpy")
def _move(s: Any, block: int, before: int, after: int) -> int:
    """Move a block between cores (`before` -1: from nowhere); return the number of changed flows."""
    s.arrivals[:] = 0.0
    for side in range(2):
        core, sign = (before, -1) if side == 0 else (after, 1)
        if core < 0:
            continue
        for r in range(s.need.shape[1]):
            s.use[core, r] += sign * s.need[block, r]
        busy = s.busy[core]
        s.busy[core] += sign * s.ns[block]
        s.totals[1] += (s.busy[core] / s.facts[1]) ** SHARPNESS - (busy / s.facts[1]) ** SHARPNESS
        for k in range(s.starts[block], s.starts[block + 1]):
            h = s.edges[k]
            s.count[h, core] += sign
            if s.count[h, core] == (1 if sign > 0 else 0):
                s.use[core, IN_AXONS] += sign * s.axons[h]
                s.use[core, WORDS] += sign * s.axons[h] * s.facts[0]
                if s.source[h] >= 0:
                    s.sent[s.source[h], core] += sign * s.messages[h]
                    s.arrivals[side, s.core[s.source[h]]] += sign * s.messages[h]
    n = 0
    for d in range(s.use.shape[0]):
        for kind in range(4):
            a, b, messages = d, after, s.arrivals[1, d]
            if kind == 0:
                b, messages = before, s.arrivals[0, d]
            elif kind > 1:
                a, b, messages = (before, d, -s.sent[block, d]) if kind == 2 else (after, d, s.sent[block, d])
            if messages != 0.0 and before >= 0 or (kind == 1 and messages != 0.0):
                s.flow[a, b] += messages
                if a != b:
                    s.sends[n, 0], s.sends[n, 1], s.sends[n, 2] = s.slot[a], s.slot[b], messages
                    n += 1
    s.core[block] = after
    return n


@njit(cache=True, error_model="numpy")
def _trade(s: Any, first: int, slot: int) -> int:
    """Put a core into a slot, and the core there into its own; return the number of changed flows."""
    second, old, n = s.at[slot], s.slot[first], 0
    for sign in (-1.0, 1.0):
        for core in (first, second):
            for d in range(s.use.shape[0] if core >= 0 else 0):
                if d == core or (core == second and d == first):
                    continue
                for away in range(2):
                    messages = s.flow[core, d] if away else s.flow[d, core]
                    if messages != 0.0:
                        a, b = (s.slot[core], s.slot[d]) if away else (s.slot[d], s.slot[core])
                        s.sends[n, 0], s.sends[n, 1], s.sends[n, 2] = a, b, sign * messages
                        n += 1
        if sign < 0:
            s.slot[first], s.at[slot], s.at[old] = slot, first, second
            if second >= 0:
                s.slot[second] = old
    return n


@njit(cache=True, error_model="numpy")
def _propose(s: Any, ops: Any, timed: bool, trades: float) -> int:
    """Write a random change and its reverse into `ops` (4, kind and two numbers); return its length or 0."""
    cores, n = s.use.shape[0], s.core.size
    if np.random.random() < trades:
        core, slot = np.random.randint(cores), np.random.randint(s.at.size)
        back, chip = s.slot[core], s.mesh[0] * s.mesh[1] * s.mesh[2]
        ops[0, 0], ops[0, 1], ops[0, 2] = TRADE, core, slot
        ops[2, 0], ops[2, 1], ops[2, 2] = TRADE, core, back
        return 0 if slot == back or (s.at[slot] < 0 and slot // chip != back // chip) else 1
    b = np.random.randint(n)
    if timed and np.random.random() < 0.3:
        busiest = np.argmax(s.busy[:cores])
        while s.core[b] != busiest and s.busy[busiest] > 0:
            b = (b + 1) % n
    back, core, other = s.core[b], np.random.randint(cores), -1
    if np.random.random() < 0.57:
        other = np.random.randint(n)
        core = s.core[other]
    elif s.starts[b + 1] > s.starts[b] and np.random.random() < 0.5:
        source = s.source[s.edges[s.starts[b] + np.random.randint(s.starts[b + 1] - s.starts[b])]]
        core = s.core[source] if source >= 0 else core
    if core == back:
        return 0
    for r in range(s.need.shape[1]):
        # What input axons take depends on the others, and is held against the limits after the change.
        more = s.need[b, r] - (s.need[other, r] if other >= 0 else 0.0)
        if r != WORDS and r != IN_AXONS and s.use[core, r] + more > s.limits[r]:
            return 0
        if r != WORDS and r != IN_AXONS and other >= 0 and s.use[back, r] - more > s.limits[r]:
            return 0
    ops[0, 0], ops[0, 1], ops[0, 2] = MOVE, b, core
    ops[1, 0], ops[1, 1], ops[1, 2] = MOVE, other, back
    ops[2, 0], ops[2, 1], ops[2, 2] = MOVE, b, back
    ops[3, 0], ops[3, 1], ops[3, 2] = MOVE, other, core
    return 1 if other < 0 else 2


@njit(cache=True, error_model="numpy")
def _energy(s: Any, ops: Any, limit_ns: float, hops: float) -> float:
    """Return what annealing lowers: the mean of powers of times, or hops while no time exceeds a limit.

    It is infinite where a core of the last change exceeds a limit.
    """
    if ops[0, 0] == MOVE:
        for i in (0, 2):
            for r in range(s.need.shape[1]):
                if s.use[ops[i, 2], r] > s.limits[r] + 1e-9:
                    return np.inf
    if limit_ns == 0.0:
        return float(max(s.totals[1], 0.0) ** (1 / SHARPNESS) + 0.02 * s.totals[0] / hops)
    return np.inf if s.busy.max() > limit_ns * (1 + 1e-9) else float(s.totals[0] / hops)


@njit(cache=True, error_model="numpy")
def anneal(s: Any, moves: int, seed: int, heats: Any, limit_ns: float, trades: float, best: Any) -> None:
    """Anneal from the cores of blocks and the slots of cores, for a count of moves (Kirkpatrick et al. 1983).

    `heats`: first and last temperature. `trades`: the share of changes that exchange cores. `limit_ns`: 0 to
    lower times, else the time up to which hops alone count. `best` receives the cores and slots of the best
    state, its time and its hops.
    """
    np.random.seed(seed)
    n = s.core.size
    ops = np.zeros((4, 3), np.int64)
    energy, hops, heat = np.inf, 1.0, heats[0]
    for step in range(-n, moves):
        length = 1
        if step < 0:
            ops[0, 0], ops[0, 1], ops[0, 2] = START, step + n, s.core[step + n]
        else:
            heat = heats[0] * (heats[1] / heats[0]) ** (step / moves)
            length = _propose(s, ops, limit_ns == 0.0, trades)
        for attempt in range(2 if length else 0):
            for i in range(2 * attempt, 2 * attempt + length):
                if ops[i, 0] == TRADE:
                    flows = _trade(s, ops[i, 1], ops[i, 2])
                else:
                    before = -1 if ops[i, 0] == START else s.core[ops[i, 1]]
                    flows = _move(s, ops[i, 1], before, ops[i, 2])
                for k in range(flows):
                    send(s, int(s.sends[k, 0]), int(s.sends[k, 1]), s.sends[k, 2])
            if attempt or step < -1:
                break
            hops = max(s.totals[0], 1.0) if step < 0 else hops
            new = _energy(s, ops, limit_ns, hops)
            if step >= 0 and new > energy and np.random.random() >= np.exp((energy - new) / heat):
                continue
            energy = new
            ns, now, far = s.busy.max(), best[2], s.totals[0]
            if ns < now[0] * (1 - 1e-9) or (ns <= now[0] * (1 + 1e-9) and far < now[1] * (1 - 1e-9)):
                best[0][:], best[1][:] = s.core, s.slot
                now[0], now[1] = ns, far
            break


@njit(cache=True, error_model="numpy")
def exchange(both: Any, far: Any, slot: Any, at: Any) -> None:
    """Exchange each core with the best slot, empty or not, while hops fall.

    `both` (cores, cores): messages per step between two, either way. `far` (slots, slots): hops. `slot` and
    `at` are changed; they hold the slot of each core, and the core of each slot or -1.
    """
    cores, improved = slot.size, True
    while improved:
        improved = False
        for a in range(cores):
            here, best, gain = slot[a], slot[a], 1e-9
            for there in range(at.size):
                b, less = at[there], 0.0
                for c in range(cores):
                    if c != a and c != b:
                        nearer = far[here, slot[c]] - far[there, slot[c]]
                        less += (both[a, c] - (both[b, c] if b >= 0 else 0.0)) * nearer
                if less > gain * (1 + 1e-9):
                    best, gain = there, less
            if best != here:
                b = at[best]
                slot[a], at[best], at[here] = best, a, b
                if b >= 0:
                    slot[b] = here
                improved = True
