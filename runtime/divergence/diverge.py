"""Find where a program deviates from its float network, why, and what each cause costs.

Four runs go in lock-step over the same data: `reference` (float64), `quantized` (the program's integers with
the network's delays, unmapped), `mapped` (with the program's delays and start steps) and `device`. Then every
cause that separates program and network is added alone to the reference, and removed alone from the program.
With d(S) the distance from the reference of a run with the causes S,

    alone = d({i})      last = d(all) - d(all but i)      share = (alone + last) / 2

The shares of causes that do not interact sum to d(all), and so do those of any two causes; the interaction
of several causes is the remainder, d(all) - sum of shares, which is printed. The distances are `signal`, the
mean over populations of the share of neuron-steps with a different message (for leaky integrators, the
relative root mean square error of the membrane); `predictions`, the share that differ; and `drop`, the loss
of accuracy in points, where there are labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.divergence.causes import Cause, find_causes
from snn_compile.runtime.divergence.emulator import NETWORK, Emulation, Selection, Unordered, emulate
from snn_compile.runtime.divergence.lockstep import LockStep, Result, Stage, Tally
from snn_compile.runtime.divergence.near_threshold import FirstDifference
from snn_compile.runtime.divergence.pair import Float, Pair
from snn_compile.runtime.divergence.pairing import pair
from snn_compile.runtime.evaluation.compare import check_labels
from snn_compile.runtime.execution.run import Inputs
from snn_compile.runtime.reports.accuracy import Accuracy, score
from snn_compile.targets.devices.device import Device
from snn_compile.targets.program.program import Program

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network

PARTS_TRIED = 12
"""Number of tensors of the largest kind of rounding that are switched one by one."""

RANGE_MATTERS, RANGE_SHOWS = 0.05, 0.001
"""A cause at the end of a range is a fault if its share of the distance reaches the first, and it changes
predictions or reaches the second as a share of neuron-steps."""

Observer = Callable[[int, int], None]


@dataclass(frozen=True)
class Share:
    """The effect of one cause on one distance: alone, and as the last one added."""

    alone: float
    last: float

    @property
    def share(self) -> float:
        """The mean of both effects."""
        return (self.alone + self.last) / 2


@dataclass(frozen=True, eq=False)
class Found:
    """A cause with its shares by distance; None where its delays cannot be switched alone."""

    cause: Cause
    shares: Mapping[str, Share] | None
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def effect(self) -> float:
        """The larger effect on the signal, alone or last; 1 for a cause that cannot be switched."""
        if self.shares is None:
            return 1.0
        return max(self.shares["signal"].alone, self.shares["signal"].last)


@dataclass(frozen=True)
class Symptom:
    """A population that is dead (never spikes) or saturated (spikes almost always) only in the program.

    Rates are messages per neuron and step; `because` is the cause without which the rate is closest to the
    network's.
    """

    kind: str
    population: str
    rate: float
    reference_rate: float
    because: str | None


@dataclass(frozen=True, eq=False)
class Divergence:
    """The result of `diverge`.

    `network` is the network as the compiler rewrote it; `totals` are the program's distances. `first` is the
    earliest difference of any stage, `beyond` the earliest that rounding does not explain. `causes` are
    sorted: first those that contradict the network and have an effect, then ends of ranges that matter, then
    rounding, then causes without an effect on this data. `judged` samples were compared with the bound of
    rounding, and `flips` of them are near-threshold flips. By population, `over_time` is the share of neurons
    that differ at each step, and `counts_over_time` the difference of the mean number of spikes.
    """

    program: Program
    network: Network
    samples: int
    steps: int
    device: str
    stages: tuple[Stage, ...]
    first: FirstDifference | None
    beyond: FirstDifference | None
    judged: int
    flips: int
    causes: tuple[Found, ...]
    totals: Mapping[str, float]
    accuracy: Accuracy | None
    agreement: float | None
    symptoms: tuple[Symptom, ...]
    over_time: Mapping[str, Float]
    counts_over_time: Mapping[str, Float]

    @property
    def faults(self) -> tuple[Found, ...]:
        """Causes with an effect that are more than rounding."""
        limit = RANGE_MATTERS * self.totals["signal"]
        return tuple(f for f in self.causes if _class(f, limit) < 2)

    @property
    def cause(self) -> Cause | None:
        """The first cause."""
        return self.causes[0].cause if self.causes else None

    @property
    def remainder(self) -> dict[str, float]:
        """The part of each distance that the shares do not cover: the interaction of causes."""
        known = [f.shares for f in self.causes if f.shares is not None]
        return {key: total - sum(s[key].share for s in known) for key, total in self.totals.items()}

    def verdict(self) -> str:
        """Return the conclusion in one line."""
        device = self.stages[-1]
        if device.differing:
            fault = "a fault of the device, unless the oracle differs as well (--device oracle)"
            if self.device == "oracle":  # it defines the program
                fault = (
                    "a fault of the emulation: of a model's float step (compiler/neurons) or its registers "
                    "(runtime/divergence/neurons)"
                )
            return f"device {self.device} differs from the program: {device.first}; {fault}"
        idle = [f.cause.name for f in self.causes if f.cause.rank == 0 and f not in self.faults]
        also = f"; without effect on this data, the program has {', '.join(idle)}" if idle else ""
        if not self.totals["signal"] and self.first is None:
            return f"nothing differs{also}"
        if not self.faults:
            most = f", most of it {self.causes[0].cause.name}" if self.totals["signal"] else ""
            same = ", and it changes no message" if self.first is None else ""
            return f"rounding only{same}: the program is the network up to its number formats{most}{also}"
        first = self.faults[0].cause
        dead = [s for s in self.symptoms if s.because == first.name]
        text = f"{dead[0].kind} population {dead[0].population!r}: " if dead else ""
        more = f", and {len(self.faults) - 1} more" if len(self.faults) > 1 else ""
        rounded = next((f for f in self.causes if f.cause.rank == 2), None)
        if first.rank == 1 and rounded and _share(rounded) > _share(self.faults[0]):
            text += f"mostly {rounded.cause.kind}; beyond it, "
        return f"{text}{first.name} ({first.detail}){more}"

    def advice(self, model: str = "MODEL", data: str = "DATA", stated: Sequence[str] = ()) -> list[str]:
        """Return commands to try against the faults, or else against the rounding that costs most.

        `stated`: options without which the model cannot be read, such as --convention dt=1e-4.
        """
        from snn_compile.runtime.divergence.advice import advise

        chosen = self.faults or tuple(f for f in self.causes[:1] if f.effect > 0)
        return advise(self.program, self.network, [f.cause for f in chosen], model, data, stated)

    def text(self, model: str = "MODEL", data: str = "DATA", stated: Sequence[str] = ()) -> str:
        """Return tables for a terminal; the arguments appear in the advice."""
        from snn_compile.runtime.divergence.report import text

        return text(self, model, data, stated)

    def json(self, model: str = "MODEL", data: str = "DATA", stated: Sequence[str] = ()) -> dict[str, Any]:
        """Return everything as plain values, with the schema's name and version."""
        from snn_compile.runtime.divergence.report import as_json

        return as_json(self, model, data, stated)

    def save(
        self,
        path: str | os.PathLike[str],
        model: str = "MODEL",
        data: str = "DATA",
        stated: Sequence[str] = (),
    ) -> None:
        """Write .json, .html or .png by the file's suffix, whole or not at all; raises WrongInput."""
        from snn_compile.runtime.divergence.report import save

        save(self, path, model, data, stated)


