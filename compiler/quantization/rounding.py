"""Calibrated rounding: round each weight up or down so that a neuron's input on calibration data is kept.

A weight's nearest value is best for that weight alone. A neuron integrates the sum over its sources, so
errors of sources that fire together can cancel. With e the errors of one neuron's weights and x the messages
filtered as its current and membrane filter them, the mean squared error of the membrane is e' H e, where H
holds the second moments E[x x']. Each weight takes one of its two neighbouring values; cyclic coordinate
descent from the nearest values lowers e' H e until nothing changes, for all neurons at once.

The objective is that of AdaRound and GPTQ (Nagel et al. 2020, section 3; Frantar et al. 2022); moments over
time and coordinate descent are specific to this compiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.sparse import issparse

from snn_compile.compiler.network import Float, Population, Projection, Weight, weight_values
from snn_compile.compiler.quantization.weight_tables import SplitWeights

METHODS = ("auto", "nearest", "reconstruct")
SWEEPS = 8
RIDGE = 0.01
"""Fraction of the mean second moment that is added to the diagonal, because data is finite."""

MOMENT_VALUES = 1 << 25
"""Most messages of calibration data, steps times sources, in the second moments."""

MOMENT_SOURCES = 4224
WORK = 2e9
"""Most products per sweep where weights are dense; larger populations keep their nearest values."""

SPARSE_WORK = 4e8
"""The same for sparse weights, where every target has the second moments of its own sources."""

CHUNK = 1 << 25
"""Second moments of targets with sparse weights that are in memory at once."""


def affordable(weights: Sequence[Weight]) -> bool:
    """Whether the weights into a population are few enough for calibrated rounding."""
    sources = sum(weight.shape[1] for weight in weights)
    if sources > MOMENT_SOURCES:
        return False
    if not any(issparse(weight) for weight in weights):
        return bool(weights[0].shape[0] * float(sources) ** 2 <= WORK)
    return float(np.square(_counts(weights), dtype=np.float64).sum()) <= SPARSE_WORK


def _counts(weights: Sequence[Weight]) -> npt.NDArray[np.int64]:
    """Return the number of weights per target."""
    each = [np.diff(w.indptr) if issparse(w) else np.full(w.shape[0], w.shape[1]) for w in weights]
    return np.asarray(np.sum(each, axis=0), np.int64)


def moments(
    population: Population,
    incoming: Sequence[Projection],
    messages: Mapping[str, Float],
    units: Mapping[str, float],
) -> Float:
    """Return H over the sources of all projections, side by side in their order.

    `messages` of every source, (batch, steps, size), are in the float network's units; `units` converts them
    to the chip's.
    """
    batch, steps = messages[incoming[0].source].shape[:2]
    values = batch * steps * sum(e.weight.shape[1] for e in incoming)
    chosen = slice(None, None, max(1, -(-values // MOMENT_VALUES)))
    late = [
        _late(messages[e.source][chosen].astype(np.float64) * units.get(e.source, 1.0), e.delay_steps)
        for e in incoming
    ]
    poles = population.kind.poles(population)
    moment: Float = np.mean([_second([_through(pole, x) for x in late]) for pole in poles], axis=0)
    own = float(np.diag(moment).mean())
    return moment + np.eye(len(moment)) * RIDGE * own


def _late(messages: Float, delay: int) -> Float:
    if not delay:
        return messages
    late = np.zeros_like(messages)
    late[:, delay:] = messages[:, :-delay]
    return late


def _second(seen: Sequence[Float]) -> Float:
    """Return the second moments of messages, all projections side by side."""
    x = np.concatenate(seen, axis=2)
    x = x.reshape(-1, x.shape[2])
    moment: Float = x.T @ x / len(x)
    return moment


def _through(poles: tuple[complex, ...], x: Float) -> Float:
    """Return messages filtered by poles in series; the real part is the membrane."""
    for pole in poles:
        x = lfilter([1.0], [1.0, -pole], x, axis=1)
    return np.real(x)


def reconstructed(found: Sequence[tuple[Weight, SplitWeights]], moment: Float) -> list[SplitWeights]:
    """Return a population's tables with roundings chosen jointly over all its incoming projections.

    `found`: per projection its exact weights, in the chip's units, and their nearest tables; `moment`: over
    the sources of all, side by side.
    """
    limits = [split.limits() for _, split in found]
    kinds = [
        [weight_values(exact) for exact, _ in found],
        [split.values() for _, split in found],
        [split.lsb for _, split in found],
        [low for low, _ in limits],
        [high for _, high in limits],
    ]
    weights = [exact for exact, _ in found]
    if not any(issparse(weight) for weight in weights):
        exact, kept, step, low, high = (np.concatenate(values, axis=1) for values in kinds)
        ends = np.cumsum([weight.shape[1] for weight in weights])[:-1]
        parts = np.split(reconstruct(exact, kept, step, (low, high), moment), ends, axis=1)
        return [split.moved(part) for (_, split), part in zip(found, parts, strict=True)]
    flat = [np.concatenate([np.reshape(v, -1) for v in values]) for values in kinds]
    values = _by_target(flat, weights, moment)
    ends = np.cumsum([weight_values(weight).size for weight in weights])[:-1]
    return [
        split.moved(part.reshape(weight_values(exact).shape))
        for (exact, split), part in zip(found, np.split(values, ends), strict=True)
    ]


def _by_target(flat: Sequence[Float], weights: Sequence[Weight], moment: Float) -> Float:
    """Round stored values (exact, kept, step, low, high), each target over its own sources only."""
    row, source, offset = [], [], 0
    for weight in weights:
        rows, columns = weight.shape
        if issparse(weight):
            row.append(np.repeat(np.arange(rows), np.diff(weight.indptr)))
            source.append(weight.indices + offset)
        else:
            row.append(np.repeat(np.arange(rows), columns))
            source.append(np.tile(np.arange(columns), rows) + offset)
        offset += columns
    order = np.argsort(np.concatenate(row), kind="stable")
    sources, counts = np.concatenate(source)[order], _counts(weights)
    begins, values = np.cumsum([0, *counts]), flat[1].copy()
    start = 0
    while start < len(counts):
        stop = start + max(1, CHUNK // max(int(counts[start:].max()) ** 2, 1))
        width = int(counts[start:stop].max(initial=0))
        there = np.arange(width) < counts[start:stop, None]
        place = np.where(there, begins[start:stop][: len(there), None] + np.arange(width), 0)
        exact, kept, step, low, high = (np.where(there, part[order[place]], 0.0) for part in flat)
        own = moment[sources[place][:, :, None], sources[place][:, None, :]]
        values[order[place[there]]] = reconstruct(exact, kept, step, (low, high), own)[there]
        start = stop
    return values


def reconstruct(exact: Float, kept: Float, step: Float, limits: tuple[Float, Float], moment: Float) -> Float:
    """Return values on the grid of `kept` (targets, sources) with a smaller e' H e.

    `moment`: H (sources, sources) of all targets, or (targets, sources, sources). Each value stays within a
    step of `exact`, and within `limits`; places with a step of 0 stay as they are.
    """
    free = np.where(step > 0, step, 1.0)
    below = kept + np.floor((exact - kept) / free + 1e-9) * step
    above = kept + np.ceil((exact - kept) / free - 1e-9) * step
    # A clipped weight has its nearest value at the end of the range.
    low, high = np.maximum(np.minimum(below, kept), limits[0]), np.minimum(np.maximum(above, kept), limits[1])
    values, own = kept.copy(), moment if moment.ndim == 3 else moment[None]
    slope = (values - exact) @ moment if moment.ndim == 2 else ((values - exact)[:, None] @ moment)[:, 0]
    for _ in range(SWEEPS):
        moved = False
        for j in range(values.shape[1]):
            weight = np.maximum(own[:, j, j], 1e-300)
            wanted = -slope[:, j] / weight / free[:, j]
            new = np.clip(values[:, j] + np.rint(wanted) * step[:, j], low[:, j], high[:, j])
            change = new - values[:, j]
            # A move must reduce the error; moves of equal error would cycle.
            gain = change * (2 * slope[:, j] + change * weight)
            rows = np.flatnonzero(gain < -1e-12 * weight * free[:, j] ** 2)
            if len(rows):
                values[rows, j] = new[rows]
                slope[rows] += change[rows, None] * (own[0, j] if len(own) == 1 else own[rows, j])
                moved = True
        if not moved:
            break
    return values
