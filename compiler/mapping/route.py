"""Route: the target cores of each slice's spikes."""

from __future__ import annotations

from collections.abc import Sequence

from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.program.program import Core, Route

HOST = -1
"""Core number of inputs, whose spikes come from outside the mesh."""


def route(network: QuantizedNetwork, cores: Sequence[Core]) -> tuple[Route, ...]:
    """Return a route for every slice and input that has targets."""
    holders = {
        p.name: [c.index for c in cores if any(s[0] == p.name for s in c.slices)] for p in network.populations
    }

    def destinations(source: str) -> tuple[int, ...]:
        targets = {edge.target for edge in network.projections if edge.source == source}
        return tuple(sorted({core for target in targets for core in holders[target]}))

    routes = [Route(port.name, 0, port.size, HOST, destinations(port.name)) for port in network.inputs]
    routes += [
        Route(name, start, stop, core.index, destinations(name))
        for core in cores
        for name, start, stop in core.slices
    ]
    return tuple(r for r in routes if r.destinations)
