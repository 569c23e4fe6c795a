"""The scale of each population: how many threshold units of the chip one unit of its membrane becomes.

As large as 24-bit states (observed on calibration data with headroom, or at worst if that is less),
threshold, bias and exponent registers allow, then, within the octave below that limit, where the rounded
weights, thresholds and biases come closest to the float ones, weights weighed by how often their sources
fire. Binary fractions that fit stay exact.

A current that leaves 24 bits wraps around, so it never may; a membrane saturates. How far the inhibited
side of a membrane has to fit is a choice (`floors`), made in `calibration/calibrate.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import astuple, dataclass, field
from math import ceil, floor, log2
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse

from snn_compile.compiler.network import (
    Float,
    Network,
    Population,
    Projection,
    Weight,
    weight_values,
    with_values,
)
from snn_compile.compiler.neurons.base import Peak
from snn_compile.compiler.quantization.weight_tables import TableFormat, split_weights
from snn_compile.compiler.reference import run_float
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.rounding import round_bias
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.integer import DECAY_BITS, DECAY_ONE, STATE_SHIFT, M, weight_step

HEADROOM = 1.5
"""States may grow to this many times what calibration data showed before they leave 24 bits."""

WORST_CASE_MARGIN = 1.25
"""The same over the worst case, for what rounding adds."""

SCALES_TRIED = 96

MEMBRANE_BITS = 16
"""Bits, with the sign, of a message that carries a membrane."""

SNAP_FROM = 256
"""Threshold units from which scales are tried at which the threshold is whole."""

SAMPLED_WEIGHTS = 1 << 16
"""Of a larger matrix, rows of about so many weights stand for all where scales are compared."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What the float network did on calibration data, or could do at worst where there is none.

    `bounds`: of every population's states, headroom included. `messages`: what inputs and populations
    sent, (batch, steps, size); `outputs`: the first output port's signal, alike. None without data.
    """

    peaks: Mapping[str, Peak]
    bounds: Mapping[str, Peak]
    messages: Mapping[str, Any] | None = None
    outputs: Float | None = None
    chosen: dict[Any, float] = field(default_factory=dict)
    """Scales that were searched already, by everything they depend on."""

    def activity(self, network: Network, units: Mapping[str, float]) -> dict[str, Float]:
        """Return the mean square of every source's messages, in the chip's units."""
        if self.messages is None:
            return {p.name: np.ones(network.size(p.name)) for p in network.nodes}
        return {
            name: np.square(sent, dtype=np.float64).mean(axis=(0, 1)) * units.get(name, 1.0) ** 2
            for name, sent in self.messages.items()
        }


def observe(network: Network, calibration: Mapping[str, Float] | None) -> Observation:
    """Run the float network on calibration inputs (batch, steps, size) by port, or bound its states."""
    worst = _worst_case(network)
    if calibration is None or network.fixed:
        _refuse_unbounded(network, worst)
        return Observation(worst, {name: _times(peak, HEADROOM) for name, peak in worst.items()})
    port = network.outputs[0]
    membrane = [f"{port.population}.v"] if port.readout.signal == "membrane" else []
    run = run_float(network, calibration, [p.name for p in network.populations], membrane)
    messages = {
        name: sent.astype(np.uint8) if np.isin(sent, (0.0, 1.0)).all() else sent
        for name, sent in {**run.messages, **calibration}.items()
    }
    binary = {name for name, sent in messages.items() if sent.dtype == np.uint8}
    bounds = {}
    for name, peak in run.peaks.items():
        seen, sources = _times(peak, HEADROOM), {e.source for e in network.projections if e.target == name}
        most = _times(worst[name], WORST_CASE_MARGIN)
        if sources <= binary:
            seen = Peak(*(min(a, b) for a, b in zip(astuple(seen), astuple(most), strict=True)))
        bounds[name] = seen
    outputs = run.states[membrane[0]] if membrane else run.messages[port.population]
    return Observation(run.peaks, bounds, messages, outputs)


def _times(peak: Peak, factor: float) -> Peak:
    return Peak(peak.u * factor, peak.v * factor, peak.v_high * factor)


def _worst_case(network: Network) -> dict[str, Peak]:
    """Return bounds of |u| and |v| when every source may spike at every step; without a leak infinite."""

    def least(decay: Float, offset: int) -> Float:
        # A slow leak may round to a slower one, or to none.
        return np.minimum(decay, np.maximum(np.rint(decay * DECAY_ONE), offset) / DECAY_ONE)

    peaks: dict[str, Peak] = {}
    for p in network.populations:
        if p.fixed_scale is not None:
            peaks[p.name] = Peak(0.0, 0.0, 0.0)
            continue
        drive = np.zeros(p.size) + np.abs(p.parameters["input_bias"])
        if p.kind.bound:
            for edge in network.projections:
                if edge.target == p.name:
                    drive = drive + abs(edge.weight).sum(axis=1)
            top = float(p.kind.bound(p, drive).max())
            peaks[p.name] = Peak(float(drive.max()), top, top)
            continue
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for edge in network.projections:
                if edge.target == p.name:
                    drive = drive + abs(edge.weight).sum(axis=1)
            u = np.where(drive > 0, drive / least(p.parameters["current_decay"], 1), 0.0)
            total = u + np.abs(p.parameters["bias"])
            v = np.where(total > 0, total / least(p.parameters["voltage_decay"], 0), 0.0)
        top = float(v.max()) + float(np.abs(p.parameters["v_init"]).max())
        peaks[p.name] = Peak(float(u.max()), top, top)
    return peaks


def _refuse_unbounded(network: Network, worst: Mapping[str, Peak]) -> None:
    graded = {p.name for p in network.populations if p.graded and p.fixed_scale is None}
    if heard := graded & {e.source for e in network.projections}:
        raise PrecisionLost(
            f"{', '.join(map(repr, sorted(heard)))}: only data shows how large a membrane or a number of "
            "spikes is sent; give calibration data (--calibrate DATA)",
            tensor=min(heard),
        )
    for name, peak in worst.items():
        if not np.isfinite(peak.v):
            raise PrecisionLost(
                f"population {name!r} does not leak in {DECAY_BITS} bits, so its states have no "
                "bound; give calibration data (--calibrate DATA)",
                tensor=name,
            )


@dataclass(frozen=True)
class Sender:
    """How a leaky integrator sends its membrane: its scale, the shift, units of message per membrane."""

    scale: float
    shift: int
    unit: float


def membrane_senders(network: Network, bounds: Mapping[str, Peak], chip: Chip) -> dict[str, Sender]:
    """Scale leaky integrators that others hear by their states alone, so that their messages are known."""
    heard = {e.source for e in network.projections}
    found = {}
    for p in network.populations:
        if not p.spiking and p.name in heard:
            scale = 2.0 ** floor(log2(min(largest_scales(p, bounds[p.name], chip), default=1.0)))
            top = scale * (1 << STATE_SHIFT) * bounds[p.name].v
            # What was silent may still be heard one day: then every membrane has to fit a message.
            shift = max(0, ceil(log2((top or M) / (1 << (MEMBRANE_BITS - 1)))))
            found[p.name] = Sender(scale, shift, scale * (1 << STATE_SHIFT) / 2.0**shift)
    return found


def choose_scale(
    p: Population,
    arriving: Sequence[tuple[Projection, Weight]],
    bound: Peak,
    activity: Mapping[str, Float],
    chip: Chip,
    formats: Mapping[str, TableFormat],
    graded: Set[str],
    seen: bool = True,
) -> float:
    """Return S: chip threshold units per unit of the float membrane.

    `formats` by projection; `graded`: sources whose messages are numbers; `seen`: whether `bound` is of data,
    not of the worst case.
    """
    bounds = largest_scales(p, bound, chip)
    spans = [
        (float(np.abs(weight_values(w)).max()), weight_step(formats[e.name].bits, "mixed"))
        for e, w in arriving
        if weight_values(w).any()
    ]
    # The largest value that rounds onto the top of a table, at the largest exponent.
    bounds += [(256 - step / 2) * 2.0 ** chip.formats.weight_exponent[1] / w for w, step in spans]
    if not bounds:
        return 1.0
    limit = min(bounds)
    top = float(p.parameters["threshold"].max()) if p.spiking else 0.0
    if top > 0 and limit * top < 1:
        way = "a smaller gain of its input" if seen else "calibration data (--calibrate DATA)"
        raise PrecisionLost(
            f"population {p.name!r}: its states are {'' if seen else 'at worst '}so much larger than its "
            f"threshold that the threshold would round to 0 (largest scale {limit:g}); give {way}",
            tensor=p.name,
        )
    sampled = [(edge, *_sample(weight)) for edge, weight in arriving]

    def loss(scale: float) -> float:
        total = _register_loss(p, scale, chip)
        for edge, weight, share in sampled:
            values = weight_values(weight)
            parts = split_weights(
                values * scale,
                formats[edge.name],
                chip.formats.weight_exponent,
                importance(weight, activity[edge.source]),
                rows(weight),
                edge.source in graded,
            )
            error = (parts.values() / scale - values) ** 2
            total += float((with_values(weight, error) @ activity[edge.source]).sum()) / share
        return total

    return min(_candidate_scales(limit, top, [w for w, _ in spans]), key=loss)


def _candidate_scales(limit: float, threshold: float, largest: Sequence[float]) -> list[float]:
    """Return scales within the octave below `limit`, the preferred one among equals first.

    `threshold`: the largest one; `largest`: the largest weight of each projection.
    """
    found = [limit * 2 ** (-k / SCALES_TRIED) for k in range(SCALES_TRIED)]
    if limit * threshold >= SNAP_FROM:
        # The largest threshold, often that of all neurons, is then exact.
        found = [floor(s * threshold) / threshold for s in found]
    # At these the largest weight fills its table.
    tops = [(256 - 2) * 2.0 ** -ceil(log2(254 / (w * limit))) / w for w in largest]
    # A power of two comes first: binary fractions stay exact under it, also in sums.
    return [2.0 ** floor(log2(limit)), *found, *(s for s in tops if limit / 2 < s <= limit)]


def _register_loss(p: Population, scale: float, chip: Chip) -> float:
    """Return the squared error of a population's thresholds and of where its biases settle, summed."""
    unit, total = scale * (1 << STATE_SHIFT), 0.0
    if p.spiking:
        threshold = p.parameters["threshold"]
        total += p.size * float(np.mean((np.rint(threshold * scale) / scale - threshold) ** 2))
    if p.parameters.get("bias", np.zeros(1)).any():
        mantissa, exponent, _ = round_bias(p.parameters["bias"] * unit, chip, "")
        error = mantissa * 2.0**exponent / unit - p.parameters["bias"]
        settled = error / np.maximum(p.parameters["voltage_decay"], 1 / DECAY_ONE)
        total += p.size * float(np.mean(settled**2))
    return total


