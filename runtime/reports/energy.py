"""Energy proxies: what the counted operations of a run would cost under published coefficients.

    synops       synops * E_synop                                               a lower bound
    davies2018   synops * E_synop + active updates * E_active + other updates * E_inactive
                 + messages within a tile * E_spike + hops E-W * E_ew + hops N-S * E_ns
    cmos45       integer additions and multiplications of synapses and neurons in 45 nm CMOS
    sanafe       synops by kind of synapse + updates * E_access + active updates * E_update
                 + spikes * E_spike + messages * E_message + hops
    lemaire2022  integer operations, memory accesses and addressing in 45 nm CMOS (`lemaire.py`)

No operation energies of Loihi 2 are public. The first two and sanafe apply those of Loihi 1 (pre-silicon,
Davies et al. 2018, and SANA-FE's reading of it) to the mapping at hand. Coefficients and their sources
stand in `targets/costs/`; where sources differ, an energy is an interval. The proxies answer different
questions and are never blended into one number. None is a measurement.

One spike sent to k destination cores is k messages; a message to another tile takes |dx| hops
east-west, then |dy| north-south (a tile is column, row). Messages from the host to the chip and
the activity of the pipeline drain are excluded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from snn_compile.runtime.reports.layers import layers
from snn_compile.runtime.reports.lemaire import lemaire_parts
from snn_compile.targets.costs.published import SanaFeCosts, lemaire_costs, sanafe_costs, synop_costs
from snn_compile.targets.costs.tables import (
    ARITHMETIC,
    LEMAIRE,
    SANAFE,
    ArithmeticCosts,
    CostTable,
    arithmetic_costs,
)
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import Program, Projection
from snn_compile.targets.schema import Interval


@dataclass(frozen=True)
class Energy:
    """One proxy: picojoules by term over all samples, its source, and what it excludes.

    `prices` says in a few words what. Where sources differ, `parts_pj` are what the lowest says and
    `high_parts_pj` what the highest does.
    """

    name: str
    prices: str
    label: str
    source: str
    excluded: str
    samples: int
    parts_pj: Mapping[str, float]
    high_parts_pj: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_pj(self) -> float:
        """Picojoules of all samples, the lower end."""
        return sum(self.parts_pj.values())

    @property
    def per_sample_pj(self) -> float:
        """Picojoules per sample, the lower end."""
        return self.total_pj / self.samples

    @property
    def interval_pj(self) -> Interval:
        """Picojoules per sample, low and high."""
        return self.per_sample_pj, sum((self.high_parts_pj or self.parts_pj).values()) / self.samples


@dataclass(frozen=True)
class Traffic:
    """Spike messages between neurocores over all samples: to cores of the same tile, hops, to other chips.

    Hops of messages that leave their chip are not counted.
    """

    messages: int
    within_tile: int
    hops_east_west: int
    hops_north_south: int
    between_chips: int = 0


HOST = "messages from the host, pipeline drain, static power"


def energy(program: Program, counts: Counts) -> tuple[Energy, ...]:
    """Return the proxies for the counted run, in the order of this file's table."""
    traffic = count_traffic(program, counts)
    return (
        _synops(program, counts),
        _operations(program, counts, traffic),
        _arithmetic(program, counts),
        _sanafe(program, counts, traffic),
        _lemaire(program, counts),
    )


def _synops(program: Program, counts: Counts) -> Energy:
    table, alone = program.target.cost_table, synop_costs()
    low = high = table.synaptic_op_pj
    source = table.source
    if table.hardware == alone.hardware:
        (low, high), source = alone.synaptic_op_pj, alone.source
    per_synop = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return Energy(
        "synops",
        f"synapses alone, {table.hardware}",
        f"synaptic operations x {per_synop} pJ, a coefficient of {table.hardware}: "
        "synapses only, graded synops priced as spikes: a proxy, not a measurement",
        source,
        f"neuron updates, spike messages, {HOST}",
        counts.samples,
        {"synaptic operations": counts.total_synops * low},
        {"synaptic operations": counts.total_synops * high},
    )


def _operations(program: Program, counts: Counts, traffic: Traffic | None) -> Energy:
    table = program.target.cost_table
    return Energy(
        table.proxy,
        f"{table.publication} table, {table.hardware}",
        f"{table.publication} table: {table.hardware} coefficients applied to a mapping on "
        f"{program.target.title}: a proxy, not a measurement",
        table.source,
        _unpriced(traffic) + HOST,
        counts.samples,
        _operation_parts(counts, traffic, table),
    )


def _arithmetic(program: Program, counts: Counts) -> Energy:
    cmos = arithmetic_costs()
    return Energy(
        ARITHMETIC,
        "integer arithmetic alone, 45 nm",
        "integer additions and multiplications in 45 nm CMOS: a proxy, not a measurement",
        cmos.source,
        "memory, routing, control, the encoding of inputs",
        counts.samples,
        arithmetic_parts(program, counts, cmos),
    )


