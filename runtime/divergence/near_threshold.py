"""First differences of two runs, sample by sample, and whether rounding explains them.

Until the first different message of a sample, the membranes of two runs differ by rounding errors alone.
`rounding_bound` propagates the largest such error through the network, from the actual errors of weights,
decays, biases and inputs and one unit per truncation:

    e_a = sum |message| |weight error| + |weight| e_message + 1 per flooring shift

and then through the states of each population (`neurons/*.py`).

A first difference whose membranes are no further apart than that, and no further from the threshold, is a
near-threshold flip, not a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.divergence.emulator import NETWORK, Emulation, Selection, emulate, pick
from snn_compile.runtime.divergence.neurons.base import WITHIN, Errors, slack_of
from snn_compile.runtime.divergence.neurons.models import MODELS
from snn_compile.runtime.divergence.pair import Edge, Float, Pair


@dataclass(frozen=True)
class FirstDifference:
    """Where two stages of a run first send different messages.

    `membranes` before the reset and `thresholds`, one per stage, are in the network's units; `last_bits` is
    the membranes' distance in the program's units, and `bound` the largest distance that rounding explains,
    in the network's units. They are None where they were not computed.
    """

    stage: str
    step: int
    population: str
    neuron: int
    sample: int
    messages: tuple[float, float]
    membranes: tuple[float, float] | None = None
    thresholds: tuple[float, float] | None = None
    last_bits: float | None = None
    bound: float | None = None
    near_threshold: bool | None = None

    def __str__(self) -> str:
        """Describe the difference in one line."""
        text = (
            f"{self.stage}: step {self.step}, population {self.population!r}, neuron {self.neuron}, "
            f"sample {self.sample}: sends {self.messages[1]:g} instead of {self.messages[0]:g}"
        )
        if self.membranes and self.thresholds and self.last_bits is not None:
            text += (
                f"; membrane {self.membranes[1]:.5g} instead of {self.membranes[0]:.5g} "
                f"({self.last_bits:+.0f} last bits), threshold {self.thresholds[1]:.5g}"
            )
            text += f" (distance {self.membranes[0] - self.thresholds[0]:+.3g} in the network, "
            text += f"{self.membranes[1] - self.thresholds[1]:+.3g} here)"
        if self.near_threshold is not None:
            words = "a near-threshold flip: within rounding" if self.near_threshold else "more than rounding"
            text += f"; {words} ({self.bound:.3g} at most)"
        return text

    def json(self) -> dict[str, Any]:
        """Return the difference as plain values."""
        pairs = {key: getattr(self, key) for key in ("messages", "membranes", "thresholds")}
        distances = None
        if self.membranes and self.thresholds:
            distances = [v - t for v, t in zip(self.membranes, self.thresholds, strict=True)]
        return {
            "stage": self.stage,
            "step": self.step,
            "population": self.population,
            "neuron": self.neuron,
            "sample": self.sample,
            **{key: None if value is None else list(value) for key, value in pairs.items()},
            "distance_to_threshold": distances,
            "last_bits": self.last_bits,
            "rounding_bound": self.bound,
            "near_threshold": self.near_threshold,
        }


def first_differences(
    side: Pair, stage: str, left: Mapping[str, npt.NDArray[Any]], right: Mapping[str, npt.NDArray[Any]]
) -> list[FirstDifference]:
    """Return the first difference of every sample that has one, in the network's order within a step."""
    names = [n for n in side.network.order if n in left and n in right and side.network.population(n).spiking]
    found = []
    unequal = {name: left[name] != right[name] for name in names}
    samples = next(iter(left.values())).shape[0] if left else 0
    for sample in range(samples):
        best: tuple[int, int] | None = None
        for rank, name in enumerate(names):
            steps = unequal[name][sample].any(axis=1)
            if steps.any() and (best is None or int(steps.argmax()) < best[0]):
                best = (int(steps.argmax()), rank)
        if best is not None:
            step, name = best[0], names[best[1]]
            neuron = int(unequal[name][sample, step].argmax())
            values = (float(left[name][sample, step, neuron]), float(right[name][sample, step, neuron]))
            found.append(FirstDifference(stage, step, name, neuron, sample, values))
    return found


