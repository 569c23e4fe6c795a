"""Quantize: a retimed Network becomes the chip's integers, and every tensor's error is reported.

With scale S of a population one unit of its float membrane is 64 S units of the chip's membrane. A
spike's weight w becomes the integer S w / 2**e of an 8-bit table with a shared exponent e; a graded
message of scale q contributes S w / q. Thresholds are round(S theta), biases round(64 S b) as mantissa
and exponent, decays 12 bits. `scales.py` chooses S.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, replace

from snn_compile.compiler.lowering.retime import RetimedNetwork
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
from snn_compile.compiler.neurons.sigma_delta import MESSAGE_BITS
from snn_compile.compiler.quantization.inputs import input_error, input_port, whole
from snn_compile.compiler.quantization.registers import integer_population, register_warnings
from snn_compile.compiler.quantization.rounding import affordable, moments, reconstructed
from snn_compile.compiler.quantization.scales import (
    MEMBRANE_BITS,
    Observation,
    Sender,
    choose_scale,
    importance,
    membrane_senders,
    observe,
    rows,
)
from snn_compile.compiler.quantization.weight_tables import SplitWeights, TableFormat, split_weights
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.rounding import TensorError, refuse_rounding, tensor_error
from snn_compile.targets.errors import CompileError
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.program import InputPort, OutputPort
from snn_compile.targets.program.program import Projection as IntegerProjection
from snn_compile.targets.program.weights import WeightTable

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


@dataclass(frozen=True)
class Plan:
    """What a quantization is asked for.

    `formats`: of single projections, `format` of all others. `headroom` multiplies the bounds of single
    populations' states. `floors`: the largest inhibited membrane that has to fit, in the float network's
    unit; below it v saturates. Populations without one keep all of v. `rounding`: "nearest", or
    "reconstruct" where there is data and a population is small enough.
    """

    format: TableFormat = TableFormat()
    formats: Mapping[str, TableFormat] = field(default_factory=dict)
    headroom: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    rounding: str = "nearest"

    def of(self, projection: str) -> TableFormat:
        """Return the format of a projection."""
        return self.formats.get(projection, self.format)

    def title(self) -> str:
        """Say the formats in short, the most common first: "8 bits sign (2), 4 bits (1)"."""
        forms = list(self.formats.values()) or [self.format]
        names = [
            f"{f.bits} bit" + "s" * (f.bits > 1) + ("" if f.tables == "one" else f" {f.tables}")
            for f in forms
        ]
        counted = sorted({n: names.count(n) for n in names}.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{name} ({count})" if len(counted) > 1 else name for name, count in counted)

    def bound(self, name: str, seen: Peak) -> Peak:
        """Return what has to fit of a population's states."""
        more = self.headroom.get(name, 1.0)
        low = max(self.floors[name], seen.v_high * more) if name in self.floors else seen.v * more
        return Peak(seen.u * more, low, seen.v_high * more)


def quantize(
    retimed: RetimedNetwork,
    chip: Chip,
    plan: Plan | None = None,
    input_bits: int = 8,
    calibration: Mapping[str, Float] | None = None,
    observed: Observation | None = None,
) -> QuantizedNetwork:
    """Return the integer network for `chip`.

    What arrives at a population of fixed scale is split only where one table does not hold it exactly.
    `calibration`: inputs (batch, steps, size) by port; without it inputs are taken as spikes and states
    are bounded by their worst case. `observed`: what `observe` returns for it, if it is known already.
    Raises PrecisionLost where no scale fits, CompileError on values the chip has no register for.
    """
    network, plan = retimed.network, plan or Plan()
    _refuse(network)
    observed = observed or observe(network, calibration)
    warnings = _general_warnings(retimed, calibration)
    inputs = {
        p.name: input_port(p.name, p.shape, retimed, input_bits, calibration, chip) for p in network.inputs
    }
    bounds = {name: plan.bound(name, bound) for name, bound in observed.bounds.items()}
    errors: list[TensorError] = []
    if calibration:
        errors += [
            input_error(port, calibration[name]) for name, port in inputs.items() if port.kind == "graded"
        ]
    populations, projections = [], []
    senders = membrane_senders(network, bounds, chip)
    units = {p.name: p.scale for p in inputs.values()} | {n: s.unit for n, s in senders.items()}
    units |= {p.name: p.kind.message_units for p in network.populations if p.kind.message_units}
    activity = observed.activity(network, units)
    graded = {p.name for p in network.populations if p.graded}
    graded |= {name for name, port in inputs.items() if port.kind == "graded"}
    heard = {edge.name: _message_bits(network, inputs, edge) for edge in network.projections}
    # Large messages leave no room for sums that are shifted right afterwards.
    low, high = chip.formats.weight_exponent
    exponents = {name: (0 if bits == MESSAGE_BITS else low, high) for name, bits in heard.items()}
    for population in network.populations:
        arriving = _arriving(network, population.name, units)
        own = senders.get(population.name)
        if own:
            scale = own.scale
        else:
            scale = _scale(population, arriving, plan, bounds, observed, activity, chip, units, graded)
        if population.kind.input_units:
            scale = population.kind.input_units(population)
        latency = retimed.latency[population.name]
        made, population_errors, told = _registers(population, scale, latency, chip, own)
        warnings += told
        populations.append(made)
        if population.fixed_scale is not None:
            refuse_rounding(population_errors, population.name)
        errors += population_errors
        found = _splits(population, arriving, scale, plan, observed, units, activity, exponents, graded)
        for edge, exact, split in found:
            tables = _tables(exact, split, heard[edge.name])
            projections.append(
                IntegerProjection(edge.name, edge.source, edge.target, tables, retimed.delay_steps[edge.name])
            )
        errors += [_weight_error(edge.name, weight_values(exact), split) for edge, exact, split in found]
        warnings += [
            f"projection {edge.name!r}: every weight is zero{' after rounding' if edge.values.any() else ''}"
            for edge, _, split in found
            if not any(part.weights.any() for part in split.parts)
        ]
    return QuantizedNetwork(
        tuple(populations),
        tuple(projections),
        tuple(inputs.values()),
        tuple(OutputPort(p.name, p.population, **asdict(p.readout)) for p in network.outputs),
        tuple(errors),
        tuple(warnings),
    )


