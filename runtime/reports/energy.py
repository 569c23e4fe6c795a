"""Energy proxies: what the counted operations of a run would cost under published coefficients.

    synops       synops * E_synop                                               a lower bound
    davies2018   synops * E_synop + active updates * E_active + other updates * E_inactive
                 + messages within a tile * E_spike + hops E-W * E_ew + hops N-S * E_ns
    cmos45       integer additions and multiplications of synapses and neurons in 45 nm CMOS

No operation energies of Loihi 2 are public. The first two apply those of Loihi 1 (pre-silicon,
Davies et al. 2018) to the mapping at hand. Coefficients and their sources stand in
`targets/costs/`. The three answer different questions and are never blended into one number.
None is a measurement.

One spike sent to k destination cores is k messages; a message to another tile takes |dx| hops
east-west, then |dy| north-south (a tile is column, row). Messages from the host to the chip and
the activity of the pipeline drain are excluded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snn_compile.targets.costs.tables import ArithmeticCosts, CostTable, arithmetic_costs
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import Program, Projection


@dataclass(frozen=True)
class Energy:
    """One proxy: picojoules by term over all samples, its source, and what it excludes."""

    name: str
    label: str
    source: str
    excluded: str
    samples: int
    parts_pj: Mapping[str, float]

    @property
    def total_pj(self) -> float:
        """Picojoules of all samples."""
        return sum(self.parts_pj.values())

    @property
    def per_sample_pj(self) -> float:
        """Picojoules per sample."""
        return self.total_pj / self.samples


@dataclass(frozen=True)
class Traffic:
    """Spike messages between neurocores over all samples: to cores of the same tile, and hops."""

    messages: int
    within_tile: int
    hops_east_west: int
    hops_north_south: int


def energy(program: Program, counts: Counts) -> tuple[Energy, ...]:
    """Return the proxies for the counted run, in the order of this file's table."""
    chip = program.target
    table = chip.cost_table
    per_synop = table.synaptic_op_pj
    host = "messages from the host, pipeline drain, static power"
    synops = Energy(
        "synops",
        f"synaptic operations x {per_synop:g} pJ, a coefficient of {table.hardware}: "
        "synapses only, graded synops priced as spikes: a proxy, not a measurement",
        table.source,
        f"neuron updates, spike messages, {host}",
        counts.samples,
        {"synaptic operations": counts.total_synops * per_synop},
    )
    traffic = count_traffic(program, counts)
    missing = "" if traffic else "spike messages and hops (not placed on cores), "
    operations = Energy(
        table.proxy,
        f"{table.publication} table: {table.hardware} coefficients applied to a mapping on {chip.title}: "
        "a proxy, not a measurement",
        table.source,
        missing + host,
        counts.samples,
        _operation_parts(counts, traffic, table),
    )
    cmos = arithmetic_costs()
    arithmetic = Energy(
        "cmos45",
        "integer additions and multiplications in 45 nm CMOS: a proxy, not a measurement",
        cmos.source,
        "memory, routing, control, the encoding of inputs",
        counts.samples,
        _arithmetic_parts(program, counts, cmos),
    )
    return synops, operations, arithmetic


def count_traffic(program: Program, counts: Counts) -> Traffic | None:
    """Count spike messages by the program's routes; None if the program is not placed on cores."""
    if not program.cores or not program.routes:
        return None
    tiles = {core.index: core.tile for core in program.cores}
    messages = within = east_west = north_south = 0
    for route in program.routes:
        if route.core < 0:
            continue
        spikes = int(counts.neuron_spikes[route.source][route.start : route.stop].sum())
        column, row = tiles[route.core]
        for destination in route.destinations:
            to_column, to_row = tiles[destination]
            messages += spikes
            within += spikes * ((column, row) == (to_column, to_row))
            east_west += spikes * abs(to_column - column)
            north_south += spikes * abs(to_row - row)
    return Traffic(messages, within, east_west, north_south)


def _operation_parts(counts: Counts, traffic: Traffic | None, table: CostTable) -> dict[str, float]:
    active = counts.total_active_updates
    parts = {
        "synaptic operations": counts.total_synops * table.synaptic_op_pj,
        "active neuron updates": active * table.neuron_update_active_pj,
        "inactive neuron updates": (counts.total_updates - active) * table.neuron_update_inactive_pj,
    }
    if traffic:
        parts |= {
            "spikes within a tile": traffic.within_tile * table.spike_within_tile_pj,
            "hops east-west": traffic.hops_east_west * table.hop_east_west_pj,
            "hops north-south": traffic.hops_north_south * table.hop_north_south_pj,
        }
    return parts


def _arithmetic_parts(program: Program, counts: Counts, table: ArithmeticCosts) -> dict[str, float]:
    """Price each synop as one 32-bit addition (the accumulators have 24 bits).

    A synop of a graded message is also a multiplication: 8-bit if the message fits 8 bits, else
    32-bit. A neuron update multiplies (32-bit) once for each decay in use and adds for the input if
    u decays, for u into v, for a bias other than 0 and for the comparison with the threshold. A
    spike that is subtracted from v adds once more, one of an adaptive neuron twice (to threshold and
    refractoriness or v), one of a balanced resonator once. Other models count the products and sums of
    their step in the same way.
    """
    graded = sum(
        counts.synops[edge.name] * _multiply_pj(program, edge, table) for edge in program.projections
    )
    multiplies = additions = 0.0
    for population in program.populations:
        kind = population.kind
        per_multiply, per_add = kind.operations(population.parameters, program.formats.decay_one)
        multiplies += counts.updates[population.name] * per_multiply
        additions += counts.updates[population.name] * per_add
        per_spike = kind.spike_additions + (population.reset == "subtract")
        additions += per_spike * counts.spikes.get(population.name, 0)
    return {
        "synapse additions": counts.total_synops * table.add_int32_pj,
        "graded synapse multiplications": graded,
        "neuron multiplications": multiplies * table.multiply_int32_pj,
        "neuron additions": additions * table.add_int32_pj,
    }


def _multiply_pj(program: Program, edge: Projection, table: ArithmeticCosts) -> float:
    bits = max((t.message_bits for t in edge.tables), default=0)
    if not bits:
        return 0.0
    signed = any(port.name == edge.source and port.signed for port in program.inputs)
    return table.multiply_int8_pj if bits + signed <= 8 else table.multiply_int32_pj