def diverge(
    program: Program,
    network: Network,
    inputs: Inputs,
    labels: npt.ArrayLike | None = None,
    device: str | Device = "loihi2-sim",
    observe: Observer | None = None,
) -> Divergence:
    """Find where and why `program` differs from `network` on inputs (batch, steps, *shape).

    With `labels` the shares of the accuracy drop are found as well. `observe` is called with the number of
    causes measured and their total. Raises WrongInput if the program was not compiled from this network, if
    diverge does not support one of its neuron models, or if data does not fit.
    """
    from snn_compile.compiler.reference import as_inputs

    check_labels(program, inputs, labels)
    side, flat = pair(program, network), as_inputs(network, inputs)
    runs = LockStep(side, flat, device)
    causes = find_causes(side, runs.overflows, runs.clipped)
    truth = None if labels is None or program.outputs[0].task != "classify" else np.asarray(labels)
    measure = _Measure(side, runs, truth)
    found = []
    for done, cause in enumerate(causes):
        found.append(measure.cause(cause))
        if observe:
            observe(done + 1, len(causes))
    totals = measure.distances(runs.mapped)
    limit = RANGE_MATTERS * totals["signal"]
    found.sort(key=lambda f: (_class(f, limit), -_share(f)))
    found = [measure.located(found[0]), *found[1:]] if found else []
    accuracy = score(runs.mapped.predictions, truth, runs.ideal.predictions) if truth is not None else None
    flips = [d for d in runs.judged if d.near_threshold]
    beyond = [d for d in runs.judged if not d.near_threshold]
    return Divergence(
        program=program,
        network=side.network,
        samples=runs.samples,
        steps=runs.steps,
        device=runs.device,
        stages=runs.stages(),
        first=runs.first(),
        beyond=min(beyond, key=lambda d: (d.step, d.sample), default=None),
        judged=len(runs.judged),
        flips=len(flips),
        causes=tuple(found),
        totals=totals,
        accuracy=accuracy,
        agreement=None if "predictions" not in totals else 1 - totals["predictions"],
        symptoms=tuple(_symptoms(side, runs, found)),
        over_time=runs.over_time,
        counts_over_time=runs.counts_over_time,
    )


