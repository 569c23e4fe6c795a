"""Quantize: a retimed Network becomes the chip's integers, and every tensor's error is reported.

With scale S of a population one unit of its float membrane is 64 S units of the chip's membrane. A
spike's weight w becomes the integer S w / 2**e of an 8-bit table with a shared exponent e; a graded
message of scale q contributes S w / q. Thresholds are round(S theta), biases round(64 S b) as mantissa
and exponent, decays 12 bits.

S is chosen per population: as large as 24-bit states (observed on calibration data, with headroom),
threshold, bias and exponent registers allow, then, within the octave below that limit, where the rounded
weights come closest to the float ones, weighted by how often their sources fire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.formats import TensorError, round_bias, round_decay, round_parts, tensor_error
from snn_compile.compiler.network import Float, Network, Population, Projection
from snn_compile.compiler.reference import Peak, run_float
from snn_compile.compiler.retime import RetimedNetwork
from snn_compile.targets import program as integer
from snn_compile.targets.chip import Chip
from snn_compile.targets.errors import CompileError, PrecisionLost
from snn_compile.targets.integer import DECAY_BITS, DECAY_ONE, STATE_SHIFT, M, weight_step

HEADROOM = 2.0
"""States may grow to this many times what calibration data showed before they leave 24 bits."""

SCALES_TRIED = 96


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """The integers of a network, the error each tensor took, and what the user should know."""

    populations: tuple[integer.Population, ...]
    projections: tuple[integer.Projection, ...]
    inputs: tuple[integer.InputPort, ...]
    outputs: tuple[integer.OutputPort, ...]
    errors: tuple[TensorError, ...]
    warnings: tuple[str, ...]

    @property
    def nodes(self) -> tuple[integer.Population | integer.InputPort, ...]:
        """Everything that can be a projection's source: populations, then inputs."""
        return (*self.populations, *self.inputs)


def quantize(
    retimed: RetimedNetwork,
    chip: Chip,
    bits: int = 8,
    input_bits: int = 8,
    split: bool = False,
    calibration: Mapping[str, Float] | None = None,
) -> QuantizedNetwork:
    """Return the integer network for `chip`.

    `split` gives positive and negative weights a table each: one bit more for each, the same synops.
    `calibration`: inputs (batch, steps, size) by port; without it inputs are taken as spikes and states
    are bounded by their worst case. Raises PrecisionLost where no scale fits, CompileError on values
    the chip has no register for.
    """
    network = retimed.network
    _refuse(network)
    warnings = (
        []
        if calibration
        else [
            "no calibration data: inputs are taken as spikes (0 or 1) and states at their worst case; "
            "--calibrate DATA gives finer scales"
        ]
    )
    inputs = {p.name: _input_port(p.name, p.shape, retimed, input_bits, calibration) for p in network.inputs}
    peaks, activity = _observe(network, inputs, calibration)
    errors: list[TensorError] = []
    if calibration:
        errors += [
            _input_error(port, calibration[name]) for name, port in inputs.items() if port.kind == "graded"
        ]
    populations, projections = [], []
    for population in network.populations:
        arriving = _arriving(network, population.name, inputs)
        scale = _scale(population, arriving, peaks[population.name], activity, chip, bits, split)
        made, population_errors = _population(population, scale, retimed.latency[population.name], chip)
        populations.append(made)
        if lost := _thresholds_lost(population, made):
            warnings.append(
                f"population {population.name!r}: {lost} threshold(s) above 0 round to 0, so those "
                "neurons fire at any membrane above 0"
            )
        errors += population_errors
        for edge, weight in arriving:
            tables, error = _tables(edge, weight * scale, chip, bits, split, inputs)
            if not any(table.weights.any() for table in tables):
                warnings.append(
                    f"projection {edge.name!r}: every weight is zero"
                    + ("" if not edge.weight.any() else " after rounding")
                )
            projections.append(
                integer.Projection(
                    edge.name, edge.source, edge.target, tables, retimed.delay_steps[edge.name]
                )
            )
            errors.append(error)
    outputs = tuple(
        integer.OutputPort(p.name, p.population, p.readout.signal, p.readout.readout, p.readout.task)
        for p in network.outputs
    )
    return QuantizedNetwork(
        tuple(populations),
        tuple(projections),
        tuple(inputs.values()),
        outputs,
        tuple(errors),
        tuple(warnings),
    )


