"""Running a program with everything recorded, and finding where two records first differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.device import Device, execute
from snn_compile.targets.program import Program
from snn_compile.targets.record import RunRecord


def run_all(
    program: Program, inputs: Mapping[str, npt.ArrayLike], device: str | Device, **options: Any
) -> RunRecord:
    """Run with the spikes and both states of every population."""
    return execute(
        program,
        inputs,
        device,
        record=[p.name for p in program.populations if p.spiking],
        probes=[f"{p.name}.{s}" for p in program.populations for s in "uv"],
        **options,
    )


def traces(record: RunRecord) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
    """Return (population, state) to (samples, steps, neurons), in the order u, v, spikes."""
    found = {}
    for name, shape in record.shapes.items():
        arrays = {state: record.states(f"{name}.{state}") for state in "uv"}
        if name in record.spike_events:
            arrays["spikes"] = record.spikes(name)
        for state, array in arrays.items():
            assert array.shape == (record.samples, record.steps, *shape), (name, state)
            found[name, state] = array.reshape(record.samples, record.steps, -1).astype(np.int64)
    return found


def first_difference(left: RunRecord, right: RunRecord, overflows: bool = True) -> str:
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
    return _other_difference(left, right, overflows)


def _other_difference(left: RunRecord, right: RunRecord, overflows: bool) -> str:
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
