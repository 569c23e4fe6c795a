"""`loihi2-sim`: the fast device. Event-driven, bit for bit equal to the oracle.

A program is flattened into arrays once and interpreted by one compiled kernel (`network_kernel.py`); samples
run side by side on threads, sharing the weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import DeviceRun, Overflow
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.loihi2_sim import network_kernel as kernels
from snn_compile.targets.loihi2_sim.kernels import OPTIONS, format_numbers
from snn_compile.targets.loihi2_sim.layout import NeuronTables, neuron_tables, options_of
from snn_compile.targets.program.program import Program
from snn_compile.targets.program.weights import WeightTable

LANES = 64
"""Rows and states are padded to this many entries, so that they begin on cache lines."""

EVENT_BUFFER = 1 << 20
"""Events held before they are copied out, over all populations of one thread."""

SAMPLES_PER_THREAD = 16

NEVER = 1 << 40
"""Logical steps of a run whose end is not known."""


class Loihi2Sim:
    """The fast device. `threads`: None uses every core when there are samples enough for all."""

    name = "loihi2-sim"

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise DeviceError(f"{threads} threads; at least one is needed", device=self.name)
        self.threads = threads

    def run(
        self,
        program: Program,
        messages: Mapping[str, npt.NDArray[np.int32]],
        device_steps: int,
        probes: Sequence[str],
    ) -> DeviceRun:
        """Run all samples; see `Device.run`."""
        flat = _flatten(program)
        inputs = _joined(program, messages)
        batch = inputs.shape[0]
        threads = self.threads or max(1, min(os.cpu_count() or 1, batch // SAMPLES_PER_THREAD))
        threads = min(threads, batch)
        probed = _Probes(program, flat, probes, batch * device_steps)
        bounds = np.linspace(0, batch, threads + 1).astype(int)
        time = program.logical_steps(device_steps), program.period
        jobs = [
            (flat, inputs, probed, int(a), int(b), time) for a, b in zip(bounds, bounds[1:], strict=False)
        ]
        if threads == 1:
            parts = [_run_range(*jobs[0])]
        else:
            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(lambda job: _run_range(*job), jobs))
        return _device_run(program, parts, probed, batch, device_steps)

    def open(self, program: Program, probes: Sequence[str] = ()) -> SimulatorRun:
        """Return the program ready to be stepped in parts; see `SteppedDevice.open`."""
        return SimulatorRun(program, probes)


class SimulatorRun:
    """A program in the simulator: one sample, its states kept between parts of a run.

    Nothing is allocated anew while parts are of one length.
    """

    def __init__(self, program: Program, probes: Sequence[str]) -> None:
        self._program, self._probes = program, tuple(probes)
        self._flat = _flatten(program)
        self._work: _Work | None = None
        self._memory = _Memory(self._flat)
        self._done = 0

    def reset(self) -> None:
        """Go back to the initial state and to device step 0."""
        self._done = 0

    def advance(
        self, messages: Mapping[str, npt.NDArray[np.int32]], logical_steps: int | None = None
    ) -> DeviceRun:
        """Run the next device steps; see `Opened.advance`."""
        inputs = _joined(self._program, messages)
        steps = inputs.shape[1]
        if self._work is None or self._work.inputs.shape != inputs.shape:
            probed = _Probes(self._program, self._flat, self._probes, steps)
            self._work = _Work(self._flat, self._memory, np.empty_like(inputs), probed, 1)
        self._work.inputs[:] = inputs
        time = (NEVER if logical_steps is None else logical_steps), self._program.period, self._done
        part = self._work.run(0, 1, time)
        self._done += steps
        run = _device_run(self._program, [part], self._work.probes, 1, steps)
        return replace(run, states={name: array.copy() for name, array in run.states.items()})


def _joined(program: Program, messages: Mapping[str, npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """Return the messages of all inputs side by side: (batch, device_steps, all channels)."""
    return np.ascontiguousarray(np.concatenate([messages[port.name] for port in program.inputs], axis=2))


def _device_run(
    program: Program, parts: Sequence[_Part], probed: _Probes, batch: int, device_steps: int
) -> DeviceRun:
    spikes = {}
    for index, population in enumerate(program.populations):
        if population in program.senders:
            counts = np.concatenate([part.row_counts[index].reshape(-1) for part in parts])
            starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            neurons = np.concatenate([chunk for part in parts for chunk in part.events[index]])
            values = None
            if population.graded:
                values = np.concatenate([chunk for part in parts for chunk in part.values[index]])
            spikes[population.name] = SpikeEvents(
                batch, device_steps, population.size, starts, neurons, values
            )
    overflow = np.sum([part.overflow for part in parts], axis=0)
    return DeviceRun(
        spikes,
        probed.arrays(batch, device_steps),
        {p.name: Overflow(*map(int, overflow[i])) for i, p in enumerate(program.populations)},
    )


def _pad(n: int) -> int:
    return -(-n // LANES) * LANES


@dataclass(frozen=True, eq=False)
class _Flat:
    """A program as the kernel's arrays; nothing in it changes during a run."""

    pop: tuple[npt.NDArray[Any], ...]
    neurons: NeuronTables
    formats: npt.NDArray[np.int64]
    ring: tuple[npt.NDArray[Any], ...]
    ring_size: int
    tables: tuple[npt.NDArray[Any], ...]
    sum_at: npt.NDArray[np.int64]
    sum_size: int
    signed: npt.NDArray[np.int8]
    starts: npt.NDArray[np.int64]
    synapses: npt.NDArray[np.uint32]
    in_at: npt.NDArray[np.int64]
    in_n: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


