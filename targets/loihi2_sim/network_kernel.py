"""The kernel of `loihi2-sim`: one function that interprets a network given as flat arrays.

One compilation serves every program. Synaptic sums are plain 32-bit integer additions, so the order of
rows does not matter; eight int8 rows are summed in 16 bits before they are added to the 32-bit
accumulator. The neurons' steps are the kernels that the files in `neurons/` register.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.discovery import import_modules
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.loihi2_sim.kernels import ACCUMULATOR_BITS, LAYOUTS
from snn_compile.targets.program.population import Population

SOURCE = int.from_bytes(
    hashlib.sha256(
        b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py")))
    ).digest()[:7],
    "big",
)
"""Numba's cache watches the file of a function for changes, not those of the functions compiled into it.
As a default argument of `run_network` this digest of the whole folder is a part of what its cached code is
found by; the kernels themselves are not cached."""

ROWS_SIGNED, ROWS_POSITIVE, ROWS_NEGATIVE = 0, 1, 2

import_modules("snn_compile.targets.loihi2_sim.neurons")
KERNELS = tuple(dict.fromkeys(step for model in sorted(LAYOUTS) for step in LAYOUTS[model].steps))
"""Every registered kernel; a population's is known by its place here."""


def kernel_of(population: Population, sends: bool) -> int:
    """Return the number of the kernel that steps a population; `sends`: its messages are read.

    Raises DeviceError if none is registered for the population's model.
    """
    if population.model not in LAYOUTS:
        raise DeviceError(
            f"population {population.name!r}: no compiled step for model {population.model!r}; "
            "the oracle runs it",
            device="loihi2-sim",
        )
    layout = LAYOUTS[population.model]
    return KERNELS.index(layout.steps[layout.choose(population, sends)])


def _dispatcher(kernels: Sequence[Any]) -> Any:
    """Return one compiled function that calls the kernel of a number, its first argument, with the others.

    It is written out as a flat chain of branches and inlined, because every call between compiled functions
    counts references to all the arrays that it passes: a call per kernel took longer than a small population.
    """
    arguments = "n, w, acc, state, registers, options, formats, scratch, who, values, overflow"
    branches = [f"    if kernel == {i}: return step_{i}({arguments})" for i in range(len(kernels))]
    source = "\n".join([f"def step_population(kernel, {arguments}):", *branches, "    return 0"])
    names: dict[str, Any] = {f"step_{i}": kernel for i, kernel in enumerate(kernels)}
    exec(source, names)
    return njit(nogil=True, inline="always")(names["step_population"])


step_population = _dispatcher(KERNELS)


@njit(nogil=True, cache=True, inline="always")
def _add_rows(rows: Any, base: int, stride: int, n: int, who: Any, k: int, total: Any) -> None:
    """Add the rows `who[:k]` of a table to `total` (int32); rows hold int8 or uint8."""
    q = 0
    while q + 8 <= k:
        r0 = rows[base + who[q] * stride :][:n]
        r1 = rows[base + who[q + 1] * stride :][:n]
        r2 = rows[base + who[q + 2] * stride :][:n]
        r3 = rows[base + who[q + 3] * stride :][:n]
        r4 = rows[base + who[q + 4] * stride :][:n]
        r5 = rows[base + who[q + 5] * stride :][:n]
        r6 = rows[base + who[q + 6] * stride :][:n]
        r7 = rows[base + who[q + 7] * stride :][:n]
        for j in range(n):
            eight = np.int16(
                np.int16(r0[j])
                + np.int16(r1[j])
                + np.int16(r2[j])
                + np.int16(r3[j])
                + np.int16(r4[j])
                + np.int16(r5[j])
                + np.int16(r6[j])
                + np.int16(r7[j])
            )
            total[j] = np.int32(total[j] + np.int32(eight))
        q += 8
    while q + 2 <= k:
        r0 = rows[base + who[q] * stride :][:n]
        r1 = rows[base + who[q + 1] * stride :][:n]
        for j in range(n):
            two = np.int16(np.int16(r0[j]) + np.int16(r1[j]))
            total[j] = np.int32(total[j] + np.int32(two))
        q += 2
    if q < k:
        r0 = rows[base + who[q] * stride :][:n]
        for j in range(n):
            total[j] = np.int32(total[j] + np.int32(r0[j]))