def _registers(
    population: Population, scale: float, latency: int, chip: Chip, sender: Sender | None
) -> tuple[IntegerPopulation, list[TensorError], list[str]]:
    """Return a population in integers, what that does to its tensors, and what to warn of."""
    if population.kind.integers:
        return population.kind.integers(population, scale, latency, chip)
    made, errors = integer_population(population, scale, latency, chip, sender.shift if sender else 0)
    return made, errors, register_warnings(population, made)


def _scale(
    population: Population,
    arriving: list[tuple[Projection, Weight]],
    plan: Plan,
    bounds: Mapping[str, Peak],
    observed: Observation,
    activity: Mapping[str, Float],
    chip: Chip,
    units: Mapping[str, float],
    graded: Set[str],
) -> float:
    """Return a population's scale: its fixed one, or the best one, searched for once."""
    if population.fixed_scale is not None:
        return population.fixed_scale
    bound, formats = bounds[population.name], {e.name: plan.of(e.name) for e, _ in arriving}
    key = (population.name, bound, chip, *formats.items(), *units.items())
    if key not in observed.chosen:
        seen = observed.messages is not None
        observed.chosen[key] = choose_scale(
            population, arriving, bound, activity, chip, formats, graded, seen
        )
    return observed.chosen[key]


def _general_warnings(retimed: RetimedNetwork, calibration: Mapping[str, Float] | None) -> list[str]:
    found = (
        []
        if calibration or retimed.network.fixed
        else [
            "no calibration data: inputs are taken as spikes (0 or 1) and states at their worst case; "
            "--calibrate DATA gives finer scales"
        ]
    )
    return found + [
        f"projection {name!r}: {steps} step(s) of delay added, so results are not the network's any more"
        for name, steps in retimed.relaxed.items()
    ]


def _refuse(network: Network) -> None:
    for p in network.populations:
        if p.spiking and float(p.parameters["threshold"].min()) < 0:
            raise CompileError(
                f"population {p.name!r}: a threshold of "
                f"{p.parameters['threshold'].min():g}; the chip holds none below 0",
                population=p.name,
            )


def _message_bits(network: Network, inputs: Mapping[str, InputPort], edge: Projection) -> int:
    """Return how many bits a projection's messages have, 0 for spikes."""
    if edge.source in inputs:
        return inputs[edge.source].bits if inputs[edge.source].kind == "graded" else 0
    source = network.population(edge.source)
    if not source.graded:
        return 0
    if source.kind.sends_numbers:
        return source.kind.message_bits
    return COUNT_BITS if source.spiking else MEMBRANE_BITS


def _arriving(network: Network, name: str, units: Mapping[str, float]) -> list[tuple[Projection, Weight]]:
    """Return a population's projections with their weights per unit of message."""
    return [(e, e.weight / units.get(e.source, 1.0)) for e in network.projections if e.target == name]


def _splits(
    population: Population,
    arriving: list[tuple[Projection, Weight]],
    scale: float,
    plan: Plan,
    observed: Observation,
    units: Mapping[str, float],
    activity: Mapping[str, Float],
    exponents: Mapping[str, tuple[int, int]],
    graded: Set[str],
) -> list[tuple[Projection, Weight, SplitWeights]]:
    """Return each projection with its exact weights in the chip's units and the tables they become."""
    fixed = population.fixed_scale is not None
    found = []
    for edge, weight in arriving:
        exact, how = weight * scale, plan.of(edge.name)
        weighs, targets = importance(weight, activity[edge.source]), rows(weight)
        if fixed:
            exact = whole(exact)
            how = replace(how, tables="one", bits=population.weight_bits or how.bits)
        split = split_weights(
            weight_values(exact), how, exponents[edge.name], weighs, targets, edge.source in graded
        )
        if fixed and (split.values() != weight_values(exact)).any():
            how = replace(how, tables="sign")
            split = split_weights(weight_values(exact), how, exponents[edge.name], weighs, targets)
            refuse_rounding([_weight_error(edge.name, weight_values(exact), split)], population.name)
        found.append((edge, exact, split))
    if plan.rounding != "reconstruct" or observed.messages is None or fixed or not found:
        return found
    if not affordable([weight for _, weight in arriving]) or all(
        (split.values() == weight_values(exact)).all() for _, exact, split in found
    ):
        return found
    moment = moments(population, [edge for edge, _ in arriving], observed.messages, units)
    splits = reconstructed([(exact, split) for _, exact, split in found], moment)
    return [(edge, exact, split) for (edge, exact, _), split in zip(found, splits, strict=True)]


def _tables(exact: Weight, split: SplitWeights, message_bits: int) -> tuple[WeightTable, ...]:
    return tuple(
        WeightTable(with_values(exact, part.weights), part.exponent, part.bits, part.sign_mode, message_bits)
        for part in split.parts
    )


def _weight_error(name: str, exact: Float, split: SplitWeights) -> TensorError:
    text = f"{split.parts[0].bits} bits "
    text += " + ".join(f"{part.sign_mode}, exponent {part.exponent}" for part in split.parts)
    return tensor_error(name, text, exact, split.values(), split.lsb, split.clipped(exact))
