"""Route: the cores that each slice's spikes go to, those with a synapse from one of its neurons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.program.program import Core, Projection, Route

HOST = -1
"""Core number of inputs, whose spikes come from outside the mesh."""


def route(network: QuantizedNetwork, cores: Sequence[Core]) -> tuple[Route, ...]:
    """Return a route for every slice and input that has targets."""
    places = {p.name: np.zeros(p.size, np.int64) for p in network.populations}
    for core in cores:
        for name, start, stop in core.slices:
            places[name][start:stop] = core.index
    pieces = [(port.name, 0, port.size, HOST) for port in network.inputs]
    pieces += [(name, start, stop, core.index) for core in cores for name, start, stop in core.slices]
    reached: list[set[int]] = [set() for _ in pieces]
    for edge in network.projections if cores else ():
        held, place = np.unique(places[edge.target], return_inverse=True)
        reach = _reach(edge, place, len(held))
        for number, (name, start, stop, _) in enumerate(pieces):
            if name == edge.source:
                reached[number] |= set(held[reach[start:stop].any(axis=0)].tolist())
    return tuple(
        Route(*piece, tuple(sorted(found))) for piece, found in zip(pieces, reached, strict=True) if found
    )


def _reach(edge: Projection, place: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """Return whether a source has a synapse on a core, (sources, cores); `place`: the core of each target."""
    found = np.zeros((edge.tables[0].shape[1], count), np.bool_)
    for table in edge.tables:
        pattern = table.nonzero
        target = np.repeat(place, np.diff(pattern.indptr))
        found[pattern.indices, target] = True
    return found
