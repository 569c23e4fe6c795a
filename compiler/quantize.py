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
from scipy.sparse import issparse

from snn_compile.compiler.formats import (
    TensorError,
    refuse_rounding,
    round_bias,
    round_decay,
    round_parts,
    tensor_error,
)
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
from snn_compile.compiler.retime import RetimedNetwork
from snn_compile.targets.chip import Chip
from snn_compile.targets.errors import CompileError, PrecisionLost
from snn_compile.targets.integer import DECAY_BITS, DECAY_ONE, STATE_SHIFT, M, weight_step
from snn_compile.targets.population import Population as IntegerPopulation
from snn_compile.targets.program import InputPort, OutputPort
from snn_compile.targets.program import Projection as IntegerProjection
from snn_compile.targets.rule import CHOICES as RULE_CHOICES
from snn_compile.targets.weights import WeightTable

HEADROOM = 2.0
"""States may grow to this many times what calibration data showed before they leave 24 bits."""

SCALES_TRIED = 96

COUNT_BITS = 8
"""Bits of a message that counts several spikes in a step."""

MEMBRANE_BITS = 16
"""Bits, with the sign, of a message that carries a membrane."""

SAMPLED_WEIGHTS = 1 << 16
"""Of a larger matrix, rows of about so many weights stand for all where scales are compared."""


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """The integers of a network, the error each tensor took, and what the user should know."""

    populations: tuple[IntegerPopulation, ...]
    projections: tuple[IntegerProjection, ...]
    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]
    errors: tuple[TensorError, ...]
    warnings: tuple[str, ...]

    @property
    def nodes(self) -> tuple[IntegerPopulation | InputPort, ...]:
        """Everything that can be a projection's source: populations, then inputs."""
        return (*self.populations, *self.inputs)


def quantize(
    retimed: RetimedNetwork,
    chip: Chip,
    bits: int = 8,
    input_bits: int = 8,
    split: bool = False,
    calibration: Mapping[str, Float] | None = None,
    headroom: Mapping[str, float] | None = None,
) -> QuantizedNetwork:
    """Return the integer network for `chip`.

    `split` gives positive and negative weights a table each: one bit more for each, the same synops.
    What arrives at a population of fixed scale is split only where one table does not hold it exactly.
    `calibration`: inputs (batch, steps, size) by port; without it inputs are taken as spikes and states
    are bounded by their worst case. `headroom` multiplies that of single populations. Raises
    PrecisionLost where no scale fits, CompileError on values the chip has no register for.
    """
    network = retimed.network
    _refuse(network)
    warnings = (
        []
        if calibration or network.fixed
        else [
            "no calibration data: inputs are taken as spikes (0 or 1) and states at their worst case; "
            "--calibrate DATA gives finer scales"
        ]
    )
    warnings += [
        f"projection {name!r}: {steps} step(s) of delay added, so results are not the network's any more"
        for name, steps in retimed.relaxed.items()
    ]
    inputs = {
        p.name: _input_port(p.name, p.shape, retimed, input_bits, calibration, chip) for p in network.inputs
    }
    peaks, activity = _observe(network, inputs, calibration)
    peaks |= {
        name: Peak(peaks[name].u * more, peaks[name].v * more) for name, more in (headroom or {}).items()
    }
    errors: list[TensorError] = []
    if calibration:
        errors += [
            _input_error(port, calibration[name]) for name, port in inputs.items() if port.kind == "graded"
        ]
    populations, projections = [], []
    senders = _membrane_senders(network, peaks, chip)
    units = {p.name: p.scale for p in inputs.values()} | {n: s.unit for n, s in senders.items()}
    for name, sender in senders.items():
        activity[name] = activity[name] * sender.unit**2
    for population in network.populations:
        arriving = _arriving(network, population.name, units)
        own = senders.get(population.name)
        fixed = population.fixed_scale is not None
        if own:
            scale = own.scale
        elif population.fixed_scale is not None:
            scale = population.fixed_scale
        else:
            scale = _scale(population, arriving, peaks[population.name], activity, chip, bits, split)
        shift = own.shift if own else 0
        made, population_errors = _population(
            population, scale, retimed.latency[population.name], chip, shift
        )
        populations.append(made)
        if lost := _thresholds_lost(population, made):
            warnings.append(
                f"population {population.name!r}: {lost} threshold(s) above 0 round to 0, so those "
                "neurons fire at any membrane above 0"
            )
        if lost := _leaks_lost(population, made):
            warnings.append(
                f"population {population.name!r}: {lost} leak(s) of the membrane round to 0 in {DECAY_BITS} "
                "bits, so those neurons do not forget"
            )
        if fixed:
            refuse_rounding(population_errors, population.name)
        errors += population_errors
        for edge, weight in arriving:
            message_bits = _message_bits(network, inputs, edge)
            tables, error = _tables(edge, weight * scale, chip, bits, split and not fixed, message_bits)
            if fixed and error.max_lsb:
                tables, error = _tables(edge, weight * scale, chip, bits, True, message_bits)
                refuse_rounding([error], population.name)
            if not any(table.synapses for table in tables):
                warnings.append(
                    f"projection {edge.name!r}: every weight is zero"
                    + ("" if not edge.values.any() else " after rounding")
                )
            projections.append(
                IntegerProjection(edge.name, edge.source, edge.target, tables, retimed.delay_steps[edge.name])
            )
            errors.append(error)
    outputs = tuple(
        OutputPort(p.name, p.population, p.readout.signal, p.readout.readout, p.readout.task)
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


def _thresholds_lost(p: Population, made: IntegerPopulation) -> int:
    """Return how many thresholds are 0 only after rounding."""
    if not p.spiking:
        return 0
    return int(np.count_nonzero((made.parameters["vth"] == 0) & (p.parameters["threshold"] > 0)))


def _leaks_lost(p: Population, made: IntegerPopulation) -> int:
    """Return how many membranes stop leaking only after rounding."""
    return int(np.count_nonzero((made.parameters["dv"] == 0) & (p.parameters["voltage_decay"] > 0)))


def _refuse(network: Network) -> None:
    for p in network.populations:
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
    chip: Chip,
) -> InputPort:
    """Choose how an input is encoded: spikes if the data holds only 0 and 1, else graded messages.

    Of the two scales that fill the range, the largest value on the highest message or a power of two,
    the one with the smaller error is taken: images of k/16 are exact with the second, k/255 with the
    first. Only a power of two leaves weights that are integers already exact.
    """
    start = retimed.latency[name]
    data = calibration[name] if calibration else np.zeros((1, 1, 1))
    if np.isin(data, (0.0, 1.0)).all():
        return InputPort(name, shape, start_step=start)
    top, largest = (1 << bits) - 1, float(np.abs(data).max())
    values = np.unique(np.abs(data))
    scales = [top / largest, 2.0 ** np.floor(log2(top / largest))]
    error = [float(np.mean((np.rint(values * s) / s - values) ** 2)) for s in scales]
    best = scales[1] if error[1] <= error[0] else scales[0]
    targets = [retimed.network.population(e.target) for e in retimed.network.projections if e.source == name]
    if any(p.fixed_scale is not None for p in targets):
        best = min(scales[1], 2.0 ** -chip.weight_exponent[0])
    return InputPort(name, shape, "graded", best, bits, bool((data < 0).any()), start)


