"""The scale of each population: threshold units of the chip per unit of the float membrane.

The limit is the largest scale that the chip's state, threshold, bias and exponent registers allow; states are
those observed on calibration data with headroom, or their worst case if that is less. Within the octave below
the limit, the scale is taken at which rounded weights, thresholds and biases come closest to the float ones;
the error of a weight counts by how often its source fires. Binary fractions that fit stay exact.

A current beyond the state's width wraps around, so it never may get there; a membrane saturates. How far the
inhibited side of a membrane has to fit is a choice (`floors`), made in `calibration/calibrate.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import astuple, dataclass, field
from math import ceil, floor, log2
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse

from snn_compile.compiler.lowering.max_pool import pool_of
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
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.chips.rounding import round_bias
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.integer import weight_step

HEADROOM = 1.5
"""States may grow to this many times what calibration data showed before they overflow."""

FEW = 8
"""Samples up to which a membrane keeps all of its headroom; the rest shrinks as their square root."""

WORST_CASE_MARGIN = 1.25
"""The same factor over the worst case, for what rounding adds."""

SCALES_TRIED = 96

MEMBRANE_BITS = 16
"""Bits, with the sign, of a message that carries a membrane."""

SNAP_FROM = 256
"""Threshold units from which on scales are tried that make the threshold an integer."""

SAMPLED_WEIGHTS = 1 << 16
"""Of a larger matrix, rows of about this many weights stand for all where scales are compared."""


@dataclass(frozen=True, eq=False)
class Observation:
    """States and messages of the float network on calibration data, or its worst case without data.

    `bounds`: of every population's states, headroom included. `messages` of inputs and populations, and
    `outputs`, the first output port's signal: (batch, steps, size), None without data.
    """

    peaks: Mapping[str, Peak]
    bounds: Mapping[str, Peak]
    messages: Mapping[str, Any] | None = None
    outputs: Float | None = None
    chosen: dict[Any, float] = field(default_factory=dict)
    """Scales found so far, by everything that they depend on."""

    def rates(self) -> dict[str, Float]:
        """Return how many messages per step each neuron and input channel sends; {} without data."""
        return {
            name: np.count_nonzero(sent, axis=(0, 1)) / (sent.shape[0] * sent.shape[1])
            for name, sent in (self.messages or {}).items()
        }

    def activity(self, network: Network, units: Mapping[str, float]) -> dict[str, Float]:
        """Return the mean square of every source's messages, in the chip's units."""
        if self.messages is None:
            return {p.name: np.ones(network.size(p.name)) for p in network.nodes}
        return {
            name: np.square(sent, dtype=np.float64).mean(axis=(0, 1)) * units.get(name, 1.0) ** 2
            for name, sent in self.messages.items()
        }


def observe(network: Network, calibration: Mapping[str, Float] | None, chip: Chip) -> Observation:
    """Run the float network on calibration inputs (batch, steps, size) by port, or bound its states."""
    worst = _worst_case(network, chip.formats)
    if calibration is None or network.fixed:
        _refuse_unbounded(network, worst, chip.formats)
        return Observation(worst, {name: _times(peak, HEADROOM) for name, peak in worst.items()})
    port = network.outputs[0]
    membrane = [f"{port.population}.v"] if port.readout.signal == "membrane" else []
    run = run_float(network, calibration, [p.name for p in network.populations], membrane)
    messages = {
        name: sent.astype(np.uint8) if np.isin(sent, (0.0, 1.0)).all() else sent
        for name, sent in {**run.messages, **calibration}.items()
    }
    binary = {name for name, sent in messages.items() if sent.dtype == np.uint8}
    bounds, samples = {}, len(next(iter(calibration.values())))
    for name, peak in run.peaks.items():
        seen, sources = (
            _seen(network.population(name), peak, samples),
            {e.source for e in network.projections if e.target == name},
        )
        most = _times(worst[name], WORST_CASE_MARGIN)
        if sources <= binary:
            seen = Peak(*(min(a, b) for a, b in zip(astuple(seen), astuple(most), strict=True)))
        bounds[name] = seen
    outputs = run.states[membrane[0]] if membrane else run.messages[port.population]
    return Observation(run.peaks, bounds, messages, outputs)


def _seen(p: Population, peak: Peak, samples: int) -> Peak:
    """Return observed peaks with headroom: more samples leave less to be seen, and a membrane saturates."""
    most = _times(peak, HEADROOM)
    if not p.spiking:
        return most
    room = 1 + (HEADROOM - 1) * min(1.0, (FEW / samples) ** 0.5)
    return Peak(most.u, peak.v * room, peak.v_high * room)


def _times(peak: Peak, factor: float) -> Peak:
    return Peak(peak.u * factor, peak.v * factor, peak.v_high * factor)


def _worst_case(network: Network, formats: Formats) -> dict[str, Peak]:
    """Return bounds of |u| and |v| when every source may spike at every step; without a leak infinite."""
    peaks: dict[str, Peak] = {}
    sent = _largest_relayed(network)
    for p in network.populations:
        if p.fixed_scale is not None:
            peaks[p.name] = Peak(0.0, 0.0, 0.0)
            continue
        drive = np.zeros(p.size) + np.abs(p.parameters["input_bias"])
        with np.errstate(over="ignore"):
            for edge in network.projections:
                if edge.target == p.name and edge.port == 0:
                    drive = drive + abs(edge.weight).sum(axis=1) * sent.get(edge.source, 1.0)
        peaks[p.name] = p.kind.bound(p, drive, formats)
    return peaks


def _largest_relayed(network: Network) -> dict[str, float]:
    """Return the largest number that each relay sends when every source may send 1 at every step.

    A winner of a tournament is one of the sums that it compares, and a level holds differences of two.
    """
    found: dict[str, float] = {}
    for p in network.relays:
        incoming = network.incoming(p.name)
        if (pool := pool_of(p.name, incoming)) in found:
            found[p.name] = found[pool] * (1 if p.name == pool.removesuffix(".in") else 2)
            continue
        drive = np.zeros(p.size) + np.abs(p.parameters["input_bias"])
        for edge in incoming:
            drive = drive + abs(edge.weight).sum(axis=1) * found.get(edge.source, 1.0)
        found[p.name] = float(drive.max())
    return found


def _refuse_unbounded(network: Network, worst: Mapping[str, Peak], formats: Formats) -> None:
    # What sends a state of liquid neurons sends a bounded one.
    open_ended = [p for p in network.populations if p.graded and not (p.kind.sends_state or p.kind.relays)]
    graded = {p.name for p in open_ended if p.fixed_scale is None}
    if senders := graded & {e.source for e in network.projections}:
        raise PrecisionLost(
            f"{', '.join(map(repr, sorted(senders)))}: only data shows how large a membrane or a number of "
            "spikes is sent; give calibration data (--calibrate DATA)",
            tensor=min(senders),
        )
    for name, peak in worst.items():
        if not np.isfinite(peak.v):
            raise PrecisionLost(
                f"population {name!r} does not leak in {formats.decay_bits} bits, so its states have no "
                "bound; give calibration data (--calibrate DATA)",
                tensor=name,
            )


@dataclass(frozen=True)
class Sender:
    """How a leaky integrator sends its membrane: scale, right shift, message units per unit of membrane."""

    scale: float
    shift: int
    unit: float


def membrane_senders(network: Network, bounds: Mapping[str, Peak], chip: Chip) -> dict[str, Sender]:
    """Scale the leaky integrators that send messages by their states alone, so that these are known."""
    sources = {e.source for e in network.projections}
    unit, found = chip.formats.threshold_unit, {}
    for p in network.populations:
        if not p.spiking and p.name in sources and not (p.kind.sends_state or p.kind.relays):
            scale = 2.0 ** floor(log2(min(largest_scales(p, bounds[p.name], chip), default=1.0)))
            top = scale * unit * bounds[p.name].v
            # A membrane that stayed 0 on the data may still be sent: then every value has to fit a message.
            shift = max(0, ceil(log2((top or chip.formats.state_half) / (1 << (MEMBRANE_BITS - 1)))))
            found[p.name] = Sender(scale, shift, scale * unit / 2.0**shift)
    return found


def choose_scale(
    p: Population,
    incoming: Sequence[tuple[Projection, Weight]],
    bound: Peak,
    activity: Mapping[str, Float],
    chip: Chip,
    formats: Mapping[str, TableFormat],
    graded: Set[str],
    seen: bool = True,
    message: float | None = None,
) -> float:
    """Return the scale S: threshold units of the chip per unit of the float membrane.

    `formats` by projection; `graded`: sources whose messages are numbers; `seen`: whether `bound` was
    observed on data, not the worst case; `message`: what a relay's message weighs, of which S is then a power
    of two, so that a shift expresses it.
    """
    bounds = largest_scales(p, bound, chip)
    spans = [
        (float(np.abs(weight_values(w)).max()), weight_step(formats[e.name].bits, "mixed"))
        for e, w in incoming
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
    if message is not None:
        return 2.0 ** floor(log2(limit * message)) / message
    sampled = [(edge, *_sample(weight)) for edge, weight in incoming]

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
    """Return the summed squared error of a population's thresholds and of the values its biases settle at."""
    unit, total = scale * chip.formats.threshold_unit, 0.0
    if p.spiking:
        threshold = p.parameters["threshold"]
        total += p.size * float(np.mean((np.rint(threshold * scale) / scale - threshold) ** 2))
    if p.parameters.get("bias", np.zeros(1)).any():
        mantissa, exponent, _ = round_bias(p.parameters["bias"] * unit, chip, "")
        error = mantissa * 2.0**exponent / unit - p.parameters["bias"]
        settled = error / np.maximum(p.parameters["voltage_decay"], 1 / chip.formats.decay_one)
        total += p.size * float(np.mean(settled**2))
    return total


