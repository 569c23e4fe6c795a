"""Logical time to device time: latencies, device delays and start steps.

On a chip a spike crosses a synapse in one step plus its delay. Each population p (and input) gets a
latency r(p) such that d = D + r(target) - r(source) - 1 >= 0 on every edge of logical delay D: difference
constraints, solved for the least total delay. A population is inert before device step r(p); its device
step r(p) + t is logical step t. A delay longer than a chip's delay slots goes through relay populations,
which repeat what they hear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, vstack

from snn_compile.compiler.network import Network, Population, Projection
from snn_compile.targets.errors import CompileError, TimingInfeasible


@dataclass(frozen=True, eq=False)
class RetimedNetwork:
    """A Network with the device delay of each projection and the latency of each population or input.

    `relaxed` tells which projections were given more logical delay than the network has, and how much:
    what runs then is no longer the network.
    """

    network: Network
    latency: Mapping[str, int]
    delay_steps: Mapping[str, int]
    relaxed: Mapping[str, int]


def retime(network: Network, delay_max: int | None = None, relax: bool = False) -> RetimedNetwork:
    """Return the network in device time.

    `delay_max`: delay slots of the chip; None has no limit. Raises TimingInfeasible if a cycle is shorter
    in delay than in synapse stages, unless `relax` allows adding the missing steps to it.
    """
    relaxed: dict[str, int] = {}
    while (cycle := _short_cycle(network)) is not None:
        names, missing = cycle
        if not relax:
            raise TimingInfeasible(
                f"the cycle {' -> '.join(names)} has {len(names) - 1} synapse stages, each of which takes "
                f"a step on the chip, and a delay of {len(names) - 1 - missing}: {missing} step(s) are "
                "missing; "
                f"--relax-timing adds them, which changes the network, or give its edges {missing} more "
                "step(s) of delay",
                cycle=names,
                missing_steps=missing,
            )
        network, edges = _lengthened(network, names, missing)
        for name in edges:
            relaxed[name] = relaxed.get(name, 0) + missing
    latency = _solve(network)
    if delay_max is not None:
        long = [(e, d) for e in network.projections if (d := _device_delay(e, latency)) > delay_max]
        for edge, delay in long:
            hops = ceil((delay + 1) / (delay_max + 1))
            network = _relayed(network, edge, hops, delay_max)
        latency = _solve(network, delay_max) if long else latency
    delays = {e.name: _device_delay(e, latency) for e in network.projections}
    return RetimedNetwork(network, latency, delays, relaxed)


def _device_delay(edge: Projection, latency: Mapping[str, int]) -> int:
    return edge.delay_steps + latency[edge.target] - latency[edge.source] - 1


def _short_cycle(network: Network) -> tuple[list[str], int] | None:
    """Return a cycle whose delays sum to less than its number of synapse stages, and what is missing.

    Bellman and Ford: potentials that still fall after as many rounds as there are nodes lie on one.
    """
    spare: dict[tuple[str, str], int] = {}
    for edge in network.projections:
        pair = (edge.source, edge.target)
        spare[pair] = min(edge.delay_steps - 1, spare.get(pair, edge.delay_steps - 1))
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


def _relayed(network: Network, edge: Projection, hops: int, delay_max: int) -> Network:
    """Split an edge by populations that repeat its source's spikes, so that it takes `hops` crossings."""
    source = next((p for p in network.populations if p.name == edge.source), None)
    if source is not None and source.graded:
        raise CompileError(
            f"projection {edge.name!r} needs more than {delay_max} steps of delay, and {edge.source!r} sends "
            "numbers, which no relay repeats; delay the spikes before it instead",
            projection=edge.name,
        )
    shape = source.shape if source else next(p.shape for p in network.inputs if p.name == edge.source)
    populations, projections = list(network.populations), list(network.projections)
    projections.remove(edge)
    behind, left = edge.source, edge.delay_steps
    for hop in range(1, hops):
        relay = _relay(f"{edge.name}.relay{hop}", shape)
        taken = min(left, delay_max + 1)
        projections.append(
            Projection(f"{behind}/{relay.name}", behind, relay.name, csr_array(eye_array(relay.size)), taken)
        )
        populations.append(relay)
        behind, left = relay.name, left - taken
    projections.append(replace(edge, source=behind, delay_steps=left))
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def _relay(name: str, shape: tuple[int, ...]) -> Population:
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


def _solve(network: Network, delay_max: int | None = None) -> dict[str, int]:
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
    # Total delay first; among equals the least latency, by a share too small to compete with a step.
    cost = np.full(len(names), 1.0 / (1 + len(names) * (len(edges) + 1)))
    np.add.at(cost, columns[keep], -signs[keep])
    limit = np.array([e.delay_steps - 1.0 for e in edges])
    if delay_max is not None:
        matrix = vstack([matrix, -matrix])
        limit = np.concatenate([limit, delay_max - limit])
    solved = linprog(cost, A_ub=matrix, b_ub=limit, bounds=(0, None), method="highs-ds")
    assert solved.success, solved.message
    return {name: int(round(value)) for name, value in zip(names, solved.x, strict=True)}
