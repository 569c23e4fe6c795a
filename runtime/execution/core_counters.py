"""What every neurocore did in every step of a run, counted from its spikes and the program's mapping.

A spike, the messages it becomes, their hops and the synaptic operations they cause are counted in the logical
step in which the neuron sends it; an update is active in the step in which synapses reach the neuron. Sums
over cores and steps are those of `targets.devices.counts.count`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from snn_compile.runtime.execution.run import Inputs, Observer, batch_size, batches
from snn_compile.targets.devices.device import Device, sent_messages
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.output import check_writable, write_whole
from snn_compile.targets.program.program import Program

COUNTERS = (
    "spikes",
    "messages_out",
    "messages_in",
    "hops_east_west",
    "hops_north_south",
    "between_chips",
    "synops",
    "active_updates",
    "inactive_updates",
)
"""Counters per core and step. Hops and messages between chips are those of what a core sends; input messages
come from the host, and are among `messages_in` alone."""

FORMATS = (".csv", ".parquet")
Counter = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CoreCounters:
    """Counters by name, (samples, steps, cores); `first` is the number of the first sample."""

    values: Mapping[str, Counter]
    first: int = 0

    def rows(self) -> Iterator[tuple[int, ...]]:
        """Yield (sample, step, core, *counters), for every core and step."""
        samples, steps, cores = next(iter(self.values.values())).shape
        arrays = [self.values[name] for name in COUNTERS]
        for sample, step, core in np.ndindex(samples, steps, cores):
            yield (sample + self.first, step, core, *(int(array[sample, step, core]) for array in arrays))


def count_cores(program: Program, inputs: Inputs, device: str | Device = "loihi2-sim") -> CoreCounters:
    """Run a program on inputs (batch, steps, *shape) and count what each core did in each step.

    Raises WrongInput if the program is not mapped onto cores.
    """
    if not program.cores:
        raise WrongInput("the program is not mapped onto cores, so there is nothing to count per core")
    events = sent_messages(program, inputs, device)
    first = next(iter(events.values()))
    counted = {name: np.zeros((first.batch * first.steps, len(program.cores)), np.int64) for name in COUNTERS}
    _count_messages(program, events, counted)
    _count_synops(program, events, counted)
    shape = (first.batch, first.steps, len(program.cores))
    return CoreCounters({name: array.reshape(shape) for name, array in counted.items()})


def _count_messages(
    program: Program, events: Mapping[str, SpikeEvents], counted: Mapping[str, Counter]
) -> None:
    """Count spikes of each slice, and the messages that its route makes of them."""
    tiles = {core.index: core.tile for core in program.cores}
    chip = program.target.cores
    for core in program.cores:
        for name, start, stop in core.slices:
            if name in events and program.population(name).spiking:
                counted["spikes"][:, core.index] += _sent(events[name], start, stop)
    for route in program.routes:
        spikes = _sent(events[route.source], route.start, route.stop)
        for destination in route.destinations:
            counted["messages_in"][:, destination] += spikes
            if route.core < 0:
                continue
            counted["messages_out"][:, route.core] += spikes
            if destination // chip != route.core // chip:
                counted["between_chips"][:, route.core] += spikes
                continue
            (column, row), (to_column, to_row) = tiles[route.core], tiles[destination]
            counted["hops_east_west"][:, route.core] += spikes * abs(to_column - column)
            counted["hops_north_south"][:, route.core] += spikes * abs(to_row - row)


def _sent(events: SpikeEvents, start: int, stop: int) -> Counter:
    """Return how many messages neurons start..stop-1 send, per row of sample and step."""
    inside = (events.neurons >= start) & (events.neurons < stop)
    return np.bincount(events.rows[inside], minlength=events.batch * events.steps)


def _count_synops(
    program: Program, events: Mapping[str, SpikeEvents], counted: Mapping[str, Counter]
) -> None:
    """Count synaptic operations, and the neurons that they reach, on the cores of the targets."""
    for population in program.populations:
        places = _places(program, population.name, population.size)
        reached: Any = None
        for edge in (e for e in program.projections if e.target == population.name):
            sent = events[edge.source]
            synapses = sum(_ones(table.nonzero) for table in edge.tables)
            spikes = _matrix(sent, 0)
            counted["synops"] += (spikes @ (places @ synapses).T).toarray()
            late = program.start_step(edge.source) + 1 + edge.delay_steps - population.start_step
            there = _matrix(sent, late // program.period) @ synapses.T
            reached = there if reached is None else reached + there
        active = (
            np.zeros_like(counted["synops"]) if reached is None else (_ones(reached) @ places.T).toarray()
        )
        counted["active_updates"] += active
        held = np.asarray(places.sum(axis=1)).reshape(-1)
        counted["inactive_updates"] += held - active


def _places(program: Program, name: str, size: int) -> csr_array:
    """Return which neurons of a population are on which core: (cores, neurons) of ones."""
    cores = np.zeros(size, np.int64)
    for core in program.cores:
        for population, start, stop in core.slices:
            if population == name:
                cores[start:stop] = core.index
    ones = np.ones(size, np.int64)
    return csr_array((ones, (cores, np.arange(size))), shape=(len(program.cores), size))


def _ones(matrix: Any) -> csr_array:
    """Return a sparse matrix with 1 for every entry that is not zero."""
    found = csr_array(matrix)
    found.eliminate_zeros()
    return csr_array((np.ones(found.nnz, np.int64), found.indices, found.indptr), shape=found.shape)


def _matrix(events: SpikeEvents, late: int) -> csr_array:
    """Return messages as ones, (samples * steps, neurons), `late` steps later and within the run."""
    rows, neurons = events.rows, events.neurons
    inside = rows % events.steps + late < events.steps
    ones = np.ones(int(inside.sum()), np.int64)
    shape = (events.batch * events.steps, events.size)
    return csr_array((ones, (rows[inside] + late, neurons[inside])), shape=shape)


def save_counters(
    path: str | Path,
    program: Program,
    inputs: Inputs,
    device: str | Device = "loihi2-sim",
    observe: Observer | None = None,
) -> None:
    """Write the counters of a run to a .csv or .parquet file, whole or not at all, batch by batch.

    Columns are sample, step, core and `COUNTERS`. Raises WrongInput for another format.
    """
    check_counters(path)
    size = batch_size(program, inputs)

    def parts() -> Iterator[CoreCounters]:
        first = 0
        for part in batches(inputs, size, observe):
            found = count_cores(program, part, device)
            yield CoreCounters(found.values, first)
            first += next(iter(found.values.values())).shape[0]

    head = ("sample", "step", "core", *COUNTERS)

    def write_csv(file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(head)
            for part in parts():
                writer.writerows(part.rows())

    def write_parquet(file: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.int64()) for name in head])
        with pq.ParquetWriter(file, schema) as writer:
            for part in parts():
                shape = next(iter(part.values.values())).shape
                places = [np.indices(shape)[axis].reshape(-1) for axis in range(3)]
                places[0] = places[0] + part.first
                columns = [*places, *(part.values[name].reshape(-1) for name in COUNTERS)]
                writer.write_table(pa.table(dict(zip(head, columns, strict=True)), schema))

    write_whole(path, write_csv if Path(path).suffix == ".csv" else write_parquet, WrongInput)


def check_counters(path: str | Path) -> None:
    """Raise WrongInput if counters cannot be written there."""
    if Path(path).suffix not in FORMATS:
        raise WrongInput(f"{path}: counters are written as {' or '.join(FORMATS)}")
    if Path(path).suffix == ".parquet":
        import pyarrow  # noqa: F401 - its lack is named before anything runs
    check_writable(path, WrongInput)
