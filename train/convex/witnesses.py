"""Witnesses: hidden neurons as candidates, what they do for every sample, and the search for better ones.

A witness is a row (w, b): weights of the inputs and a bias current, of a neuron with threshold 1,

    u[t] = decay u[t-1] + w . x[t] + b,   s[t] = 1{u[t] > 1},   then the reset, if there is one

and its column is c = sum_t r_t s[t] for every sample, with the fixed shares r of the read-out. For the convex
program that follows, columns are data: any model of a neuron may make them.

To price a residual Z is to look for the witness of largest || Z' c ||. That is hard in general; here random
witnesses climb along a surrogate gradient, and the best each has been is measured on the real neuron. What is
not found proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.network import Float
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.convex.patterns import filtered

RESETS = ("none", "value", "subtract")
READOUTS = ("last", "mean", "leaky")
CHUNK = 1 << 21
"""Membranes, samples times neurons, that are simulated at once."""

SPREAD = (0.3, 3.0)
"""Range of the deviation of a random witness's membrane over the samples, in thresholds."""

STRIDE = 0.05
"""First step of the search, relative to the length of a witness."""

WIDTH = 0.5
"""Distance from threshold, in thresholds, at which the surrogate has fallen to a half."""


@dataclass(frozen=True)
class SpikingUnit:
    """The neuron that witnesses are weights of, and how its spikes are read.

    `decay` of the membrane per step; `reset` to 0, by the threshold, or none. `readout`: the spike of the
    last step, the mean over steps, or the mean of a leaky integrator with `readout_decay`.
    """

    decay: float = 0.0
    reset: str = "none"
    readout: str = "mean"
    readout_decay: float = 0.9

    def __post_init__(self) -> None:
        """Raise SnnCompileError for values out of range."""
        if self.reset not in RESETS or self.readout not in READOUTS:
            raise SnnCompileError(
                f"unit: reset {self.reset!r} and readout {self.readout!r}; they must be of "
                f"{', '.join(RESETS)} and of {', '.join(READOUTS)}"
            )
        if not (0 <= self.decay <= 1 and 0 <= self.readout_decay < 1):
            raise SnnCompileError(
                f"unit: decays {self.decay} and {self.readout_decay}; they must lie from 0 to 1"
            )

    def shares(self, steps: int) -> Float:
        """Return r (steps,), what a spike at each step counts."""
        if self.readout == "last":
            last: Float = np.eye(steps)[-1]
            return last
        if self.readout == "mean":
            return np.full(steps, 1.0 / steps)
        shares: Float = (1.0 - self.readout_decay ** np.arange(steps, 0, -1.0)) / steps
        return shares


def columns(inputs: npt.NDArray[np.generic], witnesses: Float, unit: SpikingUnit) -> Float:
    """Return C (samples, witnesses) for inputs (samples, steps, size) and witnesses (count, size + 1)."""
    _check(inputs, witnesses)
    shares = unit.shares(inputs.shape[1])
    found = np.zeros((len(inputs), len(witnesses)))
    for part in _parts(len(inputs), len(witnesses)):
        for t, (_, spikes) in enumerate(_simulated(inputs[part], witnesses, unit)):
            if shares[t]:
                found[part] += shares[t] * spikes
    return found


def margin(inputs: npt.NDArray[np.generic], witnesses: Float, unit: SpikingUnit) -> float:
    """Return the least distance of a membrane from its threshold, relative to the witness's length."""
    _check(inputs, witnesses)
    length, least = np.linalg.norm(witnesses, axis=1), np.inf
    for part in _parts(len(inputs), len(witnesses)):
        for membrane, _ in _simulated(inputs[part], witnesses, unit):
            least = min(least, float((np.abs(membrane - 1.0) / length).min(initial=np.inf)))
    return least


