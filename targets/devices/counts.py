"""Counts of a run: one function of (program, messages, spikes), the same for every device.

A synop is one non-zero weight reached by a spike or by a non-zero input message; every table counts its
own. A neuron update is a neuron and a logical step; it is active if the neuron received at least one
synop in it. The pipeline drain, after a population's last logical step, is counted
separately, as are the device steps beyond the logical ones (pipeline fill and drain).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.program.program import Program


@dataclass(frozen=True, eq=False)
class Counts:
    """Totals over all samples and logical steps; dictionaries are by population or projection name.

    Spikes are messages: several spikes that leave a neuron in one step, as a number, are one. `neuron_spikes`
    holds, per population and input, how often each neuron sent a message. `drain_*`
    happened after the last logical step and are in none of the other numbers.
    """

    samples: int
    steps: int
    spikes: Mapping[str, int]
    synops: Mapping[str, int]
    graded_synops: int
    updates: Mapping[str, int]
    active_updates: Mapping[str, int]
    input_messages: int
    neuron_spikes: Mapping[str, npt.NDArray[np.int64]]
    drain_spikes: int
    drain_synops: int
    drain_updates: int

    @property
    def total_spikes(self) -> int:
        """Spikes of all populations; input messages are not among them."""
        return sum(self.spikes.values())

    @property
    def total_synops(self) -> int:
        """Synaptic operations of all projections."""
        return sum(self.synops.values())

    @property
    def total_updates(self) -> int:
        """Neuron updates."""
        return sum(self.updates.values())

    @property
    def total_active_updates(self) -> int:
        """Neuron updates that received at least one synop."""
        return sum(self.active_updates.values())

    def rates(self) -> dict[str, float]:
        """Return spikes per neuron and step of each population."""
        return {name: n / self.updates[name] for name, n in self.spikes.items()}


def count(
    program: Program, messages: Mapping[str, npt.NDArray[np.int32]], spikes: Mapping[str, SpikeEvents]
) -> Counts:
    """Count a run from its input messages (batch, steps, size) and its spikes in device time."""
    first = next(iter(messages.values()))
    batch, steps = first.shape[:2]
    logical, drained = {}, {}
    for name, array in messages.items():
        logical[name] = SpikeEvents.from_dense(array)
    for name, events in spikes.items():
        start = program.start_step(name)
        end = start + steps * program.period
        logical[name] = events.window(start, end, program.period)
        drained[name] = events.window(min(end, events.steps), events.steps)
    reach = _reach(program)
    neuron_spikes = {
        name: np.bincount(events.neurons, minlength=events.size) for name, events in logical.items()
    }
    synops, graded = {}, 0
    for edge in program.projections:
        synops[edge.name] = int(neuron_spikes[edge.source] @ reach.fan_out[edge.name])
        if any(table.message_bits for table in edge.tables):
            graded += synops[edge.name]
    drain_synops = sum(
        int(reach.fan_out[edge.name][drained[edge.source].neurons].sum())
        for edge in program.projections
        if edge.source in drained
    )
    spiking = [p.name for p in program.populations if p.spiking]
    updates = {p.name: p.size * steps * batch for p in program.populations}
    drain_updates = sum(
        p.size * ((program.latency_steps - p.start_step) // program.period) * batch
        for p in program.populations
    )
    return Counts(
        samples=batch,
        steps=steps,
        spikes={name: logical[name].count for name in spiking},
        synops=synops,
        graded_synops=graded,
        updates=updates,
        active_updates=_active_updates(program, logical, batch, steps),
        input_messages=sum(logical[name].count for name in messages),
        neuron_spikes=neuron_spikes,
        drain_spikes=sum(drained[name].count for name in spiking),
        drain_synops=drain_synops,
        drain_updates=drain_updates,
    )


@dataclass(frozen=True, eq=False)
class _Reach:
    """By projection: how many synapses each source has, and which targets as bits (source, words)."""

    fan_out: Mapping[str, npt.NDArray[np.int64]]
    masks: Mapping[str, npt.NDArray[np.uint64]]


_reaches: WeakKeyDictionary[Program, _Reach] = WeakKeyDictionary()


def _reach(program: Program) -> _Reach:
    if program not in _reaches:
        fan_out, masks = {}, {}
        for edge in program.projections:
            fan_out[edge.name] = np.sum([table.fan_out for table in edge.tables], axis=0)
            masks[edge.name] = _pack([table.nonzero for table in edge.tables])
        _reaches[program] = _Reach(fan_out, masks)
    return _reaches[program]


def _active_updates(
    program: Program, logical: Mapping[str, SpikeEvents], batch: int, steps: int
) -> dict[str, int]:
    from snn_compile.targets.devices.counts_kernel import mark_reached

    masks = _reach(program).masks
    active = {}
    for population in program.populations:
        reached = np.zeros((batch * steps, _words(population.size)), np.uint64)
        for edge in program.projections:
            if edge.target == population.name:
                # The logical delay: how many logical steps later than its own a spike counts.
                late = program.start_step(edge.source) + 1 + edge.delay_steps - population.start_step
                late //= program.period
                events = logical[edge.source]
                mark_reached(reached, masks[edge.name], events.row_starts, events.neurons, steps, late)
        active[population.name] = int(np.bitwise_count(reached).sum())
    return active


def _words(size: int) -> int:
    return (size + 63) // 64


def _pack(tables: Sequence[csr_array]) -> npt.NDArray[np.uint64]:
    """Return which targets each source reaches through any of the tables, as bits."""
    targets, sources = tables[0].shape
    packed = np.zeros((sources, _words(targets)), np.uint64)
    for table in tables:
        row, source = table.nonzero()
        bit = np.uint64(1) << (row % 64).astype(np.uint64)
        np.bitwise_or.at(packed, (source, row // 64), bit)
    return packed