def judge(
    side: Pair, inputs: Mapping[str, Float], found: list[FirstDifference], chosen: Selection
) -> list[FirstDifference]:
    """Add membranes and the verdict to first differences of the network and a selection."""
    from dataclasses import replace

    if not found:
        return []
    samples = sorted({d.sample for d in found})
    row = {sample: i for i, sample in enumerate(samples)}
    part = {name: data[samples] for name, data in inputs.items()}
    probes = [f"{p.name}.{s}" for p in side.network.populations for s in MODELS[p.model].traces]
    ideal, made = emulate(side, NETWORK, part, probes), emulate(side, chosen, part, probes)
    bound = rounding_bound(side, part, ideal)
    judged = []
    for d in found:
        at, scale = (row[d.sample], d.step, d.neuron), side.scale[d.population]
        v = (float(ideal.probes[f"{d.population}.v"][at]), float(made.probes[f"{d.population}.v"][at]))
        if MODELS[side.network.population(d.population).model].moving_threshold:
            both = [run.probes[f"{d.population}.limit"][at] for run in (ideal, made)]
            thresholds, slack = (float(both[0]), float(both[1])), 0.0
        else:
            thresholds, slack = _thresholds(side, d, chosen, v[0])
        limit = float(bound[d.population][at] + slack) / scale
        moved = (v[0], thresholds[0]) != (v[1], thresholds[1])
        near = moved and abs(v[1] - v[0]) <= limit and abs(v[0] - thresholds[0]) <= limit
        bits = (v[1] - v[0]) * scale
        shifts = side.network.population(d.population).parameters["offset"]
        offset = float(shifts[d.neuron if shifts.size > 1 else 0])
        judged.append(
            replace(
                d,
                membranes=(v[0] + offset, v[1] + offset),
                thresholds=(thresholds[0] + offset, thresholds[1] + offset),
                last_bits=bits,
                bound=limit,
                near_threshold=bool(near),
            )
        )
    return judged


def _thresholds(
    side: Pair, d: FirstDifference, chosen: Selection, v: float
) -> tuple[tuple[float, float], float]:
    """Return a leaky neuron's threshold on each side at a difference, and its slack from rounding."""
    theta = side.parameters["threshold", d.population]
    mask = chosen.of("threshold", d.population)
    # With several spikes per step, the multiple of the threshold between the two numbers of spikes.
    times = d.messages[1] + (d.messages[1] < d.messages[0])
    if side.network.population(d.population).reset_timing == "pending":
        times = 1 + (abs(v - theta.network[d.neuron]) > abs(v - 2 * theta.network[d.neuron]))
    both = theta.network[d.neuron], pick(theta, mask, False)[d.neuron]
    slack = times * side.formats.threshold_unit * min(abs(theta.kept - theta.ideal)[d.neuron], WITHIN)
    return (float(times * both[0]), float(times * both[1])), float(slack)


def rounding_bound(side: Pair, inputs: Mapping[str, Float], ideal: Emulation) -> dict[str, Float]:
    """Return a bound of each membrane's error before its reset, (batch, steps, size), in the program's units.

    It holds until the sample's first different message. `ideal` needs the `traces` of every population's
    model as probes.
    """
    batch, steps = next(iter(inputs.values())).shape[:2]
    messages = {n: ideal.messages[n] * side.unit[n] for n in ideal.messages}
    errors = {n: np.zeros_like(m) for n, m in messages.items()}
    for name, data in inputs.items():
        port, unit = side.input_ports[name], side.unit[name]
        messages[name] = data * unit
        graded = port.kind == "graded"
        errors[name] = np.minimum(np.abs(np.rint(data * unit) - data * unit), 0.5) * graded
    bounds = {p.name: np.zeros((batch, steps, p.size)) for p in side.network.populations}
    groups = {name: _errors(side, name, ideal) for name in bounds}
    wires = {name: _wires(side, name) for name in bounds}
    for t in range(steps):
        for name in side.network.order:
            e_a: list[Any] = [0.0] * side.network.population(name).kind.group.ports
            for weights, slack, edge, floors in wires[name]:
                if t >= edge.network_delay:
                    late = t - edge.network_delay
                    off = _times(np.abs(messages[edge.source][:, late]), slack) + floors
                    off = off + _times(errors[edge.source][:, late], weights)
                    e_a[edge.port] = e_a[edge.port] + off
            bounds[name][:, t] = groups[name].step(t, e_a[0] if len(e_a) == 1 else e_a)
            if not side.network.population(name).spiking:
                errors[name][:, t] = bounds[name][:, t] * side.unit[name] / side.scale[name] + 1
    return bounds


def _times(values: Float, matrix: Any) -> Float:
    product: Float = np.asarray((matrix @ values.T).T)
    return product


def _wires(side: Pair, name: str) -> list[tuple[Any, Any, Edge, int]]:
    """Return the magnitudes of weights and of their errors, the edge and its number of floored sums."""
    return [
        (abs(e.matrix(e.weight.ideal)), abs(e.matrix(slack_of(e.weight))), e, sum(e.floors))
        for e in side.incoming(name)
    ]


def _errors(side: Pair, name: str, ideal: Emulation) -> Errors:
    """Return the error bounds of a population along the network's run."""
    model = MODELS[side.network.population(name).model]
    slack = {item: slack_of(tensor) for (item, place), tensor in side.parameters.items() if place == name}
    traces = {state: ideal.probes[f"{name}.{state}"] for state in model.traces}
    return model.errors(side, name, traces, slack, ideal.messages[name])
