"""Whether a neuron is what a module is: its answer to fresh random inputs, predicted and compared.

Samples are in one of six regimes: inputs about the critical one, small ones that add up, large ones, rare
pulses, mostly negative ones, and inputs that bring the membrane next to its threshold (where it would stand
by the prediction; above or below by 3e-5 to 1e-2 of the way there). A step whose membrane is within 1e-5 of
its threshold is not compared: rounding decides there, and the prediction goes on from what the module did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.train.probing.calling import Float, Runner, numpy_dtype
from snn_compile.train.probing.stepping import NeuronModel

NEAR = 1e-5
"""Distance from threshold, relative to the way there from rest, within which spikes are not compared."""

NEAR_SHARE = 1e-3
"""Largest share of steps that may be so close."""

REGIMES = 6


@dataclass(frozen=True)
class Evidence:
    """How a prediction was tested: steps per neuron, spikes met, and the share of steps not compared."""

    steps: int
    spikes: int
    near_share: float


@dataclass(frozen=True)
class Difference:
    """The first step at which a module and the closest neuron differ."""

    step: int
    neuron: int
    value: float
    did: float
    predicted: float
    membrane: float
    threshold: float

    def describe(self, neuron: NeuronModel) -> str:
        """Return the step in words."""
        if neuron.model == "li":
            what = f"it gave {self.did:.7g} and the closest {self.predicted:.7g}"
        else:
            what = (
                f"it sent {self.did:g} and the closest {self.predicted:g} (membrane {self.membrane:.7g}, "
                f"threshold {self.threshold:.7g})"
            )
        return f"at step {self.step} of a trial, with input {self.value:.7g} to neuron {self.neuron}, {what}"


@dataclass(frozen=True, eq=False)
class Verdict:
    """The comparison of a layer with a module; `wrong` is the share of steps in which each neuron differs."""

    evidence: Evidence
    wrong: Float
    agreement: float
    difference: Difference | None


def trial_inputs(neuron: NeuronModel, size: Float, steps: int, batch: int, seed: int, dtype: Any) -> Float:
    """Return inputs (steps, batch, neurons); `size` is each neuron's critical input.

    A sixth of the batch each has one regime.
    """
    rng = np.random.default_rng(seed)
    share, x = batch // REGIMES, np.empty((steps, batch, len(size)))
    state = neuron.begin(batch)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for row in x:
            rng.random(out=row)
            about, small, large, rare, low, near = (row[i * share : (i + 1) * share] for i in range(REGIMES))
            about[:] = 2 * about - 0.5
            small *= 0.5
            large[:] = 12 * large - 4
            rare *= 2.5 * (rng.random(rare.shape) < 0.2)
            low[:] = np.where(low < 0.7, -3 * low, 6 * low - 3)
            near[:] = 1.2 * near - 0.1
            row *= size
            if neuron.model != "li":
                last = state.of(slice((REGIMES - 1) * share, None))
                aside = 10 ** rng.uniform(np.log10(3e-5), -2, near.shape) * rng.choice([-1, 1], near.shape)
                wanted = neuron.to_threshold(last) + aside * size
                use = (rng.random(near.shape) < 0.5) & np.isfinite(wanted)
                near[use] = wanted[use]
            row[:] = row.astype(dtype)
            state = neuron.step(state, row).state
    return x


def compare(neuron: NeuronModel, x: Float, answer: Float) -> Verdict:
    """Step a neuron beside a module's answer to x, both (steps, batch, neurons)."""
    state = neuron.begin(x.shape[1])
    wrong, near = np.zeros(x.shape, bool), np.zeros(x.shape, bool)
    first: Difference | None = None
    sent = answer if neuron.model == "li" else answer / neuron["amplitude"]
    top = np.zeros(x.shape[2])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for t in range(len(x)):
            if neuron.model == "li":
                met = neuron.step(state, x[t])
                top = np.maximum(top, np.abs(met.reached).max(0))
                wrong[t] = ~(np.abs(sent[t] - met.reached) <= NEAR * top)
            else:
                met = neuron.step(state, x[t])
                near[t] = neuron.closeness(met) <= NEAR
                if (near[t] & (sent[t] != met.spikes)).any():
                    met = neuron.step(state, x[t], np.rint(sent[t]), near[t])
                wrong[t] = (np.abs(sent[t] - met.spikes) > 1e-4) & ~near[t]
            if first is None and wrong[t].any():
                first = _difference(t, wrong[t], x[t], sent[t], met)
            state = met.state
    spikes = 0 if neuron.model == "li" else int(np.count_nonzero(sent))
    evidence = Evidence(x.shape[0] * x.shape[1], spikes, float(near.mean()))
    return Verdict(evidence, wrong.mean((0, 1)), 1 - float(wrong.mean()), first)


def _difference(t: int, wrong: NDArray[np.bool_], x: Float, sent: Float, met: Any) -> Difference:
    sample, neuron = (int(i) for i in np.argwhere(wrong)[0])

    def at(array: Float) -> float:
        return float(array[sample, neuron])

    return Difference(
        t, neuron, at(x), at(sent), at(met.spikes), at(met.reached), float(met.level[sample, neuron])
    )


def ask(
    neuron: NeuronModel,
    runner: Runner,
    size: Float,
    steps: int,
    batch: int,
    seed: int,
    most: int | None = None,
) -> Verdict:
    """Test a neuron against a module on fresh inputs; `most`: on so many neurons of the layer at most."""
    chosen = np.arange(runner.size)
    if most is not None and most < runner.size:
        chosen = np.sort(np.random.default_rng(seed).choice(runner.size, most, replace=False))
    some = neuron.of(chosen)
    x = np.zeros((steps, batch, runner.size))
    x[..., chosen] = trial_inputs(some, size[chosen], steps, batch, seed, numpy_dtype(runner.dtype))
    return compare(some, x[..., chosen], runner.run(x)[..., chosen])
