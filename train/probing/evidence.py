"""Whether a neuron is what a module is: its answer to fresh random inputs, predicted and compared.

Samples take turns in six regimes: inputs about the critical one, small ones that add up, large ones, rare
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


@dataclass(frozen=True)
class Verdict:
    """The comparison of one neuron with a module: None where every step agrees."""

    evidence: Evidence
    agreement: float
    difference: Difference | None


def trial_inputs(neuron: NeuronModel, size: Float, steps: int, batch: int, seed: int, dtype: Any) -> Float:
    """Return inputs (steps, batch, neurons); `size` is each neuron's critical input."""
    rng = np.random.default_rng(seed)
    regime = np.arange(batch)[:, None] % REGIMES
    count = len(size)
    state, rows = neuron.begin(batch), []
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(steps):
            u = rng.uniform(size=(batch, count))
            x = np.select(
                [regime == 0, regime == 1, regime == 2, regime == 3, regime == 4],
                [
                    2 * u - 0.5,
                    0.5 * u,
                    12 * u - 4,
                    np.where(rng.uniform(size=u.shape) < 0.2, 2.5 * u, 0.0),
                    np.where(u < 0.7, -3 * u, 6 * u - 3),
                ],
                u * 1.2 - 0.1,
            )
            x = x * size
            if neuron.model != "li":
                near = (regime == 5) & (rng.uniform(size=u.shape) < 0.5)
                aside = 10 ** rng.uniform(np.log10(3e-5), -2, u.shape) * rng.choice([-1, 1], u.shape)
                wanted = neuron.to_threshold(state) + aside * size
                x = np.where(near & np.isfinite(wanted), wanted, x)
            x = np.asarray(x, dtype).astype(np.float64)
            rows.append(x)
            state = neuron.step(state, x).state
    return np.stack(rows)


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
    return Verdict(evidence, 1 - float(wrong.mean()), first)


def _difference(t: int, wrong: NDArray[np.bool_], x: Float, sent: Float, met: Any) -> Difference:
    sample, neuron = (int(i) for i in np.argwhere(wrong)[0])

    def at(array: Float) -> float:
        return float(array[sample, neuron])

    return Difference(
        t, neuron, at(x), at(sent), at(met.spikes), at(met.reached), float(met.level[sample, neuron])
    )


def ask(neuron: NeuronModel, runner: Runner, size: Float, steps: int, batch: int, seed: int) -> Verdict:
    """Test a neuron against a module on fresh inputs."""
    dtype = numpy_dtype(runner.dtype)
    x = trial_inputs(neuron, size, steps, batch, seed, dtype)
    return compare(neuron, x, runner.run(x))
