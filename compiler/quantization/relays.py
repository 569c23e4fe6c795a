"""Units of relays, which send undivided sums of integers.

The largest weight into a relay fills a table at exponent 0, so that no sum loses a bit; relays of relays keep
the unit, and their weights are 1 and -1. What the relays' winners reach divides by a power of two, once
(`scales.choose_scale`). Sums that may not fit a message are refused with their bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np

from snn_compile.compiler.lowering.max_pool import pool_of
from snn_compile.compiler.network import Network, weight_values
from snn_compile.compiler.neurons.relay import MESSAGE_BITS
from snn_compile.compiler.quantization.weight_tables import TableFormat
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.integer import weight_step
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.program import InputPort, Projection

EXACT = TableFormat(8, "sign")
"""Tables that hold 1 and -1 at exponent 0."""


def of_relays_alone(network: Network, name: str) -> bool:
    """Whether a population adds and subtracts what relays and spiking neurons send, unchanged."""
    sources = {p.name for p in network.relays}
    sources |= {p.name for p in network.populations if p.spiking and not p.graded}
    edges = network.incoming(name)
    values = np.concatenate([np.zeros(0), *(weight_values(e.weight).reshape(-1) for e in edges)])
    return bool(edges) and all(e.source in sources for e in edges) and bool(np.isin(values, (-1, 0, 1)).all())


def exact_formats(network: Network) -> dict[str, TableFormat]:
    """Return the weight tables of projections whose weights are 1 and -1, between relays."""
    names = [p.name for p in network.relays if of_relays_alone(network, p.name)]
    return {edge.name: EXACT for name in names for edge in network.incoming(name)}


def relay_units(
    network: Network, known: Mapping[str, float], formats: Mapping[str, TableFormat]
) -> dict[str, float]:
    """Return the units of every relay's message per unit of the network.

    `known`: units of messages by source, 1 where a spike stands; `formats`: weight tables by projection.
    """
    found: dict[str, float] = {}
    for p in network.relays:
        edges = [e for e in network.incoming(p.name) if e.values.any()]
        units = {found.get(e.source, known.get(e.source, 1.0)) for e in edges}
        if of_relays_alone(network, p.name) and len(units) == 1:
            found[p.name] = units.pop()
            continue
        tops = [
            (256 - weight_step(formats[e.name].bits, "mixed"))
            * found.get(e.source, known.get(e.source, 1.0))
            / float(np.abs(e.values).max())
            for e in edges
        ]
        found[p.name] = min(tops, default=1.0)
    for p in network.populations:
        if len(parts := _parts(network, p.name)) > 1:
            found |= dict.fromkeys(parts, min(found[name] for name in parts))
    return found


def _parts(network: Network, name: str) -> list[str]:
    """Return the relays whose sums a population adds, each a part of one weighted sum."""
    relays = {p.name for p in network.relays}
    if name in relays:
        return []
    return [
        e.source
        for e in network.incoming(name)
        if e.source in relays and np.isin(e.values, (0, 1)).all() and not of_relays_alone(network, e.source)
    ]


def refuse_overflow(
    network: Network,
    populations: Mapping[str, IntegerPopulation],
    projections: Sequence[Projection],
    inputs: Mapping[str, InputPort],
    accumulator_bits: int,
) -> None:
    """Raise PrecisionLost if a relay may send more than a message holds, or than a target can add up."""
    names = [p.name for p in network.relays]
    largest = refuse_large_sums(populations, projections, inputs, names)
    refuse_wide_sums(projections, largest, accumulator_bits)


def refuse_large_sums(
    populations: Mapping[str, IntegerPopulation],
    projections: Sequence[Projection],
    inputs: Mapping[str, InputPort],
    names: Sequence[str],
) -> dict[str, int]:
    """Return the largest message of each relay (`names`, in order); PrecisionLost if it may not fit one."""
    found: dict[str, int] = {}
    largest: dict[str, int] = {name: port.largest_message for name, port in inputs.items()}
    top = (1 << (MESSAGE_BITS - 1)) - 1
    for name in names:
        if (pool := pool_of(name, projections)) in found:
            # A difference of two sums, or one of them.
            total = found[pool] * (1 if name == pool.removesuffix(".in") else 2)
            largest[name] = found[name] = _fitting(name, total, top)
            continue
        total = 0
        for edge in (e for e in projections if e.target == name):
            sent = largest.get(edge.source)
            if sent is None:
                source = populations[edge.source]
                sent = 1 if source.kind.spiking and not source.graded else 1 << 15
            total += sum(t.largest_sum * sent << max(t.exponent, 0) for t in edge.tables)
        largest[name] = found[name] = _fitting(name, total, top)
    return found


def _fitting(name: str, total: int, top: int) -> int:
    """Return the largest message of a relay; raises PrecisionLost if a message does not hold it."""
    if total > top:
        raise PrecisionLost(
            f"population {name!r} relays sums of up to {total:,}, and a message holds {top:,}: fewer bits of "
            "weights (--bits) or of graded input, or pool the spikes after the neurons",
            tensor=name,
            bound=total,
            limit=top,
        )
    return total


def refuse_wide_sums(
    projections: Sequence[Projection], largest: Mapping[str, int], accumulator_bits: int
) -> None:
    """Raise PrecisionLost if what relays send, weighted, may leave the accumulator of a target.

    `largest`: the largest message of each relay.
    """
    for edge in (e for e in projections if e.source in largest):
        for table in edge.tables:
            bound = table.largest_sum * largest[edge.source]
            if bound >= 1 << (accumulator_bits - 1):
                raise PrecisionLost(
                    f"projection {edge.name!r} adds up to {bound:,}, and a sum holds {accumulator_bits} "
                    "bits; pool the spikes after the neurons instead",
                    tensor=edge.name,
                    bound=bound,
                )


def divided(network: Network, name: str, units: Mapping[str, float]) -> float | None:
    """Return the weight of one message of the relays that reach a population by a single weight, or None."""
    sources, found = {p.name for p in network.relays}, set()
    if name in sources:
        return None
    for edge in network.incoming(name):
        if edge.source in sources and edge.values.any():
            values = np.unique(np.abs(edge.values[edge.values != 0])) / units[edge.source]
            found |= set(values.tolist()) if values.size == 1 else {inf}
    return found.pop() if len(found) == 1 and inf not in found else None
