"""The oracle: what a program means, in plain integers.

Every other device is compared with this one. It computes in int64, wraps and saturates where the
hardware format says so, and can refuse to (`strict=True`). In one device step every port of every
population receives

    a  = sum over tables of shift(W @ messages sent 1 + delay steps ago, exponent)

wrapped to the accumulator, and its neurons step as their model's class says (`oracle/*.py`). A population
does nothing before its start step, and in a c-slow program nothing between its logical steps. Source: Lava
0.10.0's fixed-point processes, Dense and DelayDense among them, as measured on random programs; start
steps, periods, every rule of the LIF but the first, `brf` and `alif` are this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.record import DeviceRun, Overflow
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.integer import Int, shift_sum, wrap_sum
from snn_compile.targets.oracle.neurons import Neurons, make_neurons
from snn_compile.targets.program.program import Program, Projection


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
        running = OracleRun(program, batch, probes, self.strict)
        return running.advance(messages, program.logical_steps(device_steps))

    def open(self, program: Program, probes: Sequence[str] = ()) -> OracleRun:
        """Return the program ready to be stepped in parts; see `SteppedDevice.open`."""
        return OracleRun(program, 1, probes, self.strict)


class OracleRun:
    """A program in the oracle: `batch` samples side by side, their states kept between parts of a run.

    All messages since the last reset are kept as well.
    """

    def __init__(self, program: Program, batch: int, probes: Sequence[str], strict: bool) -> None:
        self.program, self.batch, self.probes, self.strict = program, batch, tuple(probes), strict
        self.reset()

    def reset(self) -> None:
        """Go back to the initial state and to device step 0."""
        self.groups = {
            p.name: make_neurons(p, self.batch, self.program.formats) for p in self.program.populations
        }
        self.sent: dict[str, list[Int]] = {p.name: [] for p in self.program.nodes}
        self.done = 0

    def advance(
        self, messages: Mapping[str, npt.NDArray[np.int32]], logical_steps: int | None = None
    ) -> DeviceRun:
        """Run the next device steps; see `Opened.advance`."""
        program, sent, first = self.program, self.sent, self.done
        device_steps = next(iter(messages.values())).shape[1]
        states: dict[str, list[Int]] = {probe: [] for probe in self.probes}
        for group in self.groups.values():
            group.overflow = Overflow()
        for step in range(first, first + device_steps):
            emitted = {p.name: messages[p.name][:, step - first].astype(np.int64) for p in program.inputs}
            self._step(step, emitted, logical_steps)
            for name, values in emitted.items():
                sent[name].append(values)
            for probe, trace in states.items():
                name, _, state = probe.rpartition(".")
                trace.append(getattr(self.groups[name], state).copy())
        self.done += device_steps
        return DeviceRun.from_dense(
            program,
            {p.name: np.stack(sent[p.name][first:], axis=1) for p in program.senders},
            {probe: np.stack(trace, axis=1) for probe, trace in states.items()},
            {name: group.overflow for name, group in self.groups.items()},
        )

    def _step(self, step: int, emitted: dict[str, Int], steps: int | None) -> None:
        """Advance every population by one device step; add what it sends to `emitted`."""
        program = self.program
        for name, group in self.groups.items():
            late = step - group.population.start_step
            if late < 0 or late % program.period:
                emitted[name] = group.zeros()
                continue
            before = group.overflow
            emitted[name] = group.step(_inputs(program, group, step, self.sent))
            if steps is not None and late >= steps * program.period:
                group.overflow = before  # while the pipeline drains: it changes no result
            if self.strict and group.overflow:
                raise DeviceError(
                    f"{name!r} left its {program.formats.state_bits}-bit range at device step {step}: "
                    f"{group.overflow}",
                    device=Oracle.name,
                    population=name,
                    step=step,
                )


def _inputs(program: Program, group: Neurons, step: int, sent: Mapping[str, list[Int]]) -> list[Int]:
    """Return the synaptic input of each port of a population in a device step."""
    totals = [group.zeros() for _ in group.population.kind.ports]
    for edge in program.projections:
        if edge.target == group.population.name and step - 1 - edge.delay_steps >= 0:
            totals[edge.port] += synaptic_input(
                edge, sent[edge.source][step - 1 - edge.delay_steps], program.formats.accumulator_bits
            )
    return [wrap_sum(total, program.formats.accumulator_bits) for total in totals]


def synaptic_input(edge: Projection, messages: Int, bits: int) -> Int:
    """Return what a projection delivers for messages (batch, source): (batch, target).

    The sum of each table wraps to an accumulator of `bits` bits.
    """
    total = np.zeros((messages.shape[0], edge.tables[0].shape[0]), np.int64)
    for table in edge.tables:
        values = messages if table.message_bits else (messages != 0).astype(np.int64)
        total += shift_sum(table.apply(values), table.exponent, bits)
    return total