def _class(found: Found, limit: float) -> int:
    """Return 0 for a contradiction, 1 for an end of a range that matters, 2 for rounding, 3 for no effect."""
    if found.cause.rank == 0:
        return 0 if found.effect > 0 else 3
    if found.cause.rank == 1:
        shares = found.shares or {}
        shows = found.effect >= RANGE_SHOWS or any(
            k in shares and shares[k].share > 0 for k in ("predictions", "drop")
        )
        return 1 if found.effect > 0 and shows and _share(found) >= limit else 3
    return 2 if found.effect > 0 else 3


def _share(found: Found) -> float:
    return found.shares["signal"].share if found.shares else found.effect


class _Measure:
    """Distances of selections from the reference, from which the shares of causes follow."""

    def __init__(self, side: Pair, runs: LockStep, labels: npt.NDArray[Any] | None) -> None:
        self.side, self.runs, self.labels = side, runs, labels
        self.ideals: list[Emulation] | None = [] if runs.samples <= runs.size else None

    def run(self, chosen: Selection) -> Result:
        """Run a selection over all samples."""
        tally = Tally()
        for part in self.runs.parts():
            if self.ideals:
                ideal = self.ideals[0]
            else:
                ideal = emulate(self.side, NETWORK, part)
                if self.ideals is not None:
                    self.ideals.append(ideal)
            tally.add(self.side, ideal, emulate(self.side, chosen, part))
        return self.runs.result(tally)

    def distances(self, result: Result) -> dict[str, float]:
        """Return a run's distances from the reference."""
        found = {"signal": result.signal}
        ideal = self.runs.ideal.predictions
        if (
            self.side.network.outputs[0].readout.task == "classify"
            and ideal.shape == result.predictions.shape
        ):
            found["predictions"] = float((ideal != result.predictions).mean())
            if self.labels is not None and self.labels.shape == ideal.shape:
                right = (ideal == self.labels).mean() - (result.predictions == self.labels).mean()
                found["drop"] = 100 * float(right)
        return found

    def cause(self, cause: Cause) -> Found:
        """Add a cause to the reference, and remove it from the program."""
        try:
            alone = self.run(Selection(cause.effects))
            last = self.run(Selection(cause.effects, rest=True))
        except Unordered:
            return Found(cause, None)
        total, one, others = (self.distances(r) for r in (self.runs.mapped, alone, last))
        shares = {key: Share(one.get(key, 0.0), total[key] - others.get(key, 0.0)) for key in total}
        return Found(cause, shares, last.rates)

    def located(self, found: Found) -> Found:
        """Name the tensor with the largest share of a kind of rounding that acts on several."""
        effects = found.cause.effects
        places: Sequence[str] = list(dict.fromkeys(name for _, name in effects))
        if found.cause.rank < 2 or found.shares is None:
            return found
        if len(places) > 1:
            effect = {}
            for place in places[:PARTS_TRIED]:
                chosen = {key: mask for key, mask in effects.items() if key[1] == place}
                one = self.run(Selection(chosen)).signal
                rest = self.run(Selection(chosen, rest=True)).signal
                effect[place] = (one + self.runs.mapped.signal - rest) / 2
            place = max(effect, key=lambda name: effect[name])
            error = found.cause.parts.get(place)
            relative = "" if error is None else f"; relative error {error:.2g}"
            detail = f"the largest of {len(places)} tensors{relative}"
        else:
            place, detail = places[0], found.cause.detail
        return replace(found, cause=replace(found.cause, place=place, detail=detail))


def _symptoms(side: Pair, runs: LockStep, found: Sequence[Found]) -> list[Symptom]:
    """Return populations that never or almost always spike, but only in the program."""
    symptoms = []
    for name in side.reported:
        population = side.network.population(name)
        if not population.spiking:
            continue
        ideal, rate = runs.ideal.rates[name], runs.mapped.rates[name]
        kind = "dead" if rate == 0 < ideal else "saturated" if rate > 0.9 and ideal < 0.45 else None
        if kind is None:
            continue
        able = [f for f in found if f.shares is not None and abs(f.rates[name] - ideal) < abs(rate - ideal)]
        best = min(able, key=lambda f: abs(f.rates[name] - ideal), default=None)
        symptoms.append(Symptom(kind, name, rate, ideal, best.cause.name if best else None))
    return symptoms
