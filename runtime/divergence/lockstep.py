"""Four runs of a program and its network in lock-step, batch by batch, and their differences.

`reference` is the float network; `quantized` the program's integers with the network's delays, unmapped;
`mapped` has the program's delays and start steps; `device` is the program on a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.divergence.emulator import NETWORK, PROGRAM, Emulation, Selection, emulate
from snn_compile.runtime.divergence.near_threshold import FirstDifference, first_differences, judge
from snn_compile.runtime.divergence.pair import Float, Pair
from snn_compile.runtime.execution.run import MEMORY_BYTES, simulate
from snn_compile.targets.devices.device import Device
from snn_compile.targets.devices.record import Overflow

JUDGED = 64
"""Largest number of samples whose first difference is compared with the bound of rounding."""


@dataclass(frozen=True)
class Stage:
    """One run against the one before it: neuron-steps that differ and are compared, first difference."""

    name: str
    against: str
    differing: int
    compared: int
    first: FirstDifference | None


@dataclass(eq=False)
class Tally:
    """Sums over batches of one selection against the reference, by population."""

    predictions: list[npt.NDArray[Any]] = field(default_factory=list)
    differing: dict[str, float] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    sent: dict[str, float] = field(default_factory=dict)

    def add(self, side: Pair, ideal: Emulation, run: Emulation) -> None:
        """Add a batch."""
        self.predictions.append(run.predictions)
        for name in side.reported:
            a, b = ideal.messages[name], run.messages[name]
            if side.network.population(name).spiking:
                found = (float(np.count_nonzero(a != b)), float(a.size))
            else:
                found = (float(np.sum((a - b) ** 2)), float(np.sum(a**2)))
            self.differing[name] = self.differing.get(name, 0.0) + found[0]
            self.scale[name] = self.scale.get(name, 0.0) + found[1]
            self.sent[name] = self.sent.get(name, 0.0) + float(b.mean() * len(b))


@dataclass(frozen=True, eq=False)
class Result:
    """A selection over all samples: predictions, distance of the signal, rates by population."""

    predictions: npt.NDArray[Any]
    signal: float
    rates: Mapping[str, float]


class LockStep:
    """The runs side by side over all batches, and their comparison.

    `over_time` and `counts_over_time`, by population: the share of neurons that differ at each step, and
    the difference of the mean number of spikes.
    """

    def __init__(self, side: Pair, flat: Mapping[str, Float], device: str | Device) -> None:
        self.side, self.flat = side, flat
        self.samples, self.steps = next(iter(flat.values())).shape[:2]
        per_sample = 8 * self.steps * sum(side.network.size(p.name) for p in side.network.nodes) * 6
        self.size = max(1, MEMORY_BYTES // per_sample)
        self.delayed = any(e.program_delay != e.network_delay for e in side.edges.values())
        late = {("delay", name): True for name in side.edges}
        self.unmapped = Selection(late, rest=True)
        self.overflows: dict[str, Overflow] = {}
        self.clipped: dict[str, int] = {}
        self._differing: dict[str, list[int]] = {}
        self._first: dict[str, FirstDifference] = {}
        self.judged: list[FirstDifference] = []
        self.over_time: dict[str, Float] = {}
        self.counts_over_time: dict[str, Float] = {}
        tallies = Tally(), Tally()
        for start in range(0, self.samples, self.size):
            self._batch(start, tallies, device)
        self.ideal, self.mapped = (self.result(tally) for tally in tallies)

    def parts(self) -> Iterator[dict[str, Float]]:
        """Yield the batches' inputs."""
        for start in range(0, self.samples, self.size):
            yield {name: data[start : start + self.size] for name, data in self.flat.items()}

    def _batch(self, start: int, tallies: tuple[Tally, Tally], device: str | Device) -> None:
        side = self.side
        part = {name: data[start : start + self.size] for name, data in self.flat.items()}
        ideal, mapped = emulate(side, NETWORK, part), emulate(side, PROGRAM, part)
        quantized = mapped
        if self.delayed:
            quantized = emulate(side, self.unmapped, part)
        spiking = [p.name for p in side.program.populations if p.spiking]
        shaped = {
            p.name: side.given(p.name, part[p.name]).reshape(*part[p.name].shape[:2], *p.shape)
            for p in side.program.inputs
        }
        for port in side.program.inputs:
            self.clipped[port.name] = self.clipped.get(port.name, 0) + port.encode(shaped[port.name])[1]
        record = simulate(side.program, shaped, device, record=spiking)
        self.device = record.device
        sent = {n: record.spikes(n).reshape(*record.outputs.shape[:2], -1) for n in spiking}
        for name, overflow in mapped.overflows.items():
            self.overflows[name] = self.overflows.get(name, Overflow()) + overflow
        tallies[0].add(side, ideal, ideal)
        tallies[1].add(side, ideal, mapped)
        self._stage("quantized", start, ideal.messages, quantized.messages)
        self._stage("mapped", start, quantized.messages, mapped.messages)
        self._stage("device", start, mapped.messages, sent)
        room = min(
            JUDGED - len(self.judged), max(1, self.size // 2)
        )  # judging takes twice the memory per sample
        if room > 0:
            found = first_differences(side, "mapped", ideal.messages, mapped.messages)
            found = sorted(found, key=lambda d: (d.step, d.sample))[:room]
            early = [_staged(d, ideal, quantized) for d in judge(side, part, found, PROGRAM)]
            self.judged += [_later(d, start) for d in early]
        for name in side.reported:
            a, b = ideal.messages[name], mapped.messages[name]
            if side.network.population(name).spiking:
                self._add(self.over_time, name, (a != b).mean(axis=2).sum(axis=0) / self.samples)
                self._add(self.counts_over_time, name, (b - a).sum(axis=2).sum(axis=0) / self.samples)

    def _stage(self, stage: str, start: int, left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
        tally = self._differing.setdefault(stage, [0, 0])
        for name in left.keys() & right.keys():
            if self.side.network.population(name).spiking:
                tally[0] += int(np.count_nonzero(left[name] != right[name]))
                tally[1] += left[name].size
        found = first_differences(self.side, stage, left, right)
        if found:
            first = _later(min(found, key=lambda d: (d.step, d.sample)), start)
            held = self._first.get(stage)
            self._first[stage] = first if held is None or first.step < held.step else held

    def _add(self, sums: dict[str, Float], name: str, values: Float) -> None:
        sums[name] = sums.get(name, np.zeros(self.steps)) + values

    def first(self) -> FirstDifference | None:
        """Return the earliest difference of any stage, preferably one with membranes."""
        found = [*self.judged, *(d for d in self._first.values())]
        return min(found, key=lambda d: (d.step, d.membranes is None, d.sample), default=None)

    def stages(self) -> tuple[Stage, ...]:
        """Return each stage against the one before it."""
        before, found = "reference", []
        for stage, (differing, compared) in self._differing.items():
            found.append(Stage(stage, before, differing, compared, self._first.get(stage)))
            before = stage
        return tuple(found)

    def result(self, tally: Tally) -> Result:
        """Return a tally's distance: the mean over populations."""
        shares = []
        for name, differing in tally.differing.items():
            scale = tally.scale[name]
            share = differing / scale if scale else float(differing > 0)
            shares.append(share if self.side.network.population(name).spiking else min(np.sqrt(share), 1.0))
        rates = {name: total / self.samples for name, total in tally.sent.items()}
        return Result(np.concatenate(tally.predictions), float(np.mean(shares)) if shares else 0.0, rates)


def _staged(difference: FirstDifference, ideal: Emulation, quantized: Emulation) -> FirstDifference:
    """Name the stage at which a message differs first."""
    at = (difference.sample, difference.step, difference.neuron)
    name = difference.population
    same = ideal.messages[name][at] == quantized.messages[name][at]
    return replace(difference, stage="mapped" if same else "quantized")


def _later(difference: FirstDifference, start: int) -> FirstDifference:
    return replace(difference, sample=difference.sample + start)