@njit(nogil=True, cache=True, inline="always")
def _add_graded(rows: Any, base: int, stride: int, n: int, who: Any, k: int, values: Any, total: Any) -> None:
    """Add value * row for the messages `who[:k]` with `values[:k]` to `total` (int32, wrapping)."""
    for q in range(k):
        value = values[q]
        row = rows[base + who[q] * stride :][:n]
        for j in range(n):
            total[j] = np.int32(total[j] + np.int32(value * np.int32(row[j])))


@njit(nogil=True, cache=True, inline="always")
def _add_sparse(
    synapses: Any, starts: Any, is_signed: bool, graded: bool, who: Any, k: int, values: Any, total: Any
) -> None:
    """Add sparse rows to `total`; a synapse is target << 8 | weight byte."""
    for q in range(k):
        value = values[q] if graded else np.int32(1)
        for c in range(starts[who[q]], starts[who[q] + 1]):
            synapse = synapses[c]
            byte = np.uint8(synapse & np.uint32(255))
            weight = np.int32(np.int8(byte)) if is_signed else np.int32(byte)
            target = np.int64(synapse >> np.uint32(8))
            total[target] = np.int32(total[target] + np.int32(value * weight))


@njit(nogil=True, cache=True)
def run_network(
    # populations: size, size with padding, start step, kernel and its options, whether messages carry
    # values; where its states and registers begin, each as long as the padded size; the number formats
    pop_n: Any, pop_stride: Any, pop_start: Any, pop_kernel: Any, pop_options: Any, pop_graded: Any,
    state_at: Any, register_at: Any, initial: Any, registers: Any, state: Any, formats: Any,
    # accumulators of synaptic input: a ring of rows of `ring_stride`, the padded size times the ports
    ring_at: Any, ring_depth: Any, ring_stride: Any, ring: Any,
    # tables, by source: populations first, then inputs; sparse ones begin in `starts`, dense in `signed`
    tab_source: Any, tab_target: Any, tab_port: Any, tab_delay: Any, tab_exponent: Any, tab_rows: Any,
    tab_graded: Any, tab_sparse: Any, tab_at: Any, tab_stride: Any, sum_at: Any, sums: Any,
    signed: Any, unsigned: Any, starts: Any, synapses: Any,
    # inputs: messages (batch, steps, all channels), where each input's channels begin, and how many
    messages: Any, in_at: Any, in_n: Any,
    # who sends now and what, by source: start in `who`, count in `who_n`; `what` is 1 for spikes
    who_at: Any, who_n: Any, who: Any, what: Any, scratch: Any,
    # results: events by population, their counts a row, overflows, probes
    event_at: Any, event_n: Any, event_capacity: Any, events: Any, event_values: Any, row_counts: Any,
    overflow: Any, probe_pop: Any, probe_slot: Any, probe_at: Any, probe_out: Any,
    # (sample, step, last sample, logical steps, period, first step): where to go on, and which step the
    # messages begin at; a full event buffer ends it early
    cursor: Any, digest: int = SOURCE,
) -> None:  # fmt: skip
    """Run samples cursor[0]..cursor[2]-1 from step cursor[1]; update the cursor.

    Step 0 begins at the initial state, any other where the last one ended.
    """
    populations = pop_n.size
    steps = messages.shape[1]
    period, first = cursor[4], cursor[5]
    while cursor[0] < cursor[2]:
        s = cursor[0]
        if cursor[1] == 0:
            state[:] = initial
            ring[:] = 0
        while cursor[1] < first + steps:
            t = cursor[1]
            row = t - first
            for p in range(populations):
                if event_n[p] + pop_n[p] > event_capacity[p]:
                    return
            for p in range(populations):
                n = pop_n[p]
                mine = slice(who_at[p], who_at[p] + n + 1)
                k = 0
                if t >= pop_start[p] and (t - pop_start[p]) % period == 0:
                    slot = ring_at[p] + (t % ring_depth[p]) * ring_stride[p]
                    # The last row takes what happens while the pipeline drains: it changes no result.
                    drains = t >= pop_start[p] + cursor[3] * period
                    seen = overflow[populations] if drains else overflow[p]
                    acc = ring[slot : slot + ring_stride[p]]
                    w = pop_stride[p]
                    own = state[state_at[p] : state_at[p + 1]]
                    held = registers[register_at[p] : register_at[p + 1]]
                    k = step_population(
                        pop_kernel[p], n, w, acc, own, held, pop_options[p], formats, scratch,
                        who[mine], what[mine], seen,
                    )  # fmt: skip
                who_n[p] = k
                row_counts[p, s, row] = k
                start = event_at[p] + event_n[p]
                for q in range(k):
                    events[start + q] = who[who_at[p] + q]
                if pop_graded[p]:
                    for q in range(k):
                        event_values[start + q] = what[who_at[p] + q]
                event_n[p] += k
            for i in range(in_n.size):
                k = 0
                at = who_at[populations + i]
                line = messages[s, row, in_at[i] : in_at[i] + in_n[i]]
                for j in range(in_n[i]):
                    who[at + k] = j
                    what[at + k] = line[j]
                    k += line[j] != 0
                who_n[populations + i] = k
            for e in range(tab_source.size):
                source = tab_source[e]
                k = who_n[source]
                if k == 0:
                    continue
                p = tab_target[e]
                n = pop_n[p]
                total = sums[sum_at[e] : sum_at[e] + n]
                listed = who[who_at[source] : who_at[source] + k]
                values = what[who_at[source] : who_at[source] + k]
                i = source - populations
                repeated = tab_graded[e] and i >= 0 and row > 0
                if not (repeated and _repeats(messages[s, row], messages[s, row - 1], in_at[i], in_n[i])):
                    total[:] = 0
                    if tab_sparse[e]:
                        _add_sparse(
                            synapses, starts[tab_at[e] :], tab_rows[e] == 0, tab_graded[e] != 0, listed, k,
                            values, total,
                        )  # fmt: skip
                    elif tab_graded[e]:
                        if tab_rows[e] == 0:
                            _add_graded(signed, tab_at[e], tab_stride[e], n, listed, k, values, total)
                        else:
                            _add_graded(unsigned, tab_at[e], tab_stride[e], n, listed, k, values, total)
                    elif tab_rows[e] == 0:
                        _add_rows(signed, tab_at[e], tab_stride[e], n, listed, k, total)
                    else:
                        _add_rows(unsigned, tab_at[e], tab_stride[e], n, listed, k, total)
                slot = ring_at[p] + ((t + 1 + tab_delay[e]) % ring_depth[p]) * ring_stride[p]
                slot += tab_port[e] * pop_stride[p]
                _deliver(
                    total,
                    n,
                    tab_rows[e],
                    tab_exponent[e],
                    32 - formats[ACCUMULATOR_BITS],
                    ring[slot : slot + n],
                )
            for q in range(probe_pop.size):
                p = probe_pop[q]
                at = state_at[p] + probe_slot[q] * pop_stride[p]
                out = probe_at[q] + (s * steps + row) * pop_n[p]
                for j in range(pop_n[p]):
                    probe_out[out + j] = state[at + j]
            cursor[1] = t + 1
        cursor[0] = s + 1
        cursor[1] = first