def random_witnesses(
    inputs: npt.NDArray[np.generic], unit: SpikingUnit, count: int, generator: np.random.Generator
) -> Float:
    """Return witnesses (count, size + 1): directions at random, thresholds at quantiles of the data.

    Every other direction is that from one sample to another, the rest are Gaussian. A membrane crosses the
    threshold at a step and quantile drawn at random, with a deviation over the samples in SPREAD.
    """
    samples, steps, size = inputs.shape
    some = inputs[generator.permutation(samples)[: max(1, CHUNK // max(1, steps * size))]]
    phi = filtered(some.astype(np.float64), unit.decay)
    reached = filtered(np.ones((1, steps)), unit.decay)[0]
    found = np.empty((count, size + 1))
    for j in range(count):
        t = int(generator.integers(steps))
        direction = generator.standard_normal(size)
        if j % 2:
            a, b = phi[generator.integers(len(phi), size=2), t]
            direction = a - b if (a != b).any() else direction
        at = phi[:, t] @ direction
        spread = float(np.exp(generator.uniform(*np.log(SPREAD)))) / max(float(at.std()), 1e-12)
        crossing = float(np.quantile(at, generator.uniform(0.05, 0.95)))
        found[j, :-1] = spread * direction
        found[j, -1] = (1.0 - spread * crossing) / reached[t]
    return found


def priced(
    inputs: npt.NDArray[np.generic],
    residual: Float,
    unit: SpikingUnit,
    witnesses: Float,
    *,
    steps: int = 30,
    centred: bool = True,
) -> tuple[Float, Float]:
    """Return the best that each of some witnesses has been on a climb, and its || Z' c ||.

    `residual` Z (samples, outputs) sums to 0 if `centred`, so that a constant in c counts nothing.
    """
    best, score = witnesses.copy(), np.zeros(len(witnesses))
    at, last = witnesses.copy(), np.zeros_like(witnesses)
    for step in range(steps + 1):
        found, gradient = _slopes(inputs, residual, unit, at)
        better = found > score
        best[better], score[better] = at[better], found[better]
        length = np.linalg.norm(gradient, axis=1, keepdims=True)
        last = 0.7 * last + gradient / np.maximum(length, 1e-300)
        stride = STRIDE * (1.0 - step / (steps + 1)) * np.linalg.norm(at, axis=1, keepdims=True)
        at = at + stride * last
    return best, score


def _slopes(
    inputs: npt.NDArray[np.generic], residual: Float, unit: SpikingUnit, witnesses: Float
) -> tuple[Float, Float]:
    """Return || Z' c || of each witness and its surrogate gradient.

    The gradient of a membrane is the filtered input of a membrane that was not reset.
    """
    shares = unit.shares(inputs.shape[1])
    made = residual.T @ columns(inputs, witnesses, unit)
    score = np.linalg.norm(made, axis=0)
    heading = made / np.maximum(score, 1e-300)
    gradient = np.zeros_like(witnesses)
    still, reached = _still(inputs), filtered(np.ones((1, inputs.shape[1])), unit.decay)[0]
    for part in _parts(len(inputs), len(witnesses)):
        pull, total = residual[part] @ heading, None
        phi = None if still else filtered(inputs[part].astype(np.float64), unit.decay)
        for t, (membrane, _) in enumerate(_simulated(inputs[part], witnesses, unit)):
            if not shares[t]:
                continue
            near = pull * shares[t] / (1.0 + np.square((membrane - 1.0) / WIDTH))
            if phi is not None:
                gradient[:, :-1] += near.T @ phi[:, t]
                gradient[:, -1] += reached[t] * near.sum(axis=0)
            else:
                total = reached[t] * near if total is None else total + reached[t] * near
        if total is not None:
            gradient[:, :-1] += total.T @ inputs[part][:, 0]
            gradient[:, -1] += total.sum(axis=0)
    return score, gradient


def _simulated(
    inputs: npt.NDArray[np.generic], witnesses: Float, unit: SpikingUnit
) -> Iterator[tuple[Float, npt.NDArray[np.bool_]]]:
    """Yield, step by step, membranes before the reset and spikes, both (samples, witnesses)."""
    drive, still = None, _still(inputs)
    u = np.zeros((len(inputs), len(witnesses)))
    for t in range(inputs.shape[1]):
        if drive is None or not still:
            drive = inputs[:, t].astype(np.float64) @ witnesses[:, :-1].T + witnesses[:, -1]
        u = unit.decay * u + drive
        spikes = u > 1.0
        yield u, spikes
        if unit.reset == "value":
            u = np.where(spikes, 0.0, u)
        elif unit.reset == "subtract":
            u = u - spikes


def _still(inputs: npt.NDArray[np.generic]) -> bool:
    """Whether every step is the same one, shown again."""
    return inputs.shape[1] == 1 or inputs.strides[1] == 0


def _parts(samples: int, neurons: int) -> Iterator[slice]:
    size = max(1, CHUNK // max(1, neurons))
    for first in range(0, samples, size):
        yield slice(first, first + size)


def _check(inputs: npt.NDArray[np.generic], witnesses: Float) -> None:
    if inputs.ndim != 3 or witnesses.ndim != 2 or witnesses.shape[1] != inputs.shape[2] + 1:
        raise SnnCompileError(
            f"witnesses {witnesses.shape} for inputs {inputs.shape}; they must be (count, size + 1) and "
            "(samples, steps, size)"
        )
