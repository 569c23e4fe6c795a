"""A lower bound of the time of a step: the fullest core and the busiest link, one term after another.

    synaptic operations    of a core, one after another                         n * t_s
    neuron operations      every neuron of a core, one after another            n * t_d
    synapse-memory reads   words of the rows that a core's messages reach       n * t_m
    links                  bits on the busiest link over its rate
    barrier                every core has ended its step

A step takes at least the largest of them: the terms are those of Timcheck et al. 2026 (arXiv 2601.10035).
Rates stand in `targets/costs/rates`; a term without a public rate is left out. Counts are means over the
steps of a run, and the mean of the fullest core's time is no less than the time of its mean, so the bound
holds for the mean step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_compile.compiler.mapping.core_memory import weight_bits
from snn_compile.runtime.reports.layers import layers
from snn_compile.targets.costs.silicon_records import silicon_records
from snn_compile.targets.costs.step_rates import StepRates
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import Program
from snn_compile.targets.schema import Interval


@dataclass(frozen=True)
class Term:
    """One term: how many `units` a mean step has at the fullest `place`, and their time in nanoseconds.

    `each_ns` and `ns` are None where no rate is public; `per_step` and `place` then say what is counted all
    the same, or nothing.
    """

    name: str
    units: str
    per_step: float | None
    place: str
    each_ns: Interval | None

    @property
    def ns(self) -> Interval | None:
        """Nanoseconds per step, low and high."""
        if self.each_ns is None or self.per_step is None:
            return None
        return self.per_step * self.each_ns[0], self.per_step * self.each_ns[1]


@dataclass(frozen=True)
class StepTime:
    """The bound of a logical step; `steps` of them are a sample, `latency_steps` the pipeline adds."""

    hardware: str
    source: str
    terms: tuple[Term, ...]
    steps: int
    latency_steps: int
    static_w: Interval | None
    static_source: str

    @property
    def binding(self) -> Term:
        """The largest term."""
        return max(self.terms, key=lambda term: (term.ns or (-1.0, -1.0))[0])

    @property
    def bound_ns(self) -> Interval:
        """Nanoseconds that a step takes at least, by the lowest and by the highest published rates."""
        known = [term.ns for term in self.terms if term.ns]
        return max(low for low, _ in known), max(high for _, high in known)

    @property
    def static_pj(self) -> Interval | None:
        """Picojoules of static power per sample, over the bound of its steps: at least."""
        if self.static_w is None:
            return None
        low, high = (w * ns * self.steps * 1000 for w, ns in zip(self.static_w, self.bound_ns, strict=True))
        return low, high

    def json(self) -> dict[str, Any]:
        """Return the bound as plain values."""
        return {
            "hardware": self.hardware,
            "source": self.source,
            "basis": "mean counts per step over the run",
            "bound_ns": list(self.bound_ns),
            "binding": {"term": self.binding.name, "place": self.binding.place},
            "terms": {
                term.name: {
                    "per_step": term.per_step,
                    "units": term.units,
                    "place": term.place,
                    "each_ns": term.each_ns and list(term.each_ns),
                    "ns": term.ns and list(term.ns),
                }
                for term in self.terms
            },
            "left_out": [term.name for term in self.terms if term.ns is None],
            "against_silicon": {record.network: list(record.time_ratio) for record in silicon_records()},
            "latency_steps": self.latency_steps,
            "sample_ns": [ns * self.steps for ns in self.bound_ns],
        }

    def static_json(self) -> dict[str, Any] | None:
        """Return static energy per sample as plain values, None where no static power is stated."""
        if self.static_w is None or self.static_pj is None:
            return None
        return {
            "per_sample_pj": self.static_pj[0],
            "interval_pj": list(self.static_pj),
            "watts": list(self.static_w),
            "source": self.static_source,
            "basis": "static power over the least time of a sample's steps",
        }


def step_time(program: Program, counts: Counts) -> StepTime | None:
    """Return the bound for the counted run; None if the program is on no cores or its chip has no rates."""
    rates = program.target.step_rates
    if rates is None or not program.cores:
        return None
    steps = counts.samples * counts.steps
    synops = {core: n / steps for core, n in core_synops(program, counts).items()}
    neurons = {core.index: sum(stop - start for _, start, stop in core.slices) for core in program.cores}
    terms = [
        _fullest("synaptic operations", "synops", synops, rates.synaptic_op_ns),
        _fullest("neuron operations", "neurons", neurons, rates.neuron_op_ns),
        _memory(program, counts, rates, steps),
        *_links(program, counts, rates, steps),
        Term("barrier", "barriers", float(program.period), "all cores", rates.barrier_ns),
    ]
    if all(term.ns is None for term in terms):
        return None
    return StepTime(
        rates.hardware,
        rates.source,
        tuple(terms),
        counts.steps,
        program.latency_steps,
        rates.static_w,
        rates.static_source,
    )


def core_synops(program: Program, counts: Counts) -> dict[int, int]:
    """Return the synaptic operations of each core over a run, by the core's index."""
    reached = {p.name: np.zeros(p.size + 1, np.int64) for p in program.populations}
    for edge in program.projections:
        spikes = counts.neuron_spikes[edge.source]
        for table in edge.tables:
            # Sums of spikes at the sources of each target's weights, by differences of running sums.
            running = np.concatenate([[0], np.cumsum(spikes[table.nonzero.indices])])
            reached[edge.target][1:] += np.diff(running[table.nonzero.indptr])
    running_sums = {name: np.cumsum(array) for name, array in reached.items()}
    return {
        core.index: sum(
            int(running_sums[name][stop] - running_sums[name][start]) for name, start, stop in core.slices
        )
        for core in program.cores
    }