_flattened: WeakKeyDictionary[Program, _Flat] = WeakKeyDictionary()


def _flatten(program: Program) -> _Flat:
    if program in _flattened:
        return _flattened[program]
    sources = program.nodes
    number = {node.name: i for i, node in enumerate(sources)}
    sizes = np.array([node.size for node in sources], np.int64)
    n = sizes[: len(program.populations)]
    pad = np.array([_pad(int(k)) for k in n], np.int64)
    pop = (
        n,
        pad,
        np.array([p.start_step for p in program.populations], np.int64),
        np.array([kernels.kernel_of(p, p in program.senders) for p in program.populations], np.int64),
        np.array([options_of(p) for p in program.populations], np.int64).reshape(-1, OPTIONS),
        np.array([p.graded for p in program.populations], np.bool_),
    )
    depth = np.ones(len(n), np.int64)
    tables: list[list[int]] = []
    rows = _Rows()
    for edge in program.projections:
        target = number[edge.target]
        depth[target] = max(depth[target], edge.delay_steps + 1)
        for table in edge.tables:
            head = [number[edge.source], target, edge.port, edge.delay_steps, table.exponent]
            tables.append([*head, _KINDS[table.sign_mode], int(table.message_bits > 0), *rows.add(table)])
    strides = pad * np.array([len(p.kind.ports) for p in program.populations], np.int64)
    ring_at = _starts(depth * strides)
    columns = np.array(tables, np.int64).reshape(-1, 10).T.copy()
    sum_at = _starts([_pad(int(n[t])) for t in columns[1]])
    flat = _Flat(
        pop=pop,
        neurons=neuron_tables(program.populations, program.formats, pad),
        formats=format_numbers(program.formats),
        ring=(ring_at[:-1].copy(), depth, strides),
        ring_size=int(ring_at[-1]),
        tables=tuple(columns),
        sum_at=sum_at[:-1].copy(),
        sum_size=int(sum_at[-1]),
        signed=np.concatenate([*rows.dense, np.zeros(LANES, np.int8)]),
        starts=np.concatenate([*rows.starts, np.zeros(1, np.int64)]),
        synapses=np.concatenate([*rows.synapses, np.zeros(1, np.uint32)]),
        in_at=_starts([p.size for p in program.inputs])[:-1].copy(),
        in_n=sizes[len(program.populations) :].copy(),
        sizes=sizes,
    )
    _flattened[program] = flat
    return flat


def _starts(lengths: Any) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


_KINDS = {
    "mixed": kernels.ROWS_SIGNED,
    "excitatory": kernels.ROWS_POSITIVE,
    "inhibitory": kernels.ROWS_NEGATIVE,
}


class _Rows:
    """Synapse memory: rows of bytes for dense tables, packed synapses for sparse ones."""

    def __init__(self) -> None:
        self.dense: list[npt.NDArray[np.int8]] = []
        self.starts: list[npt.NDArray[np.int64]] = []
        self.synapses: list[npt.NDArray[np.uint32]] = []
        self._at = self._starts_at = self._synapses_at = 0

    def add(self, table: WeightTable) -> tuple[int, int, int]:
        """Store a table source-major; return whether it is sparse, where it begins, its row stride."""
        if table.sparse:
            by_source = table.weights.tocsc()
            targets = by_source.indices.astype(np.uint32)
            packed = targets << np.uint32(8) | _bytes(by_source.data, table.sign_mode).view(np.uint8)
            self.starts.append(by_source.indptr.astype(np.int64) + self._synapses_at)
            self.synapses.append(packed.astype(np.uint32))
            at = self._starts_at
            self._starts_at += by_source.shape[1] + 1
            self._synapses_at += packed.size
            return 1, at, 0
        targets_n, sources_n = table.shape
        padded = np.zeros((sources_n, _pad(targets_n)), np.int16)
        padded[:, :targets_n] = table.weights.T
        self.dense.append(_bytes(padded, table.sign_mode).reshape(-1))
        at = self._at
        self._at += padded.size
        return 0, at, padded.shape[1]