def _observe(
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
    heard = {p.name for p in network.populations if p.graded} & {e.source for e in network.projections}
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
class _Sender:
    """How a leaky integrator sends its membrane: its scale, the shift, units of message per membrane."""

    scale: float
    shift: int
    unit: float


def _membrane_senders(network: Network, peaks: Mapping[str, Peak], chip: Chip) -> dict[str, _Sender]:
    """Scale leaky integrators that others hear by their states alone, so that their messages are known."""
    heard = {e.source for e in network.projections}
    found = {}
    for p in network.populations:
        if not p.spiking and p.name in heard:
            scale = min(_bounds(p, peaks[p.name], chip), default=1.0)
            top = scale * (1 << STATE_SHIFT) * HEADROOM * max(peaks[p.name].v, 1e-300)
            shift = max(0, ceil(log2(top / (1 << (MEMBRANE_BITS - 1)))))
            found[p.name] = _Sender(scale, shift, scale * (1 << STATE_SHIFT) / 2.0**shift)
    return found


def _message_bits(network: Network, inputs: Mapping[str, InputPort], edge: Projection) -> int:
    """Return how many bits a projection's messages have, 0 for spikes."""
    if edge.source in inputs:
        return inputs[edge.source].bits if inputs[edge.source].kind == "graded" else 0
    source = network.population(edge.source)
    if not source.graded:
        return 0
    return COUNT_BITS if source.spiking else MEMBRANE_BITS


def _arriving(network: Network, name: str, units: Mapping[str, float]) -> list[tuple[Projection, Weight]]:
    """Return a population's projections with their weights per unit of message."""
    return [(e, e.weight / units.get(e.source, 1.0)) for e in network.projections if e.target == name]


def _scale(
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


def _population(
    p: Population, scale: float, latency: int, chip: Chip, shift: int
) -> tuple[IntegerPopulation, list[TensorError]]:
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
    if not p.spiking:
        parameters["message_shift"] = np.array([shift])
    else:
        lowest = np.maximum(p.parameters["v_min"] * unit, -(M - 1))
        parameters["v_min"] = np.rint(lowest).astype(np.int64)
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
    rule = {item: getattr(p, item) for item in RULE_CHOICES}
    if not p.spiking:
        rule["reset"] = "none"
    made = IntegerPopulation(p.name, p.shape, p.model, parameters, start_step=latency, scale=unit, **rule)
    return made, errors


def _tables(
    edge: Projection, weight: Weight, chip: Chip, bits: int, split: bool, message_bits: int
) -> tuple[tuple[WeightTable, ...], TensorError]:
    exact = weight_values(weight)
    parts = round_parts(exact, bits, split, chip.weight_exponent)
    tables = tuple(
        WeightTable(with_values(weight, part.weights), part.exponent, bits, part.sign_mode, message_bits)
        for part in parts
    )
    text = f"{bits} bits " + " + ".join(f"{part.sign_mode}, exponent {part.exponent}" for part in parts)
    kept = np.sum([part.values() for part in parts], axis=0)
    # Last bits of the table that holds the value.
    steps = [part.step for part in parts]
    lsb = np.where(exact < 0, steps[-1], steps[0]) if len(parts) == 2 else np.array(steps[0])
    return tables, tensor_error(edge.name, text, exact, kept, lsb)


def _input_error(port: InputPort, data: Float) -> TensorError:
    low, high = port.limits
    exact = data.reshape(-1) * port.scale
    kept = np.clip(np.rint(exact), low, high)
    return tensor_error(port.name, f"{port.bits} bits graded, scale {port.scale:g}", exact, kept, 1.0)
