"""An integer network that knows no device time.

It takes the quantized integers and a float network's logical delays, and steps in logical time with
arithmetic of its own: no latencies, start steps, device delays, relays, cores or routes. A compiled
program, run on the devices, must be the same bit for bit in u, v and spikes of every population. States
are taken to stay in their ranges, which the strict oracle makes sure of.
"""

from __future__ import annotations

import numpy as np


def step_logically(network, quantized, messages):
    """Return u, v and what is sent by population, (samples, steps, size) each.

    `network`: the simplified float network, for its order and its logical delays. `messages`: input port
    to integers (samples, steps, size).
    """
    samples, steps = next(iter(messages.values())).shape[:2]
    integer = {p.name: p for p in quantized.populations}
    tables = {e.name: [(dense(table), table.exponent) for table in e.tables] for e in quantized.projections}
    sent = {name: [rows[:, t].astype(np.int64) for t in range(steps)] for name, rows in messages.items()}
    groups = {name: Neurons(integer[name], samples) for name in network.order}
    sent |= {name: [] for name in groups}
    traces = {name: {"u": [], "v": [], "s": []} for name in groups}
    for t in range(steps):
        for name, group in groups.items():
            arriving = np.zeros_like(group.u)
            for edge in network.projections:
                if edge.target == name and t >= edge.delay_steps:
                    for weights, exponent in tables[edge.name]:
                        total = sent[edge.source][t - edge.delay_steps] @ weights.T
                        arriving += total * 2**exponent if exponent > 0 else total // 2**-exponent
            sent[name].append(group.step(arriving))
            for key, value in (("u", group.u), ("v", group.v), ("s", sent[name][-1])):
                traces[name][key].append(value)
    return {
        name: {key: np.stack(rows, axis=1) for key, rows in trace.items()} for name, trace in traces.items()
    }


def dense(table):
    weights = table.weights
    return np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights, np.int64)


def lose(x, register):
    """x (4096 - register) / 4096, toward zero."""
    kept = np.abs(x) * (4096 - register) // 4096
    return np.where(x < 0, -kept, kept)


class Neurons:
    """A population over a batch; one step as targets/program/rule.py words it."""

    def __init__(self, population, samples):
        self.p = population
        self.own = {key: array.astype(np.int64) for key, array in population.parameters.items()}
        self.theta = 64 * self.own["vth"] if population.spiking else 0
        self.u = np.zeros((samples, population.size), np.int64)
        self.v = self.u + self.own["v_init"]
        self.last = np.zeros_like(self.u)

    def step(self, arriving):
        p, own = self.p, self.own
        before, register = self.u, own["du"] + 1
        if p.current_decay == "before":
            drive = self.u = lose(self.u, register) + 64 * arriving
        else:
            drive = self.u + 64 * arriving
            self.u = lose(drive, register)
        drive = before if p.update_order == "membrane_first" else drive
        began_past = self.past(self.v, self.theta)
        v = self.reset(self.v, self.last) if p.reset_timing == "next_before" else self.v
        v = lose(v, own["dv"]) + drive + own["bias_mant"] * 2 ** own["bias_exp"]
        if not p.spiking:
            self.v = v
            return v // 2 ** own["message_shift"]
        v = self.reset(v, self.last) if p.reset_timing == "next_after" else v
        if p.spikes_per_step == "floor":
            n, more = np.zeros_like(v), True
            while np.any(more):
                more = self.past(v, (n + 1) * self.theta)
                n = n + more
        else:
            twice = (p.reset_timing == "pending") & began_past
            n = self.past(v, np.where(twice, 2 * self.theta, self.theta)).astype(np.int64)
        v = self.reset(v, n) if p.reset_timing in ("same_step", "pending") else v
        self.v, self.last = np.maximum(v, own["v_min"]), n
        return n

    def past(self, v, height):
        return v > height if self.p.comparison == ">" else v >= height

    def reset(self, v, n):
        if self.p.reset == "value":
            return np.where(n > 0, 0, v)
        return v - n * self.theta if self.p.reset == "subtract" else v
