"""Logical time to device time: latencies, device delays and start steps.

On a chip a spike crosses a synapse in one step plus its delay. Each population p (and input) gets a
latency r(p) such that d = D + r(target) - r(source) - 1 >= 0 on every edge of logical delay D: difference
constraints, solved for the least total delay. A population is inert before device step r(p); its device
step r(p) + t is logical step t. A delay longer than a chip's delay slots goes through relay populations,
which repeat their input spikes.

A cycle with less delay than synapse stages has no such latencies. A c-slow network (the slowdown of Leiserson
and Saxe 1991, "Retiming synchronous circuitry": every register becomes c registers) spends c device steps
per logical step, d = c D + r(target) - r(source) - 1: exact, at a c-th of the speed. Or delay is added to the
cycle, which changes the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, vstack

from snn_compile.compiler.network import Network, Population, Projection
from snn_compile.targets.errors import CompileError, DoesNotFit, TimingInfeasible
from snn_compile.targets.program.program import PERIOD_MAX

RELAYS_MAX, RELAY_NEURONS_MAX = 1024, 1 << 22
"""Relay populations, and their neurons: four times those of a Loihi 2."""


@dataclass(frozen=True, eq=False)
class RetimedNetwork:
    """A Network with the device delay of each projection and the latency of each population or input.

    `relaxed`: steps of logical delay that were added to projections, which changes the network. `period`:
    device steps per logical step.
    """

    network: Network
    latency: Mapping[str, int]
    delay_steps: Mapping[str, int]
    relaxed: Mapping[str, int]
    period: int = 1


def retime(
    network: Network, delay_max: int | None = None, relax: bool = False, c_slow: int | None = 1
) -> RetimedNetwork:
    """Return the network in device time.

    `delay_max`: delay slots of the chip; None: no limit. `c_slow`: device steps per logical step; None takes
    the fewest that every cycle needs. Raises TimingInfeasible if a cycle has less delay than synapse stages,
    unless `relax` allows adding the missing steps; DoesNotFit if delays need more relays than `RELAYS_MAX`;
    CompileError if `c_slow` exceeds `PERIOD_MAX`.
    """
    relaxed: dict[str, int] = {}
    period = _least_period(network) if c_slow is None else c_slow
    if period > PERIOD_MAX:
        raise CompileError(
            f"c-slow: {period} device steps per logical step; at most {PERIOD_MAX} are possible, and "
            f"{_least_period(network)} are enough",
            c_slow=period,
        )
    while (cycle := _short_cycle(network, period)) is not None:
        names, missing = cycle
        if not relax:
            raise _infeasible(network, names, missing, period)
        network, edges = _lengthened(network, names, added := ceil(missing / period))
        for name in edges:
            relaxed[name] = relaxed.get(name, 0) + added
    latency = _solve(network, period)
    if delay_max is not None:
        long = [(e, d) for e in network.projections if (d := _device_delay(e, latency, period)) > delay_max]
        _check_relays(network, long, delay_max)
        for edge, delay in long:
            hops = ceil((delay + 1) / (delay_max + 1))
            network = _relayed(network, edge, hops, delay_max, period)
        latency = _solve(network, period, delay_max) if long else latency
    delays = {e.name: _device_delay(e, latency, period) for e in network.projections}
    return RetimedNetwork(network, latency, delays, relaxed, period)


def _check_relays(network: Network, long: list[tuple[Projection, int]], delay_max: int) -> None:
    """Raise DoesNotFit for delays that need too many relays."""
    relays = sum(d // (delay_max + 1) for _, d in long)
    neurons = sum(d // (delay_max + 1) * network.size(e.source) for e, d in long)
    if relays > RELAYS_MAX or neurons > RELAY_NEURONS_MAX:
        edge, delay = max(long, key=lambda item: item[1])
        line = f"{relays} relay populations of {neurons:,} neurons"
        raise DoesNotFit(
            f"delays need {line}, the longest that of projection {edge.name!r} ({delay} steps); at most "
            f"{RELAYS_MAX} of {RELAY_NEURONS_MAX:,} are made",
            violations=[line],
        )


def _device_delay(edge: Projection, latency: Mapping[str, int], period: int) -> int:
    return period * edge.delay_steps + latency[edge.target] - latency[edge.source] - 1


def _least_period(network: Network) -> int:
    """Return the least c for which every cycle has as many device steps as synapse stages.

    Every cycle has delay, and the c that one cycle needs is a lower bound of the result.
    """
    period = 1
    while (cycle := _short_cycle(network, period)) is not None:
        names, missing = cycle
        period = _period_of(len(names) - 1, missing, period)
    return period


def _period_of(stages: int, missing: int, period: int) -> int:
    """Return the least c for a cycle that lacks `missing` device steps at `period`."""
    return ceil(stages * period / (stages - missing))


def _infeasible(network: Network, names: list[str], missing: int, period: int) -> TimingInfeasible:
    stages = len(names) - 1
    slow = _least_period(network)
    device = "" if period == 1 else f" at {period} device steps per logical step"
    return TimingInfeasible(
        f"the cycle {' -> '.join(names)} needs at least {stages} steps of delay, one per synapse stage, but "
        f"has {stages - missing}{device} ({missing} missing); --c-slow spends {slow} device steps per "
        f"logical step, exact but {slow} times slower; --relax-timing adds the missing delay, which changes "
        "the network",
        cycle=names,
        missing_steps=missing,
        c_slow=slow,
    )


def _short_cycle(network: Network, period: int) -> tuple[list[str], int] | None:
    """Return a cycle with fewer device steps of delay than synapse stages, and how many are missing.

    Bellman-Ford: a potential that still falls after as many rounds as there are nodes leads to such a cycle.
    """
    spare: dict[tuple[str, str], int] = {}
    for edge in network.projections:
        pair, steps = (edge.source, edge.target), period * edge.delay_steps - 1
        spare[pair] = min(steps, spare.get(pair, steps))
    names = [p.name for p in network.nodes]
    potential, behind = dict.fromkeys(names, 0), dict.fromkeys(names, "")
    fell = ""
    for _ in range(len(names) + 1):
        fell = ""
        for (source, target), weight in spare.items():
            if potential[source] + weight < potential[target]:
                potential[target], behind[target] = potential[source] + weight, source
                fell = target
        if not fell:
            return None
    for _ in names:
        fell = behind[fell]
    cycle = [fell]
    while len(cycle) == 1 or cycle[0] != cycle[-1]:
        cycle.insert(0, behind[cycle[0]])
    return cycle, -sum(spare[pair] for pair in zip(cycle, cycle[1:], strict=False))


def _lengthened(network: Network, cycle: list[str], missing: int) -> tuple[Network, list[str]]:
    """Add the missing steps to the edges of a cycle between the pair with the most delay already."""
    pairs = list(zip(cycle, cycle[1:], strict=False))
    slowest = max(
        pairs, key=lambda p: min(e.delay_steps for e in network.projections if (e.source, e.target) == p)
    )
    edges = [e.name for e in network.projections if (e.source, e.target) == slowest]
    longer = tuple(
        replace(e, delay_steps=e.delay_steps + missing) if e.name in edges else e for e in network.projections
    )
    return replace(network, projections=longer), edges


def _relayed(network: Network, edge: Projection, hops: int, delay_max: int, period: int) -> Network:
    """Split an edge by relay populations, so that it takes `hops` crossings."""
    source = next((p for p in network.populations if p.name == edge.source), None)
    if source is not None and source.graded:
        raise CompileError(
            f"projection {edge.name!r} needs more than {delay_max} steps of delay, and {edge.source!r} sends "
            "numbers, which relays cannot repeat; delay the spikes before it instead",
            projection=edge.name,
        )
    shape = source.shape if source else next(p.shape for p in network.inputs if p.name == edge.source)
    populations, projections = list(network.populations), list(network.projections)
    projections.remove(edge)
    behind, left = edge.source, edge.delay_steps
    for hop in range(1, hops):
        relay = repeater(f"{edge.name}.relay{hop}", shape)
        taken = min(left, (delay_max + 1) // period)
        projections.append(
            Projection(f"{behind}/{relay.name}", behind, relay.name, csr_array(eye_array(relay.size)), taken)
        )
        populations.append(relay)
        behind, left = relay.name, left - taken
    projections.append(replace(edge, source=behind, delay_steps=left))
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def repeater(name: str, shape: tuple[int, ...]) -> Population:
    """Return a relay population: it sends its input spikes in the step in which they arrive."""
    one, zero = np.ones(1), np.zeros(1)
    parameters = {
        "current_decay": one,
        "voltage_decay": one,
        "threshold": zero + 0.5,
        "bias": zero,
        "input_bias": zero,
        "v_init": zero,
        "offset": zero,
    }
    return Population(name, shape, "lif", parameters)


def _solve(network: Network, period: int, delay_max: int | None = None) -> dict[str, int]:
    """Return the least latencies of least total device delay (a linear program with integer corners).

    With `delay_max` no device delay is longer.
    """
    names = [p.name for p in network.nodes]
    if not network.projections:
        return dict.fromkeys(names, 0)
    index = {name: i for i, name in enumerate(names)}
    edges = network.projections
    rows = np.repeat(np.arange(len(edges)), 2)
    columns = np.array([[index[e.source], index[e.target]] for e in edges], np.int64).reshape(-1)
    signs = np.tile([1.0, -1.0], len(edges))
    keep = np.repeat([e.source != e.target for e in edges], 2).astype(bool)
    matrix = csr_array((signs[keep], (rows[keep], columns[keep])), shape=(len(edges), len(names)))
    # Total delay first; among equals the least latency, by a weight too small to compete with a step.
    cost = np.full(len(names), 1.0 / (1 + len(names) * (len(edges) + 1)))
    np.add.at(cost, columns[keep], -signs[keep])
    limit = np.array([period * e.delay_steps - 1.0 for e in edges])
    if delay_max is not None:
        matrix = vstack([matrix, -matrix])
        limit = np.concatenate([limit, delay_max - limit])
    solved = linprog(cost, A_ub=matrix, b_ub=limit, bounds=(0, None), method="highs-ds")
    assert solved.success, solved.message
    return {name: int(round(value)) for name, value in zip(names, solved.x, strict=True)}
