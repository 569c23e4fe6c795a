"""A program in a closed loop: opened on a device once, then called step by step.

    session = open_session(program)                     # every call begins at the initial state
    action = session.step(currents).prediction          # currents (steps, *shape)

    session = open_session(program, continuous=True)    # states are kept until session.reset()
    answer = session.step(currents)                     # what leaves the pipeline while these enter it

A call of a session that is not continuous equals `simulate` on one sample, bit for bit. A continuous
session is one long sample in parts: the network never stops, so an answer is `session.lag_steps` behind
its inputs, and the outputs of all calls, joined and without the first `lag_steps`, are those of `simulate`
on the joined inputs. Nothing is compiled, loaded or allocated from call to call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.execution.run import add_counts
from snn_compile.targets.devices.counts import Counts, count
from snn_compile.targets.devices.device import Device, Opened, encode_inputs, membrane_of, open_device, padded
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import DeviceRun, Overflow, check_steps, read_out
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.program.program import Program

Messages: TypeAlias = npt.NDArray[np.int32]
Inputs: TypeAlias = npt.ArrayLike | Mapping[str, npt.ArrayLike]
"""(steps, *shape), or a mapping of input port to such an array."""

BUFFERED_CALLS = 256
"""Calls whose messages are buffered before they are counted together."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The result of one call.

    `outputs`: (steps, *shape) of the first output port, as in a `RunRecord`. `prediction`: a class index, or
    one per step (steps,) with a per-step readout, or the reduced signal for regression. `ties`: share of
    predictions where the highest value was not unique; the lowest index wins.
    """

    outputs: npt.NDArray[np.generic]
    prediction: Any
    ties: float


@dataclass(frozen=True, eq=False)
class Totals:
    """Counts and overflows of a session so far. `counts` is None before the first call.

    A sample of `counts` is one call, or in a continuous session everything between two resets.
    `overflows` is empty for devices that count none; `ties` sums those of the answers.
    """

    calls: int
    counts: Counts | None
    overflows: Mapping[str, Overflow]
    input_clipped: int
    ties: float


def open_session(
    program: Program, device: str | Device = "loihi2-sim", continuous: bool = False, **options: Any
) -> Session:
    """Open `program` on a device for a loop; options go to the device.

    A call is read out as the program defines. A continuous session also reads the first steps that the
    read-out skips, because its calls do not start a sample.

    Raises DeviceError where the device is unknown, not installed, or runs whole samples only.
    """
    return Session(program, open_device(device, **options) if isinstance(device, str) else device, continuous)


class Session:
    """A program opened on a device; `open_session` returns it.

    `lag_steps`: how many logical steps the outputs of a continuous session are behind its inputs, else 0.
    """

    def __init__(self, program: Program, device: Device, continuous: bool) -> None:
        load = getattr(device, "open", None)
        if load is None:
            raise DeviceError(
                f"device {device.name!r} runs whole samples only; loihi2-sim, oracle and lava-stepped can "
                "run step by step",
                device=device.name,
            )
        self.program, self.device, self.continuous = program, device.name, continuous
        port = program.outputs[0]
        self._shape = program.population(port.population).shape
        self._start = program.start_step(port.population)
        self._probe = membrane_of(program, port.population) if port.signal == "membrane" else None
        self._skip = 0 if continuous else port.skip
        self.lag_steps = self._start // program.period if continuous else 0
        self._opened: Opened = load(program, () if self._probe is None else (self._probe,))
        self._buffered: list[tuple[dict[str, Messages], DeviceRun]] = []
        self._overflows: dict[str, Overflow] = {}
        self._totals = Totals(0, None, self._overflows, 0, 0.0)
        self._begin()

    def reset(self) -> None:
        """Return to the initial state; a session that is not continuous does so at every call."""
        if self.continuous and self._buffered:
            self._drain()
        self._count()
        self._begin()

    def step(self, inputs: Inputs) -> Answer:
        """Present `inputs` and return the outputs and the prediction of the program.

        Raises WrongInput for data that do not fit, DeviceError where the device fails.
        """
        if isinstance(inputs, Mapping):
            one: Any = {name: np.asarray(array)[None] for name, array in inputs.items()}
        else:
            one = np.asarray(inputs)[None]
        messages, clipped = encode_inputs(self.program, one)
        steps = next(iter(messages.values())).shape[1]
        check_steps(steps, self._skip)
        if self.continuous:
            run, first = self._advance(messages, steps), self._start % self.program.period
        else:
            run, first = self._run_sample(messages, steps), self._start
        outputs = self._outputs(run, first, steps)
        port = self.program.outputs[0]
        predictions, ties = read_out(outputs[None], port.readout, port.task, self._skip)
        self._buffer(messages, run)
        so_far = self._totals
        self._totals = replace(
            so_far,
            calls=so_far.calls + 1,
            input_clipped=so_far.input_clipped + clipped,
            ties=so_far.ties + ties,
        )
        return Answer(outputs, predictions[0], ties)

    def totals(self) -> Totals:
        """Return the totals so far; a continuous session counts up to its last reset."""
        if not self.continuous:
            self._count()
        return replace(self._totals, overflows=dict(self._overflows))

    def _begin(self) -> None:
        self._opened.reset()
        # Messages that a port with a start step of its own delays.
        self._ahead = {p.name: np.zeros((1, p.start_step, p.size), np.int32) for p in self.program.inputs}

    def _run_sample(self, messages: Mapping[str, Messages], steps: int) -> DeviceRun:
        """Run one sample from the initial state, the pipeline filled and drained."""
        program = self.program
        device_steps = program.device_steps(steps)
        self._opened.reset()
        return self._opened.advance(
            {
                p.name: padded(messages[p.name], p.start_step, device_steps, program.period)
                for p in program.inputs
            },
            steps,
        )

    def _advance(self, messages: Mapping[str, Messages], steps: int) -> DeviceRun:
        """Run `steps` logical steps from where the last call ended."""
        sent = {}
        device_steps = steps * self.program.period
        for name, new in messages.items():
            line = np.concatenate(
                [self._ahead[name], padded(new, 0, device_steps, self.program.period)], axis=1
            )
            sent[name], self._ahead[name] = line[:, :device_steps], line[:, device_steps:]
        return self._opened.advance(sent)

    def _drain(self) -> None:
        """Run the pipeline drain, so that all inputs are counted to their end."""
        steps = sum(next(iter(messages.values())).shape[1] for messages, _ in self._buffered)
        rest = self.program.device_steps(steps) - steps * self.program.period
        if rest > 0:
            sent = {
                p.name: np.concatenate([self._ahead[p.name], np.zeros((1, rest, p.size), np.int32)], axis=1)[
                    :, :rest
                ]
                for p in self.program.inputs
            }
            none = {p.name: np.zeros((1, 0, p.size), np.int32) for p in self.program.inputs}
            self._buffer(none, self._opened.advance(sent, steps))

    def _outputs(self, run: DeviceRun, first: int, steps: int) -> npt.NDArray[np.generic]:
        period = self.program.period
        if self._probe is None:
            events = run.spikes[self.program.outputs[0].population]
            signal = events.window(first, first + steps * period, period).dense()
        else:
            signal = run.states[self._probe][:, first : first + steps * period : period]
        return signal.reshape(steps, *self._shape)

    def _buffer(self, messages: dict[str, Messages], run: DeviceRun) -> None:
        """Buffer a run until it is counted: runs of equal length together, or all parts of one sample."""
        if not self.continuous and self._buffered:
            name = self.program.inputs[0].name
            if (
                len(self._buffered) >= BUFFERED_CALLS
                or self._buffered[0][0][name].shape != messages[name].shape
            ):
                self._count()
        self._buffered.append((messages, run))
        for name, overflow in run.overflows.items():
            self._overflows[name] = self._overflows.get(name, Overflow()) + overflow

    def _count(self) -> None:
        """Count the buffered runs and drop them."""
        if not self._buffered:
            return
        axis = 1 if self.continuous else 0
        messages = {
            p.name: np.concatenate([sent[p.name] for sent, _ in self._buffered], axis=axis)
            for p in self.program.inputs
        }
        runs = [run.spikes for _, run in self._buffered]
        spikes = {name: _joined([run[name] for run in runs], self.continuous) for name in runs[0]}
        counts = count(self.program, messages, spikes)
        before = self._totals.counts
        total = counts if before is None else add_counts([before, counts])
        self._totals = replace(self._totals, counts=total)
        self._buffered.clear()


def _joined(parts: list[SpikeEvents], one_sample: bool) -> SpikeEvents:
    """Return the events of calls as samples of one run, or as parts of one sample."""
    at = np.cumsum([0, *(part.count for part in parts)])
    starts = [part.row_starts[:-1] + begin for part, begin in zip(parts, at, strict=False)]
    graded = parts[0].values is not None
    return SpikeEvents(
        batch=1 if one_sample else len(parts),
        steps=sum(part.steps for part in parts) if one_sample else parts[0].steps,
        size=parts[0].size,
        row_starts=np.append(np.concatenate(starts), at[-1]).astype(np.int64),
        neurons=np.concatenate([part.neurons for part in parts]),
        values=np.concatenate([part.values for part in parts]) if graded else None,
    )
