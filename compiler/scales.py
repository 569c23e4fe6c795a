"""The scale of each population: how many threshold units of the chip one unit of its membrane becomes.

As large as 24-bit states (observed on calibration data, with headroom), threshold, bias and exponent
registers allow, then, within the octave below that limit, where the rounded weights come closest to the
float ones, weighted by how often their sources fire. Binary fractions that fit stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2

import numpy as np
from scipy.sparse import issparse

from snn_compile.compiler.formats import round_parts
from snn_compile.compiler.network import (
    Float,
    Network,
    Population,
    Projection,
    Weight,
    weight_values,
    with_values,
)
from snn_compile.compiler.reference import Peak, run_float
from snn_compile.targets.chip import Chip
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.integer import DECAY_BITS, DECAY_ONE, STATE_SHIFT, M, weight_step
from snn_compile.targets.program import InputPort

HEADROOM = 2.0
"""States may grow to this many times what calibration data showed before they leave 24 bits."""

SCALES_TRIED = 96

MEMBRANE_BITS = 16
"""Bits, with the sign, of a message that carries a membrane."""

SAMPLED_WEIGHTS = 1 << 16
"""Of a larger matrix, rows of about so many weights stand for all where scales are compared."""


def observe(
    network: Network, inputs: Mapping[str, InputPort], calibration: Mapping[str, Float] | None
) -> tuple[dict[str, Peak], dict[str, Float]]:
    """Return the peaks of every population's states and the mean square of every source's messages."""
    if calibration is None or network.fixed:
        ones = {p.name: np.ones(p.size) for p in network.populations}
        return _worst_case(network), ones | {p.name: np.ones(network.size(p.name)) for p in network.inputs}
    run = run_float(network, calibration, [p.name for p in network.populations])
    activity = {name: (sent**2).mean(axis=(0, 1)) for name, sent in run.messages.items()}
    activity |= {
        name: (calibration[name] ** 2).mean(axis=(0, 1)) * inputs[name].scale ** 2 for name in inputs
    }
    return dict(run.peaks), activity


def _worst_case(network: Network) -> dict[str, Peak]:
    """Return bounds of |u| and |v| when every source may fire at every step."""

    def least(decay: Float, offset: int) -> Float:
        # A slow leak may round to a slower one, or to none.
        return np.minimum(decay, np.maximum(np.rint(decay * DECAY_ONE), offset) / DECAY_ONE)

    peaks: dict[str, Peak] = {}
    graded = {p.name for p in network.populations if p.graded and p.fixed_scale is None}
    heard = graded & {e.source for e in network.projections}
    if heard:
        raise PrecisionLost(
            f"{', '.join(map(repr, sorted(heard)))}: only data shows how large a membrane or a number of "
            "spikes is sent; give calibration data (--calibrate DATA)",
            tensor=min(heard),
        )
    for p in network.populations:
        if p.fixed_scale is not None:
            peaks[p.name] = Peak(0.0, 0.0)
            continue
        drive = np.zeros(p.size) + np.abs(p.parameters["input_bias"])
        for edge in network.projections:
            if edge.target == p.name:
                drive = drive + abs(edge.weight).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = np.where(drive > 0, drive / least(p.parameters["current_decay"], 1), 0.0)
            total = u + np.abs(p.parameters["bias"])
            v = np.where(total > 0, total / least(p.parameters["voltage_decay"], 0), 0.0)
        if not np.isfinite(v).all():
            raise PrecisionLost(
                f"population {p.name!r} does not leak in {DECAY_BITS} bits, so its states have no "
                "bound; give calibration data (--calibrate DATA)",
                tensor=p.name,
            )
        peaks[p.name] = Peak(float(u.max()), float(v.max()) + float(np.abs(p.parameters["v_init"]).max()))
    return peaks


@dataclass(frozen=True)
class Sender:
    """How a leaky integrator sends its membrane: its scale, the shift, units of message per membrane."""

    scale: float
    shift: int
    unit: float


def membrane_senders(network: Network, peaks: Mapping[str, Peak], chip: Chip) -> dict[str, Sender]:
    """Scale leaky integrators that others hear by their states alone, so that their messages are known."""
    heard = {e.source for e in network.projections}
    found = {}
    for p in network.populations:
        if not p.spiking and p.name in heard:
            scale = 2.0 ** floor(log2(min(_bounds(p, peaks[p.name], chip), default=1.0)))
            top = scale * (1 << STATE_SHIFT) * HEADROOM * peaks[p.name].v
            # What was silent may still be heard one day: then every membrane has to fit a message.
            shift = max(0, ceil(log2((top or M) / (1 << (MEMBRANE_BITS - 1)))))
            found[p.name] = Sender(scale, shift, scale * (1 << STATE_SHIFT) / 2.0**shift)
    return found


def choose_scale(
    p: Population,
    arriving: Sequence[tuple[Projection, Weight]],
    peak: Peak,
    activity: Mapping[str, Float],
    chip: Chip,
    bits: int,
    split: bool,
) -> float:
    """Return S: chip threshold units per unit of the float membrane."""
    bounds = _bounds(p, peak, chip)
    largest = [float(np.abs(weight_values(w)).max()) for _, w in arriving if weight_values(w).any()]
    # The largest value that rounds onto the top of a table, at the largest exponent.
    reach = (256 - weight_step(bits, "mixed") / 2) * 2.0 ** chip.weight_exponent[1]
    bounds += [reach / w for w in largest]
    if not bounds:
        return 1.0
    limit = min(bounds)
    top = float(p.parameters["threshold"].max()) if p.spiking else 0.0
    if top > 0 and limit * top < 1:
        raise PrecisionLost(
            f"population {p.name!r}: its states are so much larger than its threshold that "
            f"the threshold would round to 0 (largest scale {limit:g})",
            tensor=p.name,
        )
    tops = [(256 - 2) * 2.0 ** -ceil(log2(254 / (w * limit))) / w for w in largest]
    candidates = [limit * 2 ** (-k / SCALES_TRIED) for k in range(SCALES_TRIED)]
    candidates += [s for s in tops if limit / 2 < s <= limit]
    candidates.append(2.0 ** floor(log2(limit)))  # loses nothing of a network made of binary fractions

    sampled = [(edge.source, *_sample(weight)) for edge, weight in arriving]

    def loss(scale: float) -> float:
        total = 0.0
        for source, weight, share in sampled:
            values = weight_values(weight)
            parts = round_parts(values * scale, bits, split, chip.weight_exponent)
            error = (sum(part.values() for part in parts) / scale - values) ** 2
            total += float((with_values(weight, error) @ activity[source]).sum()) / share
        if p.spiking:
            threshold = p.parameters["threshold"]
            total += p.size * float(np.mean((np.rint(threshold * scale) / scale - threshold) ** 2))
        return total

    return min(candidates, key=loss)


def _bounds(p: Population, peak: Peak, chip: Chip) -> list[float]:
    """Return the largest scales that states and registers of a population allow."""
    unit = 1 << STATE_SHIFT
    bias = float(np.abs(p.parameters["bias"]).max())
    v_init = float(np.abs(p.parameters["v_init"]).max())
    bounds = [(M - 1) / (unit * HEADROOM * x) for x in (peak.u, peak.v, v_init) if x > 0]
    if p.spiking and p.parameters["threshold"].max() > 0:
        bounds.append(chip.threshold_max / float(p.parameters["threshold"].max()))
    if bias > 0:
        bounds.append(chip.bias_mantissa_max * 2.0 ** chip.bias_exponent[1] / (unit * bias))
    return bounds


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
