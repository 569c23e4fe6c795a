"""Logical time to device time: latencies, device delays and start steps.

On a chip a spike crosses a synapse in one step plus its delay. Each population p (and input) gets a
latency r(p) such that d = D + r(target) - r(source) - 1 >= 0 on every edge of logical delay D: difference
constraints, solved for the least total delay. A population is inert before device step r(p); its device
step r(p) + t is logical step t.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from snn_compile.compiler.network import Network
from snn_compile.targets.errors import TimingInfeasible


@dataclass(frozen=True, eq=False)
class RetimedNetwork:
    """A Network with the device delay of each projection and the latency of each population or input."""

    network: Network
    latency: Mapping[str, int]
    delay_steps: Mapping[str, int]


def retime(network: Network) -> RetimedNetwork:
    """Return the network in device time; raises TimingInfeasible if a cycle is shorter in delay than
    in synapse stages.
    """
    names = [p.name for p in network.nodes]
    _check_cycles(network)
    latency = _solve(network, names)
    delays = {e.name: e.delay_steps + latency[e.target] - latency[e.source] - 1 for e in network.projections}
    return RetimedNetwork(network, latency, delays)


def _check_cycles(network: Network) -> None:
    """Raise TimingInfeasible on a cycle whose delays sum to less than its number of synapse stages."""
    graph = nx.DiGraph()
    for edge in network.projections:
        spare = edge.delay_steps - 1
        known = graph.get_edge_data(edge.source, edge.target, {"weight": spare})["weight"]
        graph.add_edge(edge.source, edge.target, weight=min(spare, known))
    start = object()
    graph.add_edges_from([(start, node) for node in list(graph)], weight=0)
    try:
        cycle = nx.find_negative_cycle(graph, start)
    except nx.NetworkXError:
        return
    missing = -sum(graph[a][b]["weight"] for a, b in zip(cycle, cycle[1:], strict=False))
    stages = len(cycle) - 1
    raise TimingInfeasible(
        f"the cycle {' -> '.join(cycle)} has {stages} synapse stages, each of which takes a step on the "
        f"chip, and a delay of {stages - missing}: {missing} step(s) are missing; a network whose edges "
        f"there have {missing} more step(s) of delay runs exactly",
        cycle=cycle,
        missing_steps=missing,
    )


def _solve(network: Network, names: list[str]) -> dict[str, int]:
    """Return the least latencies of least total device delay (a linear program with integer corners)."""
    index = {name: i for i, name in enumerate(names)}
    edges = network.projections
    rows = np.repeat(np.arange(len(edges)), 2)
    columns = np.array([[index[e.source], index[e.target]] for e in edges]).reshape(-1)
    signs = np.tile([1.0, -1.0], len(edges))
    keep = np.repeat([e.source != e.target for e in edges], 2)
    matrix = csr_array((signs[keep], (rows[keep], columns[keep])), shape=(len(edges), len(names)))
    # Total delay first; among equals the least latency, by a share too small to compete with a step.
    cost = np.full(len(names), 1.0 / (1 + len(names) * (len(edges) + 1)))
    np.add.at(cost, columns[keep], -signs[keep])
    limit = np.array([e.delay_steps - 1.0 for e in edges])
    solved = linprog(cost, A_ub=matrix, b_ub=limit, bounds=(0, None), method="highs-ds")
    assert solved.success, solved.message
    return {name: int(round(value)) for name, value in zip(names, solved.x, strict=True)}
