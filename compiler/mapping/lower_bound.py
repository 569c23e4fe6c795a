"""A lower bound of the cores that a network needs: the need of each resource over a core's limit, rounded up.

It holds for any cut and any packing: what smaller blocks may save (rows that are short where a block has few
targets, input axons that blocks of a core share) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from snn_compile.compiler.mapping.core_memory import CoreMemory, core_limits

FILLING = ("synapse_words", "words", "neurons", "out_axons")
"""Resources of which a cut never makes less."""


def least_use(memory: CoreMemory) -> dict[str, dict[str, float]]:
    """Return, by population, what its neurons and synapses take at least, however they are cut."""
    return {p.name: memory.at_least(p.name) for p in memory.network.populations}


def least_cores(memory: CoreMemory) -> int:
    """Return the lower bound, over all resources and the distinct sources that need an input axon."""
    used, most = least_use(memory).values(), core_limits(memory.chip)
    axons = memory.distinct_sources()
    total = {key: sum(use[key] for use in used) for key in FILLING}
    total["words"] += axons * memory.chip.memory.in_axon_words
    total["in_axons"] = axons
    return max(ceil(round(total[key] / most[key], 9)) for key in total)


def bound_by(memory: CoreMemory) -> Mapping[str, Mapping[str, float]]:
    """Return the shares of a core that populations take at least, by resource and population."""
    most, least = core_limits(memory.chip), least_use(memory)
    return {key: {name: use[key] / most[key] for name, use in least.items()} for key in FILLING}