def _thresholds_lost(p: Population, made: integer.Population) -> int:
    """Return how many thresholds are 0 only after rounding."""
    if not p.spiking:
        return 0
    return int(np.count_nonzero((made.parameters["vth"] == 0) & (p.parameters["threshold"] > 0)))


def _refuse(network: Network) -> None:
    for p in network.populations:
        if p.spiking and p.comparison != ">":
            raise CompileError(
                f"population {p.name!r} fires at v {p.comparison} threshold; the chip compares with >",
                population=p.name,
            )
        if p.spiking and float(p.parameters["threshold"].min()) < 0:
            raise CompileError(
                f"population {p.name!r}: a threshold of "
                f"{p.parameters['threshold'].min():g}; the chip holds none below 0",
                population=p.name,
            )


def _input_port(
    name: str,
    shape: tuple[int, ...],
    retimed: RetimedNetwork,
    bits: int,
    calibration: Mapping[str, Float] | None,
) -> integer.InputPort:
    """Choose how an input is encoded: spikes if the data holds only 0 and 1, else graded messages.

    Of the two scales that fill the range, the largest value on the highest message or a power of two,
    the one with the smaller error is taken: images of k/16 are exact with the second, k/255 with the
    first.
    """
    start = retimed.latency[name]
    data = calibration[name] if calibration else np.zeros((1, 1, 1))
    if np.isin(data, (0.0, 1.0)).all():
        return integer.InputPort(name, shape, start_step=start)
    top, largest = (1 << bits) - 1, float(np.abs(data).max())
    values = np.unique(np.abs(data))
    scales = [top / largest, 2.0 ** np.floor(log2(top / largest))]
    error = [float(np.mean((np.rint(values * s) / s - values) ** 2)) for s in scales]
    best = scales[1] if error[1] <= error[0] else scales[0]
    return integer.InputPort(name, shape, "graded", best, bits, bool((data < 0).any()), start)


def _observe(
    network: Network, inputs: Mapping[str, integer.InputPort], calibration: Mapping[str, Float] | None
) -> tuple[dict[str, Peak], dict[str, Float]]:
    """Return the peaks of every population's states and the mean square of every source's messages."""
    if calibration is None:
        ones = {p.name: np.ones(p.size) for p in network.populations}
        return _worst_case(network), ones | {p.name: np.ones(network.size(p.name)) for p in network.inputs}
    spiking = [p.name for p in network.populations if p.spiking]
    run = run_float(network, calibration, spiking)
    activity = {name: (run.spikes[name] != 0).mean(axis=(0, 1)) for name in spiking}
    activity |= {
        name: (calibration[name] ** 2).mean(axis=(0, 1)) * inputs[name].scale ** 2 for name in inputs
    }
    return dict(run.peaks), activity


def _worst_case(network: Network) -> dict[str, Peak]:
    """Return bounds of |u| and |v| when every source may fire at every step."""

    def least(decay: Float, offset: int) -> Float:
        # A slow leak may round to a slower one, or to none.
        return np.minimum(decay, np.maximum(np.rint(decay * DECAY_ONE), offset) / DECAY_ONE)

    peaks = {}
    for p in network.populations:
        drive = np.zeros(p.size) + np.abs(p.parameters["input_bias"])
        for edge in network.projections:
            if edge.target == p.name:
                drive = drive + np.abs(edge.weight).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = np.where(drive > 0, drive / least(p.parameters["current_decay"], 1), 0.0)
            total = u + np.abs(p.parameters["bias"])
            v = np.where(total > 0, total / least(p.parameters["voltage_decay"], 0), 0.0)
        if not np.isfinite(v).all():
            raise PrecisionLost(
                f"population {p.name!r} does not leak in {DECAY_BITS} bits, so its states have no bound; "
                "calibration data (--calibrate DATA)",
                tensor=p.name,
            )
        peaks[p.name] = Peak(float(u.max()), float(v.max()) + float(np.abs(p.parameters["v_init"]).max()))
    return peaks


def _arriving(
    network: Network, name: str, inputs: Mapping[str, integer.InputPort]
) -> list[tuple[Projection, Float]]:
    """Return a population's projections with their weights per unit of message."""
    return [
        (e, e.weight / inputs[e.source].scale if e.source in inputs else e.weight)
        for e in network.projections
        if e.target == name
    ]


