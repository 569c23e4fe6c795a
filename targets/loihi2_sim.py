"""`loihi2-sim`: the fast device. Event-driven, bit for bit equal to the oracle.

A program is flattened into arrays once and interpreted by one compiled kernel (`kernels.py`); samples
run side by side on threads, sharing the weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from snn_compile.targets import kernels
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.events import SpikeEvents
from snn_compile.targets.kernel_tables import NeuronTables, kernel_of, neuron_tables, rule_numbers
from snn_compile.targets.program import Program
from snn_compile.targets.record import DeviceRun, Overflow
from snn_compile.targets.weights import WeightTable

LANES = 64
"""Rows and states are padded to this many entries, so that they begin on cache lines."""

EVENT_BUFFER = 1 << 20
"""Events held before they are copied out, over all populations of one thread."""

SAMPLES_PER_THREAD = 16


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
        inputs = np.ascontiguousarray(
            np.concatenate([messages[port.name] for port in program.inputs], axis=2)
        )
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
        np.array([kernel_of(p, p in program.senders) for p in program.populations], np.int64),
        np.array([rule_numbers(p) for p in program.populations], np.int64).reshape(-1, 6),
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
        neurons=neuron_tables(program.populations, pad),
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


def _run_range(
    flat: _Flat, inputs: npt.NDArray[np.int32], probes: _Probes, first: int, last: int, time: tuple[int, int]
) -> _Part:
    n, neurons = flat.pop[0], flat.neurons
    most = n * inputs.shape[1] * (last - first)
    capacity = np.maximum(n, np.minimum(most, EVENT_BUFFER * n // max(1, int(n.sum()))))
    event_at, event_n = _starts(capacity), np.zeros(len(n), np.int64)
    who_at = _starts(flat.sizes + 1)
    row_counts = np.zeros((len(n), inputs.shape[0], inputs.shape[1]), np.int32)
    overflow = np.zeros((len(n) + 1, 3), np.int64)
    events, event_values = (np.empty(int(event_at[-1]), np.int32) for _ in range(2))
    collected: list[list[npt.NDArray[np.int32]]] = [[] for _ in n]
    carried: list[list[npt.NDArray[np.int32]]] = [[] for _ in n]
    cursor = np.array([first, 0, last, *time], np.int64)
    senders = (
        who_at[:-1].copy(),
        np.zeros(len(flat.sizes), np.int64),
        np.zeros(int(who_at[-1]), np.int32),
        np.ones(int(who_at[-1]), np.int32),
        np.zeros(int(n.max()), np.uint8),
    )
    arguments = (
        *(*flat.pop, neurons.state_at, neurons.register_at, neurons.initial, neurons.registers),
        *(neurons.registers.view(np.uint32), np.zeros_like(neurons.initial)),
        *(*flat.ring, np.zeros(flat.ring_size, np.int32)),
        *(*flat.tables, flat.sum_at, np.zeros(flat.sum_size, np.int32)),
        *(flat.signed, flat.signed.view(np.uint8), flat.starts, flat.synapses),
        *(inputs, flat.in_at, flat.in_n, *senders),
        *(event_at[:-1].copy(), event_n, capacity, events, event_values, row_counts, overflow),
        *(probes.pop, probes.slot, probes.at[:-1].copy(), probes.out, cursor),
    )
    while cursor[0] < last:
        kernels.run_network(*arguments)
        for p in range(len(n)):
            found = slice(event_at[p], event_at[p] + event_n[p])
            collected[p].append(events[found].copy())
            if flat.pop[5][p]:
                carried[p].append(event_values[found].copy())
        event_n[:] = 0
    return _Part(row_counts[:, first:last], collected, carried, overflow)