def _bytes(weights: npt.NDArray[Any], sign_mode: str) -> npt.NDArray[np.int8]:
    """Return weights as bytes: halved if mixed (their lowest bit is clear), else magnitudes."""
    if sign_mode == "mixed":
        halved: npt.NDArray[np.int8] = (weights >> 1).astype(np.int8)
        return halved
    magnitudes: npt.NDArray[np.int8] = np.abs(weights).astype(np.uint8).view(np.int8)
    return magnitudes


class _Probes:
    """Where probed states go: one flat array all threads write their own samples into."""

    def __init__(self, program: Program, flat: _Flat, names: Sequence[str], rows: int) -> None:
        order = {p.name: i for i, p in enumerate(program.populations)}
        parts = [name.rpartition(".") for name in names]
        self.names = list(names)
        self.pop = np.array([order[p] for p, _, _ in parts], np.int64)
        self.slot = np.array(
            [program.population(p).kind.states.index(state) for p, _, state in parts], np.int64
        )
        self.sizes = [program.population(p).size for p, _, _ in parts]
        self.at = _starts([rows * n for n in self.sizes])
        self.out = np.zeros(int(self.at[-1]), np.int32)

    def arrays(self, batch: int, steps: int) -> dict[str, npt.NDArray[np.int32]]:
        return {
            name: self.out[a:b].reshape(batch, steps, n)
            for name, a, b, n in zip(self.names, self.at, self.at[1:], self.sizes, strict=False)
        }


@dataclass(frozen=True, eq=False)
class _Part:
    row_counts: npt.NDArray[np.int32]
    events: list[list[npt.NDArray[np.int32]]]
    values: list[list[npt.NDArray[np.int32]]]
    overflow: npt.NDArray[np.int64]


class _Memory:
    """What a run changes and the next part of it begins with: states and synaptic input."""

    def __init__(self, flat: _Flat) -> None:
        self.state = np.zeros_like(flat.neurons.initial)
        self.ring = np.zeros(flat.ring_size, np.int32)


class _Work:
    """The arrays of one thread, over samples of `inputs` (batch, steps, all channels)."""

    def __init__(
        self, flat: _Flat, memory: _Memory, inputs: npt.NDArray[np.int32], probes: _Probes, samples: int
    ) -> None:
        n, neurons = flat.pop[0], flat.neurons
        self.flat, self.inputs, self.probes = flat, inputs, probes
        most = n * inputs.shape[1] * samples
        capacity = np.maximum(n, np.minimum(most, EVENT_BUFFER * n // max(1, int(n.sum()))))
        self.event_at, self.event_n = _starts(capacity), np.zeros(len(n), np.int64)
        who_at = _starts(flat.sizes + 1)
        self.row_counts = np.zeros((len(n), *inputs.shape[:2]), np.int32)
        self.overflow = np.zeros((len(n) + 1, 3), np.int64)
        self.events, self.event_values = (np.empty(int(self.event_at[-1]), np.int32) for _ in range(2))
        self.cursor = np.zeros(6, np.int64)
        senders = (
            who_at[:-1].copy(),
            np.zeros(len(flat.sizes), np.int64),
            np.zeros(int(who_at[-1]), np.int32),
            np.ones(int(who_at[-1]), np.int32),
            np.zeros(int(n.max()), np.uint8),
        )
        results = (self.events, self.event_values, self.row_counts, self.overflow)
        self.arguments = (
            *(*flat.pop, neurons.state_at, neurons.register_at, neurons.initial, neurons.registers),
            *(memory.state, flat.formats),
            *(*flat.ring, memory.ring),
            *(*flat.tables, flat.sum_at, np.zeros(flat.sum_size, np.int32)),
            *(flat.signed, flat.signed.view(np.uint8), flat.starts, flat.synapses),
            *(inputs, flat.in_at, flat.in_n, *senders),
            *(self.event_at[:-1].copy(), self.event_n, capacity, *results),
            *(probes.pop, probes.slot, probes.at[:-1].copy(), probes.out, self.cursor),
        )

    def run(self, first: int, last: int, time: tuple[int, int, int]) -> _Part:
        """Run samples first..last-1; `time`: logical steps, period, and the device step to begin at."""
        collected: list[list[npt.NDArray[np.int32]]] = [[] for _ in self.event_n]
        carried: list[list[npt.NDArray[np.int32]]] = [[] for _ in self.event_n]
        self.cursor[:] = first, time[2], last, *time
        self.overflow[:] = 0
        while self.cursor[0] < last:
            kernels.run_network(*self.arguments)
            for p, count in enumerate(self.event_n):
                found = slice(self.event_at[p], self.event_at[p] + count)
                collected[p].append(self.events[found].copy())
                if self.flat.pop[5][p]:
                    carried[p].append(self.event_values[found].copy())
            self.event_n[:] = 0
        return _Part(self.row_counts[:, first:last], collected, carried, self.overflow)


def _run_range(
    flat: _Flat, inputs: npt.NDArray[np.int32], probes: _Probes, first: int, last: int, time: tuple[int, int]
) -> _Part:
    return _Work(flat, _Memory(flat), inputs, probes, last - first).run(first, last, (*time, 0))
