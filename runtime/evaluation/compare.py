"""Compare a program with its float reference, and one device with another.

`compare` measures accuracy, counts and cost. `first_difference` finds where two records first differ;
`check` runs two devices on the same data and compares every spike and state of every population.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.evaluation.overflow import overflow_onsets
from snn_compile.runtime.execution.run import (
    Inputs,
    Observer,
    batch_size,
    batches,
    join,
    reference_batches,
    sample_count,
    simulate,
    simulate_batches,
)
from snn_compile.runtime.reports.accuracy import score
from snn_compile.runtime.reports.energy import count_traffic, energy
from snn_compile.runtime.reports.neurobench import neurobench
from snn_compile.runtime.reports.quantized_ann import quantized_ann
from snn_compile.runtime.reports.report import Report
from snn_compile.runtime.reports.step_time import step_time
from snn_compile.targets.devices.device import Device
from snn_compile.targets.devices.record import RunRecord
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Program

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network


def compare(
    program: Program,
    network: Network | None,
    inputs: Inputs,
    labels: npt.ArrayLike | None = None,
    device: str | Device = "loihi2-sim",
    threads: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> Report:
    """Run program and network on inputs (batch, steps, *shape); report accuracy, counts and cost.

    `labels` (batch,), or (batch, steps) for a read-out per step; without them there is no accuracy.
    Without a network there is no reference. `data` is the data's spec, for the report. Raises
    WrongInput for data that does not fit, DeviceError if the device fails.
    """
    check_labels(program, inputs, labels)
    record = simulate_batches(program, inputs, device, threads)
    ideal = None if network is None else reference_batches(network, inputs)
    return report(program, record, labels, ideal, data, inputs)


def report(
    program: Program,
    record: RunRecord,
    labels: npt.ArrayLike | None = None,
    ideal: RunRecord | None = None,
    data: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
) -> Report:
    """Make the report of a device's record; `ideal` is the float reference's on the same data.

    `inputs` of the record are needed to tell from which step on states left their range.
    """
    if record.counts is None:
        raise WrongInput("a record without counts is a reference's; report a device's record")
    classifies = program.outputs[0].task == "classify"
    accuracy = agreement = None
    if classifies and ideal is not None:
        if ideal.predictions.shape != record.predictions.shape:
            raise WrongInput(
                f"the reference predicts {ideal.predictions.shape}, the program "
                f"{record.predictions.shape}; was it compiled from this model?"
            )
        agreement = float((ideal.predictions == record.predictions).mean())
    if classifies and labels is not None:
        accuracy = score(record.predictions, labels, None if ideal is None else ideal.predictions)
    return Report(
        device=record.device,
        digest=record.digest,
        chip=program.target.title,
        provenance=dict(program.provenance),
        data=data,
        samples=record.samples,
        steps=record.steps,
        latency_steps=record.latency_steps,
        period=record.period,
        accuracy=accuracy,
        agreement=agreement,
        ties=record.ties if classifies else None,
        counts=record.counts,
        energy=energy(program, record.counts),
        neurobench=neurobench(program, record.counts),
        step_time=step_time(program, record.counts),
        quantized_ann=quantized_ann(program, record.counts),
        overflows=record.overflows,
        input_clipped=record.input_clipped,
        wall_s=record.wall_s,
        witness=record.witness,
        sizes={p.name: p.size for p in program.populations},
        traffic=count_traffic(program, record.counts),
        mapping_note=program.mapping_note,
        onsets={} if inputs is None else overflow_onsets(program, inputs, record.overflows),
    )


def check_labels(program: Program, inputs: Inputs, labels: npt.ArrayLike | None) -> None:
    """Raise WrongInput if labels cannot be those of these inputs and this program."""
    if labels is None or program.outputs[0].task != "classify":
        return
    truth = np.asarray(labels)
    samples = sample_count(inputs)
    if truth.shape[:1] != (samples,):
        raise WrongInput(
            f"{truth.shape[0] if truth.shape else 1} labels for {samples} samples; give one label per sample",
            labels=truth.shape,
            samples=samples,
        )
    shape = program.population(program.outputs[0].population).shape
    if truth.size and (truth.min() < 0 or truth.max() >= prod(shape)):
        raise WrongInput(
            f"labels run from {truth.min()} to {truth.max()}, and the program has "
            f"{prod(shape)} classes; number them from 0 to {prod(shape) - 1}",
            classes=prod(shape),
        )


@dataclass(frozen=True)
class Difference:
    """The first entry where two records differ, and how many of `compared` entries do.

    `item` is a state ("u", "v") or "spike"; `step` is logical; `values` are those of `devices`, in order.
    """

    step: int
    population: str
    neuron: int
    sample: int
    item: str
    values: tuple[float, float]
    devices: tuple[str, str]
    differing: int
    compared: int

    def __str__(self) -> str:
        """Return the outcome as one line."""
        first, second = (f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)
        return (
            f"first difference at step {self.step}, population {self.population!r}, neuron "
            f"{self.neuron}, sample {self.sample}: {self.item} is {first} on {self.devices[0]} "
            f"and {second} on {self.devices[1]}; {self.differing} of {self.compared} values "
            "differ"
        )

    def json(self) -> dict[str, Any]:
        """Return the difference as plain values."""
        return {
            "step": self.step,
            "population": self.population,
            "neuron": self.neuron,
            "sample": self.sample,
            "item": self.item,
            "devices": list(self.devices),
            "values": list(self.values),
            "differing": self.differing,
            "compared": self.compared,
        }


def first_difference(a: RunRecord, b: RunRecord, program: Program) -> Difference | None:
    """Return the first entry where two records of `program` differ, or None.

    Compares the spikes and states that both hold. Earliest logical step first; within it the
    program's order of populations, then u, v, spike (the order in which a neuron computes them),
    then sample and neuron. Raises WrongInput if the records cover different samples or steps, or
    share nothing.
    """
    if a.outputs.shape[:2] != b.outputs.shape[:2]:
        raise WrongInput(
            f"records of {a.samples} samples x {a.steps} steps and {b.samples} x {b.steps} cannot be compared"
        )
    best: tuple[int, int, int] | None = None
    where: tuple[str, str, int, int, tuple[float, float]] | None = None
    differing = compared = 0
    for rank, (population, order, item, left, right) in enumerate(_shared(a, b, program)):
        unequal = left != right
        compared += unequal.size
        found = int(np.count_nonzero(unequal))
        differing += found
        if not found:
            continue
        step = int(unequal.any(axis=(0, 2)).argmax())
        if best is None or (step, order, rank) < best:
            best = (step, order, rank)
            sample, neuron = (int(i) for i in np.argwhere(unequal[:, step])[0])
            values = (left[sample, step, neuron].item(), right[sample, step, neuron].item())
            where = (population, item, sample, neuron, values)
    if not compared:
        raise WrongInput(
            "the two records share no recorded spikes and no probed states; run both "
            "with the same record= and probes="
        )
    if best is None or where is None:
        return None
    population, item, sample, neuron, values = where
    return Difference(
        best[0], population, neuron, sample, item, values, (a.device, b.device), differing, compared
    )


def _shared(
    a: RunRecord, b: RunRecord, program: Program
) -> Iterator[tuple[str, int, str, npt.NDArray[Any], npt.NDArray[Any]]]:
    """Yield population, its order, item, and both values (batch, steps, size)."""
    for order, population in enumerate(program.populations):
        name = population.name
        flat = (a.samples, a.steps, population.size)
        for state in population.kind.states:
            key = f"{name}.{state}"
            if key in a.state_arrays and key in b.state_arrays:
                yield name, order, state, a.states(key).reshape(flat), b.states(key).reshape(flat)
        if name in a.spike_events and name in b.spike_events:
            yield name, order, "spike", a.spikes(name).reshape(flat), b.spikes(name).reshape(flat)


@dataclass(frozen=True, eq=False)
class Check:
    """Two devices on the same data: `values` entries compared, the first difference or None.

    `record` is the first device's, without spikes and states.
    """

    devices: tuple[str, str]
    samples: int
    values: int
    difference: Difference | None
    record: RunRecord

    def __str__(self) -> str:
        """Return the outcome as one line."""
        if self.difference:
            return str(self.difference)
        return (
            f"{self.devices[0]} and {self.devices[1]} are equal on {self.samples} samples, "
            f"{self.values} values (states and spikes of every population)"
        )

    def json(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        return {
            "devices": list(self.devices),
            "equal": self.difference is None,
            "samples": self.samples,
            "values": self.values,
            "difference": self.difference.json() if self.difference else None,
        }


def check(
    program: Program,
    inputs: Inputs,
    device: str | Device,
    against: str | Device = "loihi2-sim",
    threads: int | None = None,
    observe: Observer | None = None,
) -> Check:
    """Run two devices on inputs (batch, steps, *shape); compare every population's states and spikes.

    Works in batches of bounded memory and covers all samples; `threads` is for loihi2-sim,
    whichever of the two it is.
    """
    spiking = tuple(p.name for p in program.populations if p.spiking)
    probes = tuple(f"{p.name}.{state}" for p in program.populations for state in p.kind.states)
    # Two records at once, and a few arrays of their size while comparing.
    size = max(1, batch_size(program, inputs, probes) // 4)
    per_step = sum(p.size * (len(p.kind.states) + p.spiking) for p in program.populations)
    records: list[RunRecord] = []
    found: list[Difference] = []
    names = ("", "")
    values = 0
    for part in batches(inputs, size, observe):
        mine, other = (
            simulate(program, part, d, threads if d == "loihi2-sim" else None, spiking, probes)
            for d in (device, against)
        )
        names = (mine.device, other.device)
        values += mine.samples * mine.steps * per_step
        if difference := first_difference(mine, other, program):
            found.append(_shifted(difference, sum(r.samples for r in records)))
        records.append(join([mine]))
    record = join(records)
    return Check(names, record.samples, values, _earliest(found, program, values), record)


def _shifted(difference: Difference, samples: int) -> Difference:
    return replace(difference, sample=difference.sample + samples)


def _rank(program: Program, found: Difference) -> int:
    return (*program.population(found.population).kind.states, "spike").index(found.item)


def _earliest(found: list[Difference], program: Program, compared: int) -> Difference | None:
    if not found:
        return None
    order = [p.name for p in program.populations]
    first = min(found, key=lambda d: (d.step, order.index(d.population), _rank(program, d), d.sample))
    return replace(first, differing=sum(d.differing for d in found), compared=compared)
