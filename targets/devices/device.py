"""Devices: things that execute a program, and the one way to run them.

`execute` encodes the inputs, lets the device run long enough to fill and drain the pipeline, and turns
what it returns into a RunRecord in logical time. Every sample starts from the initial state.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.counts import count
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import DeviceRun, RunRecord, check_steps, read_out
from snn_compile.targets.devices.registry import opened
from snn_compile.targets.devices.results import check_run
from snn_compile.targets.errors import DeviceError, SnnCompileError, WrongInput, one_line
from snn_compile.targets.program.program import Program


class Device(Protocol):
    """Executes programs in device time."""

    name: str

    def run(
        self,
        program: Program,
        messages: Mapping[str, npt.NDArray[np.int32]],
        device_steps: int,
        probes: Sequence[str],
    ) -> DeviceRun:
        """Run every sample from the initial state for `device_steps` steps.

        `messages`: input port to (batch, device_steps, size) int32, already shifted by the port's
        start step, spread by the program's period and padded with zeros. `probes`: "population.state", a
        state of the population's model.
        """
        ...


class Opened(Protocol):
    """A program on a device, opened once: one sample, run in parts, its states kept between them."""

    def reset(self) -> None:
        """Go back to the initial state and to device step 0."""
        ...

    def advance(
        self, messages: Mapping[str, npt.NDArray[np.int32]], logical_steps: int | None = None
    ) -> DeviceRun:
        """Run the next device steps and return what they gave.

        `messages`: input port to (1, device_steps, size) int32, as for `Device.run`. `logical_steps`: of
        the whole run since the reset, where it ends with this part: later steps are pipeline drain, whose
        overflows are not counted.
        """
        ...


class SteppedDevice(Device, Protocol):
    """A device whose programs can be run in parts."""

    def open(self, program: Program, probes: Sequence[str] = ()) -> Opened:
        """Load `program` once. `probes`: "population.state", in every answer."""
        ...


def open_device(name: str, **options: Any) -> Device:
    """Return a device by name, or by `package.module:Class`; options go to its class.

    Raises DeviceError on an unknown name, a missing installation, and a class that is no device.
    """
    device: Device = opened(name, options)
    return device


def execute(
    program: Program,
    inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    device: str | Device = "loihi2-sim",
    *,
    record: Iterable[str] = (),
    probes: Iterable[str] = (),
    **options: Any,
) -> RunRecord:
    """Run `program` on inputs (batch, steps, *shape), or a mapping of input port to such an array.

    `record` names populations whose spikes the record shall hold, `probes` states ("hidden.v").
    Options go to the device. Raises WrongInput on unknown names or unfitting data, DeviceError if the
    device fails.
    """
    runner = open_device(device, **options) if isinstance(device, str) else device
    probes, record = tuple(probes), tuple(record)
    _check_names(program, record, probes)
    messages, clipped = encode_inputs(program, inputs)
    steps = next(iter(messages.values())).shape[1]
    device_steps = program.device_steps(steps)
    port = program.outputs[0]
    check_steps(steps, port.skip)
    read = [membrane_of(program, o.population) for o in program.outputs if o.signal == "membrane"]
    wanted = list(dict.fromkeys([*probes, *read]))
    run, wall = _run(runner, program, messages, device_steps, wanted)

    def states(name: str) -> npt.NDArray[np.int32]:
        start = program.start_step(name.rsplit(".", 1)[0])
        return run.states[name][:, start : start + steps * program.period : program.period]

    def events(name: str) -> Any:
        start = program.start_step(name)
        return run.spikes[name].window(start, start + steps * program.period, program.period)

    population = program.population(port.population)
    membrane = port.signal == "membrane"
    signal = states(membrane_of(program, port.population)) if membrane else events(port.population).dense()
    outputs = signal.reshape(*signal.shape[:2], *population.shape)
    predictions, ties = read_out(outputs, port.readout, port.task, port.skip)
    return RunRecord(
        device=runner.name,
        digest=program.digest(),
        outputs=outputs,
        predictions=predictions,
        ties=ties,
        counts=count(program, messages, run.spikes),
        overflows=run.overflows,
        latency_steps=program.latency_steps,
        period=program.period,
        wall_s=wall,
        input_clipped=clipped,
        witness=run.witness,
        shapes={p.name: p.shape for p in program.populations},
        spike_events={name: events(name) for name in record},
        state_arrays={name: states(name) for name in probes},
    )


def sent_messages(
    program: Program, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike], device: str | Device = "loihi2-sim"
) -> dict[str, SpikeEvents]:
    """Run `program` as `execute` does; return what each input and population sent in each logical step."""
    runner = open_device(device) if isinstance(device, str) else device
    messages, _ = encode_inputs(program, inputs)
    steps = next(iter(messages.values())).shape[1]
    run, _ = _run(runner, program, messages, program.device_steps(steps), ())
    sent = {name: SpikeEvents.from_dense(array) for name, array in messages.items()}
    for name, events in run.spikes.items():
        start = program.start_step(name)
        sent[name] = events.window(start, start + steps * program.period, program.period)
    return sent


def _run(
    runner: Device,
    program: Program,
    messages: Mapping[str, npt.NDArray[np.int32]],
    device_steps: int,
    probes: Sequence[str],
) -> tuple[DeviceRun, float]:
    """Return what a device gives for messages in logical time, and the seconds it took."""
    try:
        sent = {
            p.name: padded(messages[p.name], p.start_step, device_steps, program.period)
            for p in program.inputs
        }
        began = time.perf_counter()
        run = _run_checked(runner, program, sent, device_steps, probes)
        return run, time.perf_counter() - began
    except MemoryError as error:
        samples = next(iter(messages.values())).shape[0]
        raise WrongInput(
            f"{samples} samples of {device_steps} device steps do not fit in memory ({error}); run fewer at "
            "once, or probe less",
            samples=samples,
            device_steps=device_steps,
        ) from error


def _run_checked(
    runner: Device,
    program: Program,
    sent: Mapping[str, npt.NDArray[np.int32]],
    device_steps: int,
    probes: Sequence[str],
) -> DeviceRun:
    """Return what a device gives; of one that is not this package's, every failure is a DeviceError."""
    try:
        run = runner.run(program, sent, device_steps, probes)
    except (SnnCompileError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if type(runner).__module__.startswith("snn_compile."):
            raise
        raise DeviceError(
            f"device {runner.name!r} failed ({type(error).__name__}: {one_line(error)})", device=runner.name
        ) from error
    batch = next(iter(sent.values())).shape[0]
    check_run(run, runner.name, program, batch, device_steps, probes)
    return run


def membrane_of(program: Program, name: str) -> str:
    """Return the probe of a population's membrane."""
    return f"{name}.{program.population(name).kind.membrane}"


def _check_names(program: Program, record: Sequence[str], probes: Sequence[str]) -> None:
    for name in record:
        if not program.population(name).spiking:
            raise WrongInput(f"population {name!r} never spikes; probe {name + '.v'!r} instead")
    for probe in probes:
        name, _, state = probe.rpartition(".")
        known = program.population(name).kind.states
        if state not in known:
            raise WrongInput(f"probe {probe!r}: states are {' and '.join(f'{name}.{key}' for key in known)}")


def encode_inputs(
    program: Program, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike]
) -> tuple[dict[str, npt.NDArray[np.int32]], int]:
    """Return each port's messages (batch, steps, size), and how many values were clipped."""
    if not isinstance(inputs, Mapping):
        if len(program.inputs) > 1:
            names = ", ".join(port.name for port in program.inputs)
            raise WrongInput(f"the program has several inputs ({names}); give a mapping of arrays")
        inputs = {program.inputs[0].name: inputs}
    if set(inputs) != {port.name for port in program.inputs}:
        raise WrongInput(
            f"inputs {sorted(inputs)} given; the program has {[port.name for port in program.inputs]}"
        )
    encoded = {port.name: port.encode(inputs[port.name]) for port in program.inputs}
    if len({messages.shape[:2] for messages, _ in encoded.values()}) > 1:
        raise WrongInput("the inputs differ in their number of samples or steps")
    return (
        {name: messages for name, (messages, _) in encoded.items()},
        sum(clipped for _, clipped in encoded.values()),
    )


def padded(
    messages: npt.NDArray[np.int32], start: int, device_steps: int, period: int
) -> npt.NDArray[np.int32]:
    """Return messages in device time: from step `start` on, one in a period, zeros elsewhere."""
    batch, steps, size = messages.shape
    spread = np.zeros((batch, device_steps, size), np.int32)
    spread[:, start : start + steps * period : period] = messages
    return spread
