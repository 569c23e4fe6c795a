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
from snn_compile.targets.integer import DECAY_ONE, STATE_SHIFT
from snn_compile.targets.program import Program
from snn_compile.targets.record import DeviceRun, Overflow

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
        jobs = [(flat, inputs, probed, int(a), int(b)) for a, b in zip(bounds, bounds[1:], strict=False)]
        if threads == 1:
            parts = [_run_range(*jobs[0])]
        else:
            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(lambda job: _run_range(*job), jobs))
        spikes = {}
        for index, population in enumerate(program.populations):
            if population.spiking:
                counts = np.concatenate([part.row_counts[index].reshape(-1) for part in parts])
                starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
                neurons = np.concatenate([chunk for part in parts for chunk in part.events[index]])
                spikes[population.name] = SpikeEvents(batch, device_steps, population.size, starts, neurons)
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
    parameters: tuple[npt.NDArray[Any], ...]
    ring: tuple[npt.NDArray[Any], ...]
    ring_size: int
    tables: tuple[npt.NDArray[Any], ...]
    sum_at: npt.NDArray[np.int64]
    sum_size: int
    signed: npt.NDArray[np.int8]
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
    at = _starts([_pad(int(k)) for k in n])
    resets = {"value": kernels.RESET_VALUE, "subtract": kernels.RESET_SUBTRACT, "none": kernels.RESET_NONE}
    pop = (
        at[:-1].copy(),
        n,
        np.array([p.start_step for p in program.populations], np.int64),
        np.array(
            [resets[p.reset] if p.spiking else kernels.NEVER_SPIKES for p in program.populations], np.int64
        ),
    )
    depth = np.ones(len(n), np.int64)
    tables: list[list[int]] = []
    rows: list[npt.NDArray[np.int8]] = []
    row_at = 0
    for edge in program.projections:
        target = number[edge.target]
        depth[target] = max(depth[target], edge.delay_steps + 1)
        for table in edge.tables:
            kind, stored = _stored_rows(table.weights, table.sign_mode)
            tables.append(
                [
                    number[edge.source],
                    target,
                    edge.delay_steps,
                    table.exponent,
                    kind,
                    int(table.message_bits > 0),
                    row_at,
                    stored.shape[1],
                ]
            )
            rows.append(stored.reshape(-1))
            row_at += stored.size
    strides = np.array([_pad(int(k)) for k in n], np.int64)
    ring_at = _starts(depth * strides)
    columns = np.array(tables, np.int64).reshape(-1, 8).T.copy()
    sum_at = _starts([_pad(int(n[t])) for t in columns[1]])
    flat = _Flat(
        pop=pop,
        parameters=_parameters(program, at),
        ring=(ring_at[:-1].copy(), depth, strides),
        ring_size=int(ring_at[-1]),
        tables=tuple(columns),
        sum_at=sum_at[:-1].copy(),
        sum_size=int(sum_at[-1]),
        signed=np.concatenate([*rows, np.zeros(LANES, np.int8)]),
        in_at=_starts([p.size for p in program.inputs])[:-1].copy(),
        in_n=sizes[len(program.populations) :].copy(),
        sizes=sizes,
    )
    _flattened[program] = flat
    return flat


def _starts(lengths: Any) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _stored_rows(weights: npt.NDArray[Any], sign_mode: str) -> tuple[int, npt.NDArray[np.int8]]:
    """Return the kind and bytes of a table, source-major, rows padded."""
    padded = np.zeros((weights.shape[1], _pad(weights.shape[0])), np.int16)
    padded[:, : weights.shape[0]] = weights.T
    if sign_mode == "mixed":
        return kernels.ROWS_SIGNED, (padded >> 1).astype(np.int8)
    kind = kernels.ROWS_POSITIVE if sign_mode == "excitatory" else kernels.ROWS_NEGATIVE
    return kind, np.abs(padded).astype(np.uint8).view(np.int8)


def _parameters(program: Program, at: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
    size = int(at[-1])
    keep_u, keep_v = np.zeros(size, np.uint32), np.zeros(size, np.uint32)
    threshold, bias, v_init = (np.zeros(size, np.int32) for _ in range(3))
    for p, start in zip(program.populations, at[:-1], strict=True):
        where = slice(int(start), int(start) + p.size)
        keep_u[where] = DECAY_ONE - (p.parameters["du"] + 1)
        keep_v[where] = DECAY_ONE - p.parameters["dv"]
        bias[where] = p.bias
        v_init[where] = p.parameters["v_init"]
        if p.spiking:
            threshold[where] = p.parameters["vth"] << STATE_SHIFT
    return keep_u, keep_v, threshold, bias, v_init


class _Probes:
    """Where probed states go: one flat array all threads write their own samples into."""

    def __init__(self, program: Program, flat: _Flat, names: Sequence[str], rows: int) -> None:
        order = {p.name: i for i, p in enumerate(program.populations)}
        parts = [name.rpartition(".") for name in names]
        self.names = list(names)
        self.pop = np.array([order[p] for p, _, _ in parts], np.int64)
        self.is_v = np.array([state == "v" for _, _, state in parts], np.bool_)
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
    overflow: npt.NDArray[np.int64]


def _run_range(flat: _Flat, inputs: npt.NDArray[np.int32], probes: _Probes, first: int, last: int) -> _Part:
    n = flat.pop[1]
    states = len(flat.parameters[0])
    capacity = np.maximum(n, EVENT_BUFFER * n // max(1, int(n.sum())))
    event_at, event_n = _starts(capacity), np.zeros(len(n), np.int64)
    who_at = _starts(flat.sizes + 1)
    row_counts = np.zeros((len(n), inputs.shape[0], inputs.shape[1]), np.int32)
    overflow = np.zeros((len(n), 3), np.int64)
    events = np.zeros(int(event_at[-1]), np.int32)
    collected: list[list[npt.NDArray[np.int32]]] = [[] for _ in n]
    cursor = np.array([first, 0, last], np.int64)
    arguments = (
        *flat.pop,
        *flat.parameters,
        np.zeros(states, np.int32),
        np.zeros(states, np.int32),
        *flat.ring,
        np.zeros(flat.ring_size, np.int32),
        *flat.tables,
        flat.sum_at,
        np.zeros(flat.sum_size, np.int32),
        flat.signed,
        flat.signed.view(np.uint8),
        inputs,
        flat.in_at,
        flat.in_n,
        who_at[:-1].copy(),
        np.zeros(len(flat.sizes), np.int64),
        np.zeros(int(who_at[-1]), np.int32),
        np.zeros(int(n.max()), np.uint8),
        event_at[:-1].copy(),
        event_n,
        capacity,
        events,
        row_counts,
        overflow,
        probes.pop,
        probes.is_v,
        probes.at[:-1].copy(),
        probes.out,
        cursor,
    )
    while cursor[0] < last:
        kernels.run_network(*arguments)
        for p, kept in enumerate(collected):
            kept.append(events[event_at[p] : event_at[p] + event_n[p]].copy())
        event_n[:] = 0
    return _Part(row_counts[:, first:last], collected, overflow)
