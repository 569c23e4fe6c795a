"""What a run returns: the same record whichever device executed the program.

Everything here is in logical time: step t of a record is step t of the network and of the framework it
came from. What devices return before that is a `DeviceRun`, in device time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Program


@dataclass(frozen=True)
class Overflow:
    """How often states of one population left 24 bits in logical steps: u wraps around, v saturates.

    What counts for other models than leaky neurons stands in their `oracle/*.py`.
    """

    u_wraps: int = 0
    v_high: int = 0
    v_low: int = 0

    def __bool__(self) -> bool:
        return bool(self.u_wraps or self.v_high or self.v_low)

    def __add__(self, other: Overflow) -> Overflow:
        return Overflow(self.u_wraps + other.u_wraps, self.v_high + other.v_high, self.v_low + other.v_low)


@dataclass(frozen=True, eq=False)
class DeviceRun:
    """Raw results in device time. `spikes`: every spiking population's events over all device steps.

    `states`: "population.state" to int32 (batch, device_steps, size), v after reset.
    `witness`: per population "stock", "derived (methods)" or "own" on a device of another maker; "own" is no
    independent implementation of the step.
    """

    spikes: Mapping[str, SpikeEvents]
    states: Mapping[str, npt.NDArray[np.int32]]
    overflows: Mapping[str, Overflow]
    witness: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dense(
        cls,
        program: Program,
        sent: Mapping[str, npt.NDArray[np.integer[Any]]],
        states: Mapping[str, npt.NDArray[np.integer[Any]]],
        overflows: Mapping[str, Overflow] | None = None,
        witness: Mapping[str, str] | None = None,
    ) -> DeviceRun:
        """Return the run of messages and states that are dense arrays (batch, device_steps, size)."""
        return cls(
            {p.name: SpikeEvents.from_dense(sent[p.name], p.graded) for p in program.senders},
            {probe: array.astype(np.int32, copy=False) for probe, array in states.items()},
            overflows or {},
            witness or {},
        )


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The record of a run over `samples` samples and `steps` logical steps.

    `outputs`: (batch, steps, *shape) of the first output port: spikes, or the membrane in the program's
    integer units (float units for the float reference). `predictions`: class indices (batch,), or
    (batch, steps) for a per-step readout, or the reduced signal for regression. `ties`: share of
    predictions where the highest value was not unique; the lowest index wins. `period`: device steps that
    a logical step took.
    """

    device: str
    digest: str
    outputs: npt.NDArray[np.generic]
    predictions: npt.NDArray[np.generic]
    ties: float
    counts: Counts | None
    overflows: Mapping[str, Overflow]
    latency_steps: int
    wall_s: float
    period: int = 1
    input_clipped: int = 0
    seed: int | None = None
    witness: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    spike_events: Mapping[str, SpikeEvents] = field(default_factory=dict)
    state_arrays: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)

    @cached_property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.outputs.shape[0])

    @cached_property
    def steps(self) -> int:
        """Number of logical steps a sample."""
        return int(self.outputs.shape[1])

    def spikes(self, name: str) -> npt.NDArray[np.integer]:
        """Return the spikes of a recorded population, (batch, steps, *shape); numbers if several leave."""
        if name not in self.spike_events:
            raise WrongInput(
                f"spikes of {name!r} were not recorded; run with record=({name!r},). "
                f"Recorded: {sorted(self.spike_events)}"
            )
        dense = self.spike_events[name].dense()
        return dense.reshape(*dense.shape[:2], *self.shapes[name])

    def states(self, name: str) -> npt.NDArray[np.generic]:
        """Return a probed state ("population.v", "population.u"), (batch, steps, *shape)."""
        if name not in self.state_arrays:
            raise WrongInput(
                f"state {name!r} was not probed; run with probes=({name!r},). "
                f"Probed: {sorted(self.state_arrays)}"
            )
        array = self.state_arrays[name]
        return array.reshape(*array.shape[:2], *self.shapes[name.rsplit(".", 1)[0]])


def check_steps(steps: int, skip: int) -> None:
    """Raise WrongInput if a read-out leaves out as many steps as there are, or more."""
    if skip >= steps:
        raise WrongInput(
            f"the read-out leaves out the first {skip} steps, and the run has {steps}; give longer inputs",
            skip=skip,
            steps=steps,
        )


def read_out(
    signal: npt.NDArray[np.generic], readout: str, task: str, skip: int = 0
) -> tuple[npt.NDArray[np.generic], float]:
    """Reduce an output signal (batch, steps, *shape) to predictions and the share of ties.

    count and mean sum over time (the order of classes is the same and integers stay exact), last takes
    the last step, max the largest value over time, per_step keeps every step. The first `skip` steps are
    left out. Raises WrongInput where no step is left.
    """
    check_steps(signal.shape[1], skip)
    wide = signal[:, skip:].astype(np.int64 if signal.dtype.kind in "biu" else np.float64)
    if readout in ("count", "mean"):
        value = wide.sum(axis=1)
    elif readout == "last":
        value = wide[:, -1]
    elif readout == "max":
        value = wide.max(axis=1)
    else:
        value = wide
    if task == "regress":
        return (value / wide.shape[1] if readout == "mean" else value), 0.0
    kept = 2 if readout == "per_step" else 1
    flat = value.reshape(*value.shape[:kept], -1)
    ties = (flat == flat.max(axis=-1, keepdims=True)).sum(axis=-1) > 1
    return flat.argmax(axis=-1), float(ties.mean())