@njit(nogil=True, cache=True, inline="always")
def _repeats(line: Any, before: Any, at: int, n: int) -> bool:
    """Tell whether an input sends what it sent a step ago: its sums are then still there."""
    for j in range(at, at + n):
        if line[j] != before[j]:
            return False
    return True


@njit(nogil=True, cache=True, inline="always")
def _deliver(total: Any, n: int, rows: int, exponent: int, spare: int, slot: Any) -> None:
    """Scale one table's sum by its exponent and add it to the accumulator of the arrival step.

    Mixed tables are stored halved (their lowest bit is always clear), hence the doubling; it comes
    before a right shift, so that the shift floors the whole sum. `spare`: how many bits an accumulator
    has less than 32; it wraps at its own width.
    """
    doubling = 1 if rows == 0 else 0
    sign = np.int32(-1) if rows == 2 else np.int32(1)
    if exponent >= 0:
        shift = exponent + doubling
        for j in range(n):
            slot[j] = np.int32(slot[j] + np.int32(np.int32(sign * total[j]) << shift))
    else:
        shift = -exponent
        for j in range(n):
            whole = np.int32(np.int32(np.int32(sign * total[j]) << (doubling + spare)) >> spare)
            slot[j] = np.int32(slot[j] + np.int32(whole >> shift))
    if spare:
        for j in range(n):
            slot[j] = np.int32(np.int32(slot[j] << spare) >> spare)