def importance(weight: Weight, activity: Float) -> Float:
    """Return the weight of each stored value's squared error: how much its source sends.

    A source that is silent on the data keeps a small weight, so that its connections are not given up.
    """
    own = activity + 1e-3 * max(float(activity.mean()), 1e-300)
    return own[weight.indices] if issparse(weight) else own[None, :]


def rows(weight: Weight) -> npt.NDArray[np.int64] | None:
    """Return the target of each stored value of a sparse weight; None: the first axis of an array."""
    return np.repeat(np.arange(weight.shape[0]), np.diff(weight.indptr)) if issparse(weight) else None


def largest_scales(p: Population, bound: Peak, chip: Chip) -> list[float]:
    """Return the largest scales that states and registers of a population allow."""
    unit = chip.formats.threshold_unit
    bias, v_init = (float(np.abs(p.parameters.get(key, 0.0)).max()) for key in ("bias", "v_init"))
    limits = [chip.formats.state_max / (unit * x) for x in (bound.u, bound.v, v_init) if x > 0]
    if "threshold" in p.parameters and p.parameters["threshold"].max() > 0:
        limits.append(chip.formats.threshold_max / float(p.parameters["threshold"].max()))
    if bias > 0:
        limits.append(chip.formats.bias_mantissa_max * 2.0 ** chip.formats.bias_exponent[1] / (unit * bias))
    return limits


def _sample(weight: Weight) -> tuple[Weight, float]:
    """Return rows of a large matrix that stand for all, its extremes among them, and their fraction."""
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
