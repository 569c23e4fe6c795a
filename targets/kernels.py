"""The kernels of `loihi2-sim`: one function that interprets a network given as flat arrays.

One compilation serves every program. All arithmetic is 32-bit: with a = |x| <= 2**31 and d <= 4096 the
decay (a * d) >> 12 equals (a >> 12) * d + (((a & 4095) * d) >> 12) exactly, in unsigned 32 bits.
Synaptic sums are plain integer additions, so the order of rows does not matter; eight int8 rows are
summed in 16 bits before they are added to the 32-bit accumulator. Everything that `run_network` is
compiled from stands in this one file, because numba's cache watches no other for changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

SAME_STEP, NEXT_BEFORE, NEXT_AFTER, PENDING = 0, 1, 2, 3
RESET_VALUE, RESET_SUBTRACT, RESET_NONE, NEVER_SPIKES, TERNARY = 0, 1, 2, 3, 4
ROWS_SIGNED, ROWS_POSITIVE, ROWS_NEGATIVE = 0, 1, 2


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


@njit(nogil=True, cache=True, inline="always")
def _keep(x: Any, d: Any) -> Any:
    """Return the share d / 4096 of x, rounded toward zero."""
    m = np.uint32(-x) if x < 0 else np.uint32(x)
    m = np.uint32(
        np.uint32(np.uint32(m >> np.uint32(12)) * d)
        + np.uint32(np.uint32(np.uint32(m & np.uint32(4095)) * d) >> np.uint32(12))
    )
    return np.int32(-np.int32(m)) if x < 0 else np.int32(m)


@njit(nogil=True, cache=True, inline="always")
def _clip(y: Any) -> Any:
    top = np.int32((1 << 23) - 1)
    return top if y > top else (np.int32(-top) if y < -top else np.int32(y))


@njit(nogil=True, cache=True, inline="always")
def _reset(v: Any, spikes: Any, threshold: Any, reset: Any) -> Any:
    """Return v after a reset, not clipped; spikes * threshold is no more than a membrane was."""
    if spikes == 0 or reset == RESET_NONE:
        return np.int32(v)
    if reset == RESET_VALUE:
        return np.int32(0)
    return np.int32(v - np.int32(spikes * threshold))


@njit(nogil=True, cache=True, inline="always")
def _past(v: Any, threshold: Any, at_threshold: Any) -> bool:
    return bool(v >= threshold if at_threshold else v > threshold)


@njit(nogil=True, cache=True)
def _update_by_rule(
    n: int, acc: Any, u: Any, v: Any, last: Any, keep_u: Any, keep_v: Any, threshold: Any, bias: Any,
    v_min: Any, shift: Any, rule: Any, who: Any, values: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance n neurons of any rule by one step; list who sends and what, return how many do.

    `rule`: reset, timing, comparison, spikes a step, update order, current decay, as numbers; `v_min`
    holds the lower threshold of ternary neurons.
    """
    reset, timing, at_threshold = rule[0], rule[1], rule[2]
    many, old_current, decay_after = rule[3], rule[4], rule[5]
    top = (1 << 23) - 1
    k = 0
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        before = u[i]
        kept = before if decay_after else np.int32(_keep(before, keep_u[i]))
        y = np.int32(kept + np.int32(a << 6))
        w = np.int32(y - (1 << 24)) if y > (1 << 23) else (np.int32(y + (1 << 24)) if y <= -(1 << 23) else y)
        overflow[0] += np.int64(w) != np.int64(kept) + (np.int64(a) << 6)
        u[i] = np.int32(_keep(w, keep_u[i])) if decay_after else w
        drive = before if old_current else w
        x = v[i]
        pending = timing == PENDING and _past(x, threshold[i], at_threshold)
        if timing == NEXT_BEFORE:
            x = _reset(x, last[i], threshold[i], reset)
        y = np.int32(np.int32(np.int32(_keep(x, keep_v[i])) + drive) + bias[i])
        overflow[1] += y > top
        overflow[2] += y < -top
        x = np.int32(_clip(y))
        if reset == NEVER_SPIKES:
            sent = np.int32(x >> shift[i])
        elif reset == TERNARY:
            sent = np.int32(np.int32(x > threshold[i]) - np.int32(x < v_min[i]))
            x = np.int32(0) if sent else x
        else:
            if timing == NEXT_AFTER:
                x = _reset(x, last[i], threshold[i], reset)
                overflow[2] += x < -top  # v_min, never below the range, takes it back
            reached = np.int32(x - threshold[i]) if pending else x
            sent = np.int32(0)
            if _past(reached, threshold[i], at_threshold):
                # Of integers, v > n theta is v - 1 >= n theta.
                strict = 0 if at_threshold else 1
                sent = np.int32((reached - strict) // threshold[i]) if many else np.int32(1)
            last[i] = sent
            if timing == SAME_STEP or timing == PENDING:
                x = _reset(x, sent, threshold[i], reset)
            x = max(x, v_min[i])
        v[i] = x
        who[k] = i
        values[k] = sent
        k += sent != 0
    return k


@njit(nogil=True, cache=True, inline="always")
def _update(
    n: int, acc: Any, u: Any, v: Any, keep_u: Any, keep_v: Any, threshold: Any, bias: Any, reset: int,
    fired: Any, spikes: Any, overflow: Any,
) -> int:  # fmt: skip
    """Advance n neurons by one step, write who fired to `spikes` and return how many did."""
    half = np.int32(1 << 23)
    full = np.int32(1 << 24)
    top = np.int32((1 << 23) - 1)
    wraps = np.int32(0)
    high = np.int32(0)
    low = np.int32(0)
    for i in range(n):
        a = acc[i]
        acc[i] = np.int32(0)
        x = u[i]
        m = np.uint32(-x) if x < 0 else np.uint32(x)
        d = keep_u[i]
        m = np.uint32(
            np.uint32(np.uint32(m >> np.uint32(12)) * d)
            + np.uint32(np.uint32(np.uint32(m & np.uint32(4095)) * d) >> np.uint32(12))
        )
        kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)
        shifted = np.int32(a << 6)
        y = np.int32(kept + shifted)
        w = np.int32(y - full) if y > half else (np.int32(y + full) if y <= -half else y)
        lost = (np.int32(shifted >> 6) != a) or (((kept ^ y) & (shifted ^ y)) < 0) or (w != y)
        wraps += np.int32(lost)
        u[i] = w
        x = v[i]
        m = np.uint32(-x) if x < 0 else np.uint32(x)
        d = keep_v[i]
        m = np.uint32(
            np.uint32(np.uint32(m >> np.uint32(12)) * d)
            + np.uint32(np.uint32(np.uint32(m & np.uint32(4095)) * d) >> np.uint32(12))
        )
        kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)
        y = np.int32(np.int32(kept + w) + bias[i])
        high += np.int32(y > top)
        low += np.int32(y < -top)
        y = top if y > top else (np.int32(-top) if y < -top else y)
        fires = (y > threshold[i]) and (reset != 3)
        fired[i] = np.uint8(fires)
        if reset == 0:
            y = np.int32(0) if fires else y
        elif reset == 1:
            y = np.int32(y - threshold[i]) if fires else y
        v[i] = y
    overflow[0] += wraps
    overflow[1] += high
    overflow[2] += low
    if reset == 3:
        return 0
    k = 0
    for i in range(n):
        spikes[k] = i
        k += fired[i]
    return k


