"""Run a program on a device, or a network in floating point; both return the same kind of record.

`simulate` and `reference` run everything at once. `simulate_batches` and `reference_batches` split
the samples so that memory use stays near `MEMORY_BYTES`, and join the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.devices.device import Device, execute
from snn_compile.targets.devices.record import Overflow, RunRecord
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.program.program import Program

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network

Inputs: TypeAlias = npt.ArrayLike | Mapping[str, npt.ArrayLike]
"""(batch, steps, *shape), or a mapping of input port to such an array."""

Observer: TypeAlias = Callable[[int, int], None]
"""Called with (samples done, total samples) after every batch."""

MEMORY_BYTES = 256 << 20


def simulate(
    program: Program,
    inputs: Inputs,
    device: str | Device = "loihi2-sim",
    threads: int | None = None,
    record: Iterable[str] = (),
    probes: Iterable[str] = (),
) -> RunRecord:
    """Run `program` on inputs (batch, steps, *shape), every sample from the initial state.

    `record` names populations whose spikes are recorded, `probes` states ("hidden.v").
    `threads` is for loihi2-sim alone. Raises WrongInput for data or names that do not fit,
    DeviceError when the device is unknown, not installed, or fails.
    """
    options: dict[str, Any] = {}
    if threads is not None:
        if device != "loihi2-sim":
            name = device if isinstance(device, str) else device.name
            raise DeviceError(
                f"device {name!r} takes no number of threads; only loihi2-sim does", device=name
            )
        options["threads"] = threads
    return execute(program, inputs, device, record=record, probes=probes, **options)


def reference(
    network: Network, inputs: Inputs, record: Iterable[str] = (), probes: Iterable[str] = ()
) -> RunRecord:
    """Run `network` in float64 and logical time; the record's `counts` is None."""
    from snn_compile.compiler.reference import run_reference

    answer: RunRecord = run_reference(network, inputs, record=tuple(record), probes=tuple(probes))
    return answer


def simulate_batches(
    program: Program,
    inputs: Inputs,
    device: str | Device = "loihi2-sim",
    threads: int | None = None,
    observe: Observer | None = None,
) -> RunRecord:
    """Run all samples as `simulate` does, in batches; the record holds no spikes or states."""
    size = batch_size(program, inputs)
    return join([simulate(program, part, device, threads) for part in batches(inputs, size, observe)])


def reference_batches(
    network: Network, inputs: Inputs, size: int = 512, observe: Observer | None = None
) -> RunRecord:
    """Run all samples as `reference` does, `size` at a time; keep no spikes or states."""
    return join([reference(network, part) for part in batches(inputs, size, observe)])


def sample_count(inputs: Inputs) -> int:
    """Return the number of samples of an array or of a mapping's first array."""
    first = next(iter(inputs.values()), ()) if isinstance(inputs, Mapping) else inputs
    shape = np.shape(first)
    return shape[0] if shape else 0


def take(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Return samples start..stop-1."""
    if isinstance(inputs, Mapping):
        return {name: np.asarray(array)[start:stop] for name, array in inputs.items()}
    return np.asarray(inputs)[start:stop]


def batches(inputs: Inputs, size: int, observe: Observer | None = None) -> Iterator[Inputs]:
    """Yield the samples in parts of `size`; `observe` is called when the next part is asked for."""
    samples = sample_count(inputs)
    if samples <= size:
        yield inputs
    else:
        for start in range(0, samples, size):
            yield take(inputs, start, start + size)
            if observe and start + size < samples:
                observe(start + size, samples)
    if observe:
        observe(samples, samples)


def batch_size(
    program: Program, inputs: Inputs, probes: Sequence[str] = (), memory_bytes: int = MEMORY_BYTES
) -> int:
    """Return the number of samples per run that keeps its arrays near `memory_bytes`."""
    first = next(iter(inputs.values()), ()) if isinstance(inputs, Mapping) else inputs
    shape = np.shape(first)
    steps = program.device_steps(shape[1] if len(shape) > 1 else 1)
    # int32 messages and states; spikes as events, at worst dense, at 5 bytes.
    per_step = (
        4 * sum(port.size for port in program.inputs)
        + 5 * sum(p.size for p in program.populations)
        + 4 * sum(program.size(probe.rpartition(".")[0]) for probe in probes)
    )
    return max(1, memory_bytes // (steps * per_step))


def join(records: Sequence[RunRecord]) -> RunRecord:
    """Join records of one program over consecutive samples; spikes and states are dropped."""
    predictions = np.concatenate([r.predictions for r in records])
    counts = [r.counts for r in records if r.counts is not None]
    overflows: dict[str, Overflow] = {}
    for record in records:
        for name, overflow in record.overflows.items():
            overflows[name] = overflows.get(name, Overflow()) + overflow
    weights = [r.predictions.size for r in records]
    return replace(
        records[0],
        outputs=np.concatenate([r.outputs for r in records]),
        predictions=predictions,
        ties=float(np.average([r.ties for r in records], weights=weights)),
        counts=add_counts(counts) if counts else None,
        overflows=overflows,
        wall_s=sum(r.wall_s for r in records),
        input_clipped=sum(r.input_clipped for r in records),
        spike_events={},
        state_arrays={},
    )


def add_counts(counts: Sequence[Counts]) -> Counts:
    """Return the sum over consecutive samples of one program; `steps` are those of the first."""
    first = counts[0]

    def table(field: str) -> dict[str, int]:
        return {name: sum(getattr(c, field)[name] for c in counts) for name in getattr(first, field)}

    def total(field: str) -> int:
        return sum(getattr(c, field) for c in counts)

    neuron_spikes = {
        name: np.stack([c.neuron_spikes[name] for c in counts]).sum(axis=0) for name in first.neuron_spikes
    }
    return Counts(
        samples=total("samples"),
        steps=first.steps,
        spikes=table("spikes"),
        synops=table("synops"),
        graded_synops=total("graded_synops"),
        updates=table("updates"),
        active_updates=table("active_updates"),
        input_messages=total("input_messages"),
        neuron_spikes=neuron_spikes,
        drain_spikes=total("drain_spikes"),
        drain_synops=total("drain_synops"),
        drain_updates=total("drain_updates"),
    )
