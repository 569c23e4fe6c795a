"""Checks of what a device returned, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import DeviceRun, Overflow
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.program.program import Program


def check_run(
    run: Any, device: str, program: Program, batch: int, device_steps: int, probes: Sequence[str]
) -> None:
    """Raise DeviceError, naming the device, unless `run` holds what `Device.run` must return."""

    def refuse(what: str) -> None:
        raise DeviceError(f"device {device!r} returned {what}", device=device)

    if not isinstance(run, DeviceRun):
        refuse(f"a {type(run).__name__}; expected a DeviceRun")
    for part in ("spikes", "states", "overflows", "witness"):
        if not isinstance(getattr(run, part), Mapping):
            refuse(f"{part} as a {type(getattr(run, part)).__name__}; expected a mapping")
    for population in program.senders:
        shape = (batch, device_steps, population.size)
        if population.name not in run.spikes:
            refuse(f"no spikes of population {population.name!r}")
        if fault := _event_fault(run.spikes[population.name], shape):
            refuse(f"spikes of population {population.name!r} {fault}")
    for probe in probes:
        shape = (batch, device_steps, program.size(probe.rpartition(".")[0]))
        if probe not in run.states:
            refuse(f"no states {probe!r}")
        array = run.states[probe]
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.shape != shape:
            kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            refuse(f"states {probe!r} as {kind}; expected an array of integers {shape}")
    for name, lost in run.overflows.items():
        if not isinstance(lost, Overflow):
            refuse(f"overflows of {name!r} as a {type(lost).__name__}; expected an Overflow")


def _event_fault(events: Any, shape: tuple[int, int, int]) -> str:
    """Return what is wrong with the events of a population, or ""."""
    if not isinstance(events, SpikeEvents):
        return f"as a {type(events).__name__}; expected SpikeEvents, which SpikeEvents.from_dense makes"
    if (events.batch, events.steps, events.size) != shape:
        return f"of shape {(events.batch, events.steps, events.size)}; expected {shape}"
    rows, neurons = np.asarray(events.row_starts), np.asarray(events.neurons)
    whole = (
        rows.shape == (shape[0] * shape[1] + 1,)
        and rows.dtype.kind in "iu"
        and neurons.dtype.kind in "iu"
        and rows[0] == 0
        and rows[-1] == len(neurons)
        and bool((rows[1:] >= rows[:-1]).all())
        and (not len(neurons) or (neurons.min() >= 0 and neurons.max() < shape[2]))
        and (events.values is None or np.shape(events.values) == neurons.shape)
    )
    return "" if whole else "with indices that do not fit their shape"