def _sanafe(program: Program, counts: Counts, traffic: Traffic | None) -> Energy:
    costs = sanafe_costs()
    parts = _sanafe_parts(program, counts, traffic, costs)
    return Energy(
        SANAFE,
        f"SANA-FE's table, {costs.hardware}",
        f"SANA-FE's table: {costs.hardware} coefficients applied to a mapping on {program.target.title}: "
        "a proxy, not a measurement",
        costs.source,
        _unpriced(traffic) + HOST,
        counts.samples,
        *(_end(parts, at) for at in (0, 1)),
    )


def _lemaire(program: Program, counts: Counts) -> Energy:
    costs = lemaire_costs()
    parts = lemaire_parts(program, counts, costs)
    return Energy(
        LEMAIRE,
        "integer arithmetic and memory, 45 nm",
        "integer operations, memory accesses and addressing in 45 nm CMOS: a proxy, not a measurement",
        costs.source,
        "routing, control, the encoding of inputs, pipeline drain, static power",
        counts.samples,
        *(_end(parts, at) for at in (0, 1)),
    )


def _unpriced(traffic: Traffic | None) -> str:
    if traffic is None:
        return "spike messages and hops (not placed on cores), "
    return "links between chips, " if traffic.between_chips else ""


def _end(parts: Mapping[str, Interval], at: int) -> dict[str, float]:
    return {term: interval[at] for term, interval in parts.items()}


def count_traffic(program: Program, counts: Counts) -> Traffic | None:
    """Count spike messages by the program's routes; None if the program is not placed on cores."""
    if not program.cores or not program.routes:
        return None
    tiles = {core.index: core.tile for core in program.cores}
    chip = program.target.cores
    messages = within = east_west = north_south = between = 0
    for route in program.routes:
        if route.core < 0:
            continue
        spikes = int(counts.neuron_spikes[route.source][route.start : route.stop].sum())
        column, row = tiles[route.core]
        for destination in route.destinations:
            to_column, to_row = tiles[destination]
            messages += spikes
            if destination // chip != route.core // chip:
                between += spikes
                continue
            within += spikes * ((column, row) == (to_column, to_row))
            east_west += spikes * abs(to_column - column)
            north_south += spikes * abs(to_row - row)
    return Traffic(messages, within, east_west, north_south, between)


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


def _sanafe_parts(
    program: Program, counts: Counts, traffic: Traffic | None, costs: SanaFeCosts
) -> dict[str, Interval]:
    """Price every neuron's access, and on top of it what updates, spikes and messages take."""
    kinds = dict.fromkeys(("dense", "sparse", "convolution"), 0)
    for layer in layers(program):
        kinds[layer.kind] += counts.synops[layer.name]
    counted = {
        "dense synaptic operations": (kinds["dense"], costs.synapse_dense_pj),
        "sparse synaptic operations": (kinds["sparse"], costs.synapse_sparse_pj),
        "convolution synaptic operations": (kinds["convolution"], costs.synapse_convolution_pj),
        "neuron accesses": (counts.total_updates, costs.neuron_access_pj),
        "spikes": (counts.total_spikes, costs.spike_pj),
    }
    if traffic:
        counted |= {
            "messages out": (traffic.messages, costs.message_out_pj),
            "messages in": (traffic.messages, costs.message_in_pj),
            "hops east-west": (traffic.hops_east_west, costs.hop_east_west_pj),
            "hops north-south": (traffic.hops_north_south, costs.hop_north_south_pj),
        }
    # A neuron is also updated while its membrane is not 0, which is not counted: at most all are.
    low, high = costs.neuron_update_pj
    updates = {"neuron updates": (counts.total_active_updates * low, counts.total_updates * high)}
    priced = {term: (n * low, n * high) for term, (n, (low, high)) in counted.items() if n}
    return priced | (updates if counts.total_updates else {})


def arithmetic_parts(program: Program, counts: Counts, table: ArithmeticCosts) -> dict[str, float]:
    """Price each synop as one 32-bit addition (the accumulators have 24 bits).

    A synop of a graded message is also a multiplication: 8-bit if the message fits 8 bits, else
    32-bit. A neuron update multiplies (32-bit) once for each decay in use and adds for the input if
    u decays, for u into v, for a bias other than 0 and for the comparison with the threshold. A
    spike that is subtracted from v adds once more, one of an adaptive neuron twice (to threshold and
    refractoriness or v), one of a balanced resonator once. Other models count the products and sums of
    their step in the same way.
    """
    graded = sum(
        counts.synops[edge.name] * graded_multiply_pj(program, edge, table) for edge in program.projections
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


def graded_multiply_pj(program: Program, edge: Projection, table: ArithmeticCosts) -> float:
    """Return what the multiplication of a graded synop takes, 0 for spikes."""
    bits = max((t.message_bits for t in edge.tables), default=0)
    if not bits:
        return 0.0
    signed = any(port.name == edge.source and port.signed for port in program.inputs)
    return table.multiply_int8_pj if bits + signed <= 8 else table.multiply_int32_pj