def _scale(
    p: Population,
    arriving: Sequence[tuple[Projection, Float]],
    peak: Peak,
    activity: Mapping[str, Float],
    chip: Chip,
    bits: int,
    split: bool,
) -> float:
    """Return S: chip threshold units per unit of the float membrane."""
    unit = 1 << STATE_SHIFT
    bias = float(np.abs(p.parameters["bias"]).max())
    v_init = float(np.abs(p.parameters["v_init"]).max())
    bounds = [(M - 1) / (unit * HEADROOM * x) for x in (peak.u, peak.v, v_init) if x > 0]
    if p.spiking and p.parameters["threshold"].max() > 0:
        bounds.append(chip.threshold_max / float(p.parameters["threshold"].max()))
    if bias > 0:
        bounds.append(chip.bias_mantissa_max * 2.0 ** chip.bias_exponent[1] / (unit * bias))
    largest = [float(np.abs(w).max()) for _, w in arriving if w.any()]
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

    def loss(scale: float) -> float:
        total = 0.0
        for edge, weight in arriving:
            parts = round_parts(weight * scale, bits, split, chip.weight_exponent)
            error = sum(part.values() for part in parts) / scale - weight
            total += float((error**2 @ activity[edge.source]).sum())
        if p.spiking:
            threshold = p.parameters["threshold"]
            total += p.size * float(np.mean((np.rint(threshold * scale) / scale - threshold) ** 2))
        return total

    return min(candidates, key=loss)


def _population(
    p: Population, scale: float, latency: int, chip: Chip
) -> tuple[integer.Population, list[TensorError]]:
    unit = scale * (1 << STATE_SHIFT)
    du, du_error = round_decay(p.parameters["current_decay"], 1, chip, f"{p.name}.current_decay")
    dv, dv_error = round_decay(p.parameters["voltage_decay"], 0, chip, f"{p.name}.voltage_decay")
    mantissa, exponent, bias_error = round_bias(p.parameters["bias"] * unit, chip, f"{p.name}.bias")
    parameters: dict[str, npt.NDArray[Any]] = {
        "du": du,
        "dv": dv,
        "bias_mant": mantissa,
        "bias_exp": np.array([exponent]),
        "v_init": np.rint(p.parameters["v_init"] * unit).astype(np.int64),
    }
    errors = [du_error, dv_error, bias_error]
    if p.spiking:
        exact = p.parameters["threshold"] * scale
        parameters["vth"] = np.rint(exact).astype(np.int64)
        errors.append(
            tensor_error(
                f"{p.name}.threshold",
                f"{chip.threshold_bits} bits",
                exact,
                parameters["vth"].astype(np.float64),
                1.0,
            )
        )
    made = integer.Population(
        p.name, p.shape, p.model, parameters, p.reset if p.spiking else "none", latency, unit
    )
    return made, errors


def _tables(
    edge: Projection,
    exact: Float,
    chip: Chip,
    bits: int,
    split: bool,
    inputs: Mapping[str, integer.InputPort],
) -> tuple[tuple[integer.WeightTable, ...], TensorError]:
    message_bits = 0
    if edge.source in inputs and inputs[edge.source].kind == "graded":
        message_bits = inputs[edge.source].bits
    parts = round_parts(exact, bits, split, chip.weight_exponent)
    tables = tuple(
        integer.WeightTable(part.weights, part.exponent, bits, part.sign_mode, message_bits) for part in parts
    )
    text = f"{bits} bits " + " + ".join(f"{part.sign_mode}, exponent {part.exponent}" for part in parts)
    kept = np.sum([part.values() for part in parts], axis=0)
    # Last bits of the table that holds the value.
    steps = [part.step for part in parts]
    lsb = np.where(exact < 0, steps[-1], steps[0]) if len(parts) == 2 else np.array(steps[0])
    return tables, tensor_error(edge.name, text, exact, kept, lsb)


def _input_error(port: integer.InputPort, data: Float) -> TensorError:
    low, high = port.limits
    exact = data.reshape(-1) * port.scale
    kept = np.clip(np.rint(exact), low, high)
    return tensor_error(port.name, f"{port.bits} bits graded, scale {port.scale:g}", exact, kept, 1.0)
