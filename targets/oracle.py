"""The oracle: what a program means, in plain integers.

Every other device is compared with this one. It computes in int64, wraps and saturates where the
hardware format says so, and can refuse to (`strict=True`). One device step:

    a  = sum over tables of shift(W @ messages sent 1 + delay steps ago, exponent)      wrapped to 32 bits
    u  = turn( shift_toward_zero(u * (4096 - (du + 1)), 12) + (a << 6) )
    v  = saturate( shift_toward_zero(v * (4096 - dv), 12) + u + bias )
    s  = v > (vth << 6)
    v  = 0 where s (reset "value"), v - (vth << 6) where s (reset "subtract")
    v  = max(v, v_min)

or what the population's rule says instead (`rule.py`). A leaky integrator sends v >> message_shift,
flooring; a ternary neuron sends 1 where v > (vth_hi << 6), -1 where v < (vth_lo << 6), and v is 0 there.
A subtraction that takes v below its range saturates and counts as such. A population does nothing before
its start step, and in a c-slow program nothing between its logical steps. Source: Lava 0.10.0's fixed-point
LIF, Dense and DelayDense, as measured on random programs; start steps, periods and every rule but the first
are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from snn_compile.targets.errors import DeviceError
from snn_compile.targets.events import SpikeEvents
from snn_compile.targets.integer import (
    DECAY_BITS,
    DECAY_ONE,
    STATE_SHIFT,
    Int,
    M,
    saturate,
    shift_sum,
    shift_toward_zero,
    wrap24,
    wrap32,
)
from snn_compile.targets.population import Population
from snn_compile.targets.program import Program, Projection
from snn_compile.targets.record import DeviceRun, Overflow


class Oracle:
    """The definition, slow and readable. `strict=True` raises DeviceError on wrap or saturation."""

    name = "oracle"

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict

    def run(
        self,
        program: Program,
        messages: Mapping[str, npt.NDArray[np.int32]],
        device_steps: int,
        probes: Sequence[str],
    ) -> DeviceRun:
        """Run all samples side by side; see `Device.run`."""
        batch = next(iter(messages.values())).shape[0]
        neurons = {p.name: _Neurons(p, batch) for p in program.populations}
        steps = program.logical_steps(device_steps)
        sent: dict[str, list[Int]] = {p.name: [] for p in program.nodes}
        states: dict[str, list[Int]] = {probe: [] for probe in probes}
        for step in range(device_steps):
            emitted = {p.name: messages[p.name][:, step].astype(np.int64) for p in program.inputs}
            for name, group in neurons.items():
                late = step - group.population.start_step
                if late < 0 or late % program.period:
                    emitted[name] = np.zeros_like(group.v)
                    continue
                total = np.zeros((batch, group.population.size), np.int64)
                for edge in program.projections:
                    if edge.target == name and step - 1 - edge.delay_steps >= 0:
                        total += synaptic_input(edge, sent[edge.source][step - 1 - edge.delay_steps])
                before = group.overflow
                emitted[name] = group.step(wrap32(total))
                if late >= steps * program.period:
                    group.overflow = before  # while the pipeline drains: it changes no result
                if self.strict and group.overflow:
                    raise DeviceError(
                        f"{name!r} left its 24-bit range at device step {step}: {group.overflow}",
                        device=self.name,
                        population=name,
                        step=step,
                    )
            for name, values in emitted.items():
                sent[name].append(values)
            for probe, trace in states.items():
                name, _, state = probe.rpartition(".")
                trace.append(getattr(neurons[name], state).copy())
        return DeviceRun(
            spikes={
                p.name: SpikeEvents.from_dense(np.stack(sent[p.name], axis=1), p.graded)
                for p in program.senders
            },
            states={probe: np.stack(trace, axis=1).astype(np.int32) for probe, trace in states.items()},
            overflows={name: group.overflow for name, group in neurons.items()},
        )


def synaptic_input(edge: Projection, messages: Int) -> Int:
    """Return what a projection delivers for messages (batch, source): (batch, target)."""
    total = np.zeros((messages.shape[0], edge.tables[0].shape[0]), np.int64)
    for table in edge.tables:
        values = messages if table.message_bits else (messages != 0).astype(np.int64)
        total += shift_sum(table.apply(values), table.exponent)
    return total


class _Neurons:
    """The state of one population over a batch."""

    def __init__(self, population: Population, batch: int) -> None:
        parameters = {key: array.astype(np.int64) for key, array in population.parameters.items()}
        self.population, self.rule, self.parameters = population, population.rule, parameters
        self.keep_u = DECAY_ONE - (parameters["du"] + 1)
        self.keep_v = DECAY_ONE - parameters["dv"]
        self.threshold = parameters["vth"] << STATE_SHIFT if "vth" in parameters else None
        self.bias = population.bias
        self.u = np.zeros((batch, population.size), np.int64)
        self.v = self.u + parameters["v_init"]
        self.last = np.zeros_like(self.u)
        self.overflow = Overflow()

    def step(self, a: Int) -> Int:
        """Advance by one logical step with synaptic input `a` (batch, size); return what is sent."""
        drive = self._current(a)
        pending = self._past(self.v)
        if self.rule.reset_timing == "next_before":
            self._reset(self.last)
        raw = wrap32(shift_toward_zero(self.v * self.keep_v, DECAY_BITS) + drive + self.bias)
        self.v = saturate(raw)
        self.overflow += Overflow(0, int((raw > M - 1).sum()), int((raw < -(M - 1)).sum()))
        if self.population.model == "li":
            return self.v >> self.parameters["message_shift"]
        if self.population.model == "ternary":
            above = self.v > self.parameters["vth_hi"] << STATE_SHIFT
            below = self.v < self.parameters["vth_lo"] << STATE_SHIFT
            self.v = np.where(above | below, 0, self.v)
            return above.astype(np.int64) - below
        if self.rule.reset_timing == "next_after":
            self._reset(self.last)
        self.last = self._spikes(pending)
        if self.rule.reset_timing in ("same_step", "pending"):
            self._reset(self.last)
        self.v = np.maximum(self.v, self.parameters["v_min"])
        return self.last

    def _current(self, a: Int) -> Int:
        """Update u and return what drives the membrane in this step."""
        before = self.u
        if self.rule.current_decay == "before":
            exact = shift_toward_zero(self.u * self.keep_u, DECAY_BITS) + (a << STATE_SHIFT)
        else:
            exact = self.u + (a << STATE_SHIFT)
        # Two wraps, as in Lava: the shifted input to 32 bits, then the sum, then one turn of 24 bits.
        self.u = wrap24(wrap32(exact))
        self.overflow += Overflow(int((self.u != exact).sum()), 0, 0)
        whole = self.u
        if self.rule.current_decay == "after":
            self.u = shift_toward_zero(whole * self.keep_u, DECAY_BITS)
        return whole if self.rule.update_order == "synapse_first" else before

    def _past(self, v: Int) -> npt.NDArray[np.bool_]:
        if self.threshold is None:
            return np.zeros(v.shape, bool)
        return v > self.threshold if self.rule.comparison == ">" else v >= self.threshold

    def _spikes(self, pending: npt.NDArray[np.bool_]) -> Int:
        assert self.threshold is not None
        reached = self.v
        if self.rule.reset_timing == "pending":
            reached = self.v - np.where(pending, self.threshold, 0)
        spikes = self._past(reached)
        if self.rule.spikes_per_step == "floor":
            # Of integers, v > n theta is v - 1 >= n theta.
            strict = int(self.rule.comparison == ">")
            return np.where(spikes, (reached - strict) // self.threshold, 0)
        return spikes.astype(np.int64)

    def _reset(self, spikes: Int) -> None:
        if self.threshold is None or self.rule.reset == "none":
            return
        if self.rule.reset == "value":
            self.v = np.where(spikes != 0, 0, self.v)
        else:
            self.v = self.v - spikes * self.threshold
            # Of a late reset after the membrane's step; v_min, never below the range, takes it back.
            self.overflow += Overflow(0, 0, int((self.v < -(M - 1)).sum()))