@njit(nogil=True, cache=True)
def run_network(
    # populations: where each begins in the state arrays, its size, start step, kind of reset, whether a
    # step is Lava's LIF's, its rule as numbers (population, 6), whether its messages carry values
    pop_at: Any, pop_n: Any, pop_start: Any, pop_reset: Any, pop_plain: Any, pop_rule: Any, pop_graded: Any,
    keep_u: Any, keep_v: Any, threshold: Any, bias: Any, v_init: Any, v_min: Any, shift: Any,
    u: Any, v: Any, last: Any,
    ring_at: Any, ring_depth: Any, ring_stride: Any, ring: Any,
    # tables, by source: populations first, then inputs; sparse ones begin in `starts`, dense in `signed`
    tab_source: Any, tab_target: Any, tab_delay: Any, tab_exponent: Any, tab_rows: Any,
    tab_graded: Any, tab_sparse: Any, tab_at: Any, tab_stride: Any, sum_at: Any, sums: Any,
    signed: Any, unsigned: Any, starts: Any, synapses: Any,
    # inputs: messages (batch, steps, all channels), where each input's channels begin, and how many
    messages: Any, in_at: Any, in_n: Any,
    # who sends now and what, by source: start in `who`, count in `who_n`; `what` is 1 for spikes
    who_at: Any, who_n: Any, who: Any, what: Any, fired: Any,
    # results: events by population, their counts a row, overflows, probes
    event_at: Any, event_n: Any, event_capacity: Any, events: Any, event_values: Any, row_counts: Any,
    overflow: Any, probe_pop: Any, probe_is_v: Any, probe_at: Any, probe_out: Any,
    # (sample, step, last sample, logical steps, period): where to go on; a full event buffer ends it early
    cursor: Any,
) -> None:  # fmt: skip
    """Run samples cursor[0]..cursor[2]-1 from step cursor[1]; update the cursor."""
    populations = pop_n.size
    steps = messages.shape[1]
    period = cursor[4]
    while cursor[0] < cursor[2]:
        s = cursor[0]
        if cursor[1] == 0:
            u[:] = 0
            v[:] = v_init
            last[:] = 0
            ring[:] = 0
        while cursor[1] < steps:
            t = cursor[1]
            for p in range(populations):
                if event_n[p] + pop_n[p] > event_capacity[p]:
                    return
            for p in range(populations):
                n = pop_n[p]
                own = slice(pop_at[p], pop_at[p] + n)
                mine = slice(who_at[p], who_at[p] + n + 1)
                k = 0
                if t >= pop_start[p] and (t - pop_start[p]) % period == 0:
                    slot = ring_at[p] + (t % ring_depth[p]) * ring_stride[p]
                    acc = ring[slot : slot + n]
                    # The last row takes what happens while the pipeline drains: it changes no result.
                    drains = t >= pop_start[p] + cursor[3] * period
                    seen = overflow[populations] if drains else overflow[p]
                    if pop_plain[p]:
                        k = _update(
                            n, acc, u[own], v[own], keep_u[own], keep_v[own], threshold[own], bias[own],
                            pop_reset[p], fired, who[mine], seen,
                        )  # fmt: skip
                    else:
                        k = _update_by_rule(
                            n, acc, u[own], v[own], last[own], keep_u[own], keep_v[own], threshold[own],
                            bias[own], v_min[own], shift[own], pop_rule[p], who[mine], what[mine],
                            seen,
                        )  # fmt: skip
                who_n[p] = k
                row_counts[p, s, t] = k
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
                line = messages[s, t, in_at[i] : in_at[i] + in_n[i]]
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
                held = tab_graded[e] and i >= 0 and t > 0
                if not (held and _held(messages[s, t], messages[s, t - 1], in_at[i], in_n[i])):
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
                _deliver(total, n, tab_rows[e], tab_exponent[e], ring[slot : slot + n])
            for q in range(probe_pop.size):
                p = probe_pop[q]
                at = pop_at[p]
                out = probe_at[q] + (s * steps + t) * pop_n[p]
                state = v if probe_is_v[q] else u
                for j in range(pop_n[p]):
                    probe_out[out + j] = state[at + j]
            cursor[1] = t + 1
        cursor[0] = s + 1
        cursor[1] = 0


@njit(nogil=True, cache=True, inline="always")
def _held(line: Any, before: Any, at: int, n: int) -> bool:
    """Tell whether an input sends what it sent a step ago: its sums are then still there."""
    for j in range(at, at + n):
        if line[j] != before[j]:
            return False
    return True


@njit(nogil=True, cache=True, inline="always")
def _deliver(total: Any, n: int, rows: int, exponent: int, slot: Any) -> None:
    """Scale one table's sum by its exponent and add it to the accumulator of the arrival step.

    Mixed tables are stored halved (their lowest bit is always clear), hence the doubling; it comes
    before a right shift, so that the shift floors the whole sum.
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
            whole = np.int32(np.int32(sign * total[j]) << doubling)
            slot[j] = np.int32(slot[j] + np.int32(whole >> shift))