def importance(weight: Weight, activity: Float) -> Float:
    """Return what each stored value's squared error weighs: how much its source sends.

    A source that the data leaves silent keeps a small share, so that its weights are not given up.
    """
    own = activity + 1e-3 * max(float(activity.mean()), 1e-300)
    return own[weight.indices] if issparse(weight) else own[None, :]


def rows(weight: Weight) -> npt.NDArray[np.int64] | None:
    """Return the target of each stored value of a sparse weight; None: the first axis of an array."""
    return np.repeat(np.arange(weight.shape[0]), np.diff(weight.indptr)) if issparse(weight) else None


def largest_scales(p: Population, bound: Peak, chip: Chip) -> list[float]:
    """Return the largest scales that states and registers of a population allow."""
    unit = 1 << STATE_SHIFT
    bias, v_init = (float(np.abs(p.parameters.get(key, 0.0)).max()) for key in ("bias", "v_init"))
    limits = [(M - 1) / (unit * x) for x in (bound.u, bound.v, v_init) if x > 0]
    if p.spiking and p.parameters["threshold"].max() > 0:
        limits.append(chip.formats.threshold_max / float(p.parameters["threshold"].max()))
    if bias > 0:
        limits.append(chip.formats.bias_mantissa_max * 2.0 ** chip.formats.bias_exponent[1] / (unit * bias))
    return limits


def _sample(weight: Weight) -> tuple[Weight, float]:
    """Return rows of a large matrix that stand for all, its extremes among them, and their share."""
    values = weight_values(weight)
    count = max(SAMPLED_WEIGHTS * weight.shape[0] // max(values.size, 1), 1)
    if weight.shape[0] <= count:
        return weight, 1.0
    if issparse(weight):
        row = np.repeat(np.arange(weight.shape[0]), np.diff(weight.indptr))
        extremes = [int(row[values.argmax()]), int(row[values.argmin()])]
    else:
        extremes = [int(weight.argmax()) // weight.shape[1], int(weight.argmin()) // weight.shape[1]]
    rows = np.unique([*np.linspace(0, weight.shape[0] - 1, count).astype(int), *extremes])
    return weight[rows], len(rows) / weight.shape[0]
