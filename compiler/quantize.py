"""Quantize: a retimed Network becomes the chip's integers, and every tensor's error is reported.

With scale S of a population one unit of its float membrane is 64 S units of the chip's membrane. A
spike's weight w becomes the integer S w / 2**e of an 8-bit table with a shared exponent e; a graded
message of scale q contributes S w / q. Thresholds are round(S theta), biases round(64 S b) as mantissa
and exponent, decays 12 bits. `scales.py` chooses S.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.formats import (
    TensorError,
    refuse_rounding,
    round_bias,
    round_decay,
    round_parts,
    tensor_error,
)
from snn_compile.compiler.network import (
    SIGMA_DELTA,
    Float,
    Network,
    Population,
    Projection,
    Weight,
    weight_values,
    with_values,
)
from snn_compile.compiler.reference import Peak
from snn_compile.compiler.retime import RetimedNetwork
from snn_compile.compiler.scales import MEMBRANE_BITS, choose_scale, membrane_senders, observe
from snn_compile.compiler.sigma_delta import MESSAGE_BITS, MESSAGE_UNITS, input_units, integer_population
from snn_compile.targets.chip import Chip
from snn_compile.targets.errors import CompileError
from snn_compile.targets.integer import DECAY_BITS, STATE_SHIFT, M
from snn_compile.targets.population import Population as IntegerPopulation
from snn_compile.targets.program import InputPort, OutputPort
from snn_compile.targets.program import Projection as IntegerProjection
from snn_compile.targets.rule import CHOICES as RULE_CHOICES
from snn_compile.targets.weights import WeightTable

COUNT_BITS = 8
"""Bits of a message that counts several spikes in a step."""


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
    peaks, activity = observe(network, inputs, calibration)
    peaks |= {
        name: Peak(peaks[name].u * more, peaks[name].v * more) for name, more in (headroom or {}).items()
    }
    errors: list[TensorError] = []
    if calibration:
        errors += [
            _input_error(port, calibration[name]) for name, port in inputs.items() if port.kind == "graded"
        ]
    populations, projections = [], []
    senders = membrane_senders(network, peaks, chip)
    units = {p.name: p.scale for p in inputs.values()} | {n: s.unit for n, s in senders.items()}
    units |= {p.name: MESSAGE_UNITS for p in network.populations if p.model in SIGMA_DELTA}
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
            scale = choose_scale(population, arriving, peaks[population.name], activity, chip, bits, split)
        shift = own.shift if own else 0
        latency = retimed.latency[population.name]
        if population.model in SIGMA_DELTA:
            made, population_errors = integer_population(population, latency)
            scale = input_units(population)
        else:
            made, population_errors = _population(population, scale, latency, chip, shift)
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
            low, high = chip.weight_exponent
            # Large messages leave no room for sums that are shifted right afterwards.
            exponents = (0 if message_bits == MESSAGE_BITS else low, high)
            tables, error = _tables(edge, weight * scale, exponents, bits, split and not fixed, message_bits)
            if fixed and error.max_lsb:
                tables, error = _tables(edge, weight * scale, exponents, bits, True, message_bits)
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
    if "dv" not in made.parameters:
        return 0
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


def _message_bits(network: Network, inputs: Mapping[str, InputPort], edge: Projection) -> int:
    """Return how many bits a projection's messages have, 0 for spikes."""
    if edge.source in inputs:
        return inputs[edge.source].bits if inputs[edge.source].kind == "graded" else 0
    source = network.population(edge.source)
    if not source.graded:
        return 0
    if source.model in SIGMA_DELTA:
        return MESSAGE_BITS
    return COUNT_BITS if source.spiking else MEMBRANE_BITS


def _arriving(network: Network, name: str, units: Mapping[str, float]) -> list[tuple[Projection, Weight]]:
    """Return a population's projections with their weights per unit of message."""
    return [(e, e.weight / units.get(e.source, 1.0)) for e in network.projections if e.target == name]


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
    edge: Projection, weight: Weight, exponents: tuple[int, int], bits: int, split: bool, message_bits: int
) -> tuple[tuple[WeightTable, ...], TensorError]:
    exact = weight_values(weight)
    parts = round_parts(exact, bits, split, exponents)
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
