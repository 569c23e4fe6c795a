"""Running a program with everything recorded, and finding where two records first differ."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.device import Device, execute, open_device
from snn_compile.targets.devices.record import DeviceRun, RunRecord
from snn_compile.targets.program.file import load_program
from snn_compile.targets.program.program import Program


@dataclass(frozen=True, eq=False)
class Everything:
    """The record of a run and what the device returned, in device time, before it became one."""

    record: RunRecord
    run: DeviceRun
    kinds: Mapping[str, tuple[str, ...]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.record, name)


class _Kept:
    """A device that keeps what it returned last."""

    def __init__(self, device: Device) -> None:
        self.device, self.name = device, device.name
        self.runs: list[DeviceRun] = []

    def run(self, *arguments: Any) -> DeviceRun:
        self.runs.append(self.device.run(*arguments))
        return self.runs[-1]


def run_all(
    program: Program, inputs: Mapping[str, npt.ArrayLike], device: str | Device, **options: Any
) -> Any:
    """Run with the spikes and all states of every population; return a record and the device's run."""
    kept = _Kept(open_device(device, **options) if isinstance(device, str) else device)
    record = execute(
        program,
        inputs,
        kept,
        record=[p.name for p in program.populations if p.spiking],
        probes=[f"{p.name}.{s}" for p in program.populations for s in p.kind.states],
    )
    return Everything(record, kept.runs[-1], {p.name: p.kind.states for p in program.populations})


def check_everywhere(case: Any, path: Path, name: str) -> None:
    """Assert that a case runs the same from its file as by the oracle, on every device that is installed."""
    wanted = run_all(case.program, case.inputs, "oracle")
    case.program.save(path)
    loaded = load_program(path)
    assert loaded.digest() == case.program.digest(), name
    for threads in (1, 2):
        got = run_all(loaded, case.inputs, "loihi2-sim", threads=threads)
        assert not first_difference(wanted, got), name
    if importlib.util.find_spec("lava.magma") is not None:
        got = run_all(loaded, case.inputs, open_device("lava-stepped"))
        assert not first_difference(wanted, got, overflows=False), name


def traces(record: Any) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
    """Return (population, state) to (samples, steps, neurons), states in order, then spikes."""
    found = {}
    for name, shape in record.shapes.items():
        arrays = {state: record.states(f"{name}.{state}") for state in record.kinds[name]}
        if name in record.spike_events:
            arrays["spikes"] = record.spikes(name)
        for state, array in arrays.items():
            assert array.shape == (record.samples, record.steps, *shape), (name, state)
            found[name, state] = array.reshape(record.samples, record.steps, -1).astype(np.int64)
    return found


def first_difference(left: Any, right: Any, overflows: bool = True) -> str:
    """Return "" if the records are equal, else the first difference in sample, then step.

    `overflows=False` leaves the overflow counters out: Lava does not count.
    """
    a, b = traces(left), traces(right)
    if a.keys() != b.keys():
        return f"{left.device} recorded {sorted(a)}, {right.device} {sorted(b)}"
    found = []
    for order, (name, state) in enumerate(a):
        if a[name, state].shape != b[name, state].shape:
            return f"{name}.{state}: shapes {a[name, state].shape} and {b[name, state].shape}"
        where = np.argwhere(a[name, state] != b[name, state])
        if len(where):
            sample, step, neuron = map(int, where[0])
            found.append((sample, step, order, name, neuron, state))
    if found:
        sample, step, _, name, neuron, state = min(found)
        values = (int(t[name, state][sample, step, neuron]) for t in (a, b))
        return (
            f"sample {sample}, step {step}, population {name}, neuron {neuron}, {state}: "
            f"{left.device} {next(values)}, {right.device} {next(values)}"
        )
    return _events_difference(left, right) or _other_difference(left, right, overflows)


def _events_difference(left: Any, right: Any) -> str:
    """Compare the messages of all device steps, the draining ones and those of integrators included."""
    a, b = left.run.spikes, right.run.spikes
    if a.keys() != b.keys():
        return f"{left.device} lists messages of {sorted(a)}, {right.device} of {sorted(b)}"
    for name in a:
        for key in ("row_starts", "neurons", "values"):
            x, y = getattr(a[name], key), getattr(b[name], key)
            if (x is None) != (y is None) or (x is not None and not _same(x, y)):
                return f"messages of {name}, {key}: {left.device} {x}, {right.device} {y}"
    return ""


def _other_difference(left: Any, right: Any, overflows: bool) -> str:
    pairs = {
        key: (getattr(left, key), getattr(right, key))
        for key in (
            "digest",
            "outputs",
            "predictions",
            "ties",
            "input_clipped",
            "latency_steps",
            *(["overflows"] if overflows else []),
        )
    }
    for field in fields(left.counts):  # type: ignore[arg-type]
        pairs[f"counts.{field.name}"] = (getattr(left.counts, field.name), getattr(right.counts, field.name))
    for key, (x, y) in pairs.items():
        if not _same(x, y):
            return f"{key}: {left.device} {x}, {right.device} {y}"
    return ""


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Mapping):
        return x.keys() == y.keys() and all(_same(x[key], y[key]) for key in x)
    return bool(np.array_equal(x, y)) and np.asarray(x).dtype == np.asarray(y).dtype