def core_words(program: Program, counts: Counts) -> dict[int, int]:
    """Return the words of synapse memory that a run reads at least on each core: its messages' rows.

    A row has the weights of one source neuron into the core, and an index each unless a kernel is shared.
    """
    memory = program.target.memory
    shared = {layer.name for layer in layers(program) if layer.kind == "convolution"}
    words = dict.fromkeys((core.index for core in program.cores), 0)
    for edge in program.projections:
        index_bits = 0 if edge.name in shared and memory.shared_kernels else memory.index_bits
        for table in edge.tables:
            each = weight_bits(table) + index_bits + (memory.delay_bits if edge.delay_steps else 0)
            starts, sources = table.nonzero.indptr, table.nonzero.indices
            for core in program.cores:
                parts = [sources[starts[a] : starts[b]] for name, a, b in core.slices if name == edge.target]
                if parts:
                    synapses = np.bincount(np.concatenate(parts), minlength=table.shape[1])
                    rows = -(-(synapses * each + memory.row_bits) // memory.word_bits) * (synapses > 0)
                    words[core.index] += int(rows @ counts.neuron_spikes[edge.source])
    return words


def link_messages(program: Program, counts: Counts) -> tuple[dict[str, int], dict[str, int]]:
    """Return the messages of a run on each link of a chip's mesh, and on each between two chips.

    A message goes along its row of tiles first, then along its column. Chips are taken as joined directly.
    """
    tiles = {core.index: core.tile for core in program.cores}
    mesh: dict[str, int] = {}
    between: dict[str, int] = {}
    for route in program.routes:
        if route.core < 0:
            continue
        spikes = int(counts.neuron_spikes[route.source][route.start : route.stop].sum())
        chip = route.core // program.target.cores
        for destination in route.destinations:
            to_chip = destination // program.target.cores
            if to_chip != chip:
                name = f"chip {chip} to {to_chip}"
                between[name] = between.get(name, 0) + spikes
                continue
            for link in _path(tiles[route.core], tiles[destination]):
                name = f"chip {chip}, tile {link}" if program.target.chips > 1 else f"tile {link}"
                mesh[name] = mesh.get(name, 0) + spikes
    return mesh, between


def _path(start: tuple[int, int], end: tuple[int, int]) -> Iterable[str]:
    (column, row), (to_column, to_row) = start, end
    while (column, row) != (to_column, to_row):
        before = (column, row)
        if column != to_column:
            column += 1 if to_column > column else -1
        else:
            row += 1 if to_row > row else -1
        yield f"{before[0]},{before[1]} to {column},{row}"


def _fullest(name: str, units: str, amounts: Mapping[int, float], each_ns: Interval | None) -> Term:
    core = max(amounts, key=lambda index: (amounts[index], -index))
    return Term(name, units, float(amounts[core]), f"core {core}", each_ns)


def _memory(program: Program, counts: Counts, rates: StepRates, steps: int) -> Term:
    name = "synapse-memory reads"
    if rates.memory_word_ns is None:
        return Term(name, "words", None, "", None)
    words = {core: n / steps for core, n in core_words(program, counts).items()}
    return _fullest(name, "words", words, rates.memory_word_ns)


def _links(program: Program, counts: Counts, rates: StepRates, steps: int) -> list[Term]:
    """Return the busiest link of a chip's mesh, and of those between chips if there are several."""
    mesh, between = link_messages(program, counts)
    found = [("mesh link", mesh, rates.mesh_link_bits_per_ns)]
    if program.target.chips > 1:
        found.append(("link between chips", between, rates.chip_link_bits_per_ns))
    terms = []
    for name, loads, bits_per_ns in found:
        place = max(loads, key=lambda link: loads[link], default="")
        each = None
        if bits_per_ns is not None:
            each = rates.message_bits / bits_per_ns[1], rates.message_bits / bits_per_ns[0]
        terms.append(Term(name, "messages", loads.get(place, 0) / steps, place, each))
    return terms
