"""Post-training quantization: a retimed Network becomes the chip's integers, with every tensor's error.

One unit of a population's float membrane is S threshold units of the chip, or 2**f S units of its membrane,
where S is the population's scale and f the chip's `synaptic_shift` (6 on Loihi). A spike's weight w becomes
the integer S w / 2**e of a weight table with a shared exponent e; a graded message of scale q contributes
S w / q. Thresholds are round(S theta), biases round(2**f S b) as mantissa and exponent; the chip's `Formats`
give the widths. `scales.py` chooses S.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from snn_compile.compiler.quantization.inputs import (
    host_warning,
    input_error,
    input_port,
    units_per_message,
    whole,
)
from snn_compile.compiler.quantization.liquid import add_copies, liquid_scales, liquid_senders, with_shift
from snn_compile.compiler.quantization.messages import Messages, messages_of
from snn_compile.compiler.quantization.registers import integer_population, register_warnings
from snn_compile.compiler.quantization.relays import (
    EXACT,
    divided,
    exact_formats,
    refuse_overflow,
    relay_units,
)
from snn_compile.compiler.quantization.rounding import affordable, moments, reconstructed
from snn_compile.compiler.quantization.scales import (
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
from snn_compile.targets.program.kernels import shared_kernel
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.program import InputPort, OutputPort
from snn_compile.targets.program.program import Projection as IntegerProjection
from snn_compile.targets.program.weights import WeightTable


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A network in integers, the rounding error of each tensor, and warnings for the user."""

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
    """Settings of a quantization, by projection or population.

    `formats`: weight tables of single projections; `format`: of all others. `headroom` multiplies the bounds
    of single populations' states. `floors`: by population, the largest inhibited membrane that has to fit, in
    the float network's unit; below it v saturates. Populations without a floor keep all of v. `rounding`:
    "nearest", or "reconstruct" (calibrated rounding), which needs data and a population that is small enough.
    """

    format: TableFormat = TableFormat()
    formats: Mapping[str, TableFormat] = field(default_factory=dict)
    headroom: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    rounding: str = "nearest"

    def of(self, projection: str) -> TableFormat:
        """Return the weight tables of a projection."""
        return self.formats.get(projection, self.format)

    def title(self) -> str:
        """Return the formats in short, the most common first: "8 bits sign (2), 4 bits (1)"."""
        forms = list(self.formats.values()) or [self.format]
        names = [
            f"{f.bits} bit" + "s" * (f.bits > 1) + ("" if f.tables == "one" else f" {f.tables}")
            for f in forms
        ]
        counted = sorted({n: names.count(n) for n in names}.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{name} ({count})" if len(counted) > 1 else name for name, count in counted)

    def bound(self, name: str, seen: Peak) -> Peak:
        """Return the range of a population's states that has to fit, given the observed one."""
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

    The weights into a population of fixed scale are split only where one table does not hold them exactly.
    `calibration`: inputs (batch, steps, size) by port; without it inputs are taken as spikes and states
    are bounded by their worst case. `observed`: the result of `observe` for it, if it is known already.
    Raises PrecisionLost where no scale fits, CompileError on values that the chip has no register for.
    """
    network, plan = retimed.network, plan or Plan()
    _refuse_negative_thresholds(network)
    observed = observed or observe(network, calibration, chip)
    warnings = _general_warnings(retimed, calibration)
    inputs = {
        p.name: input_port(p.name, p.shape, retimed, input_bits, calibration, chip) for p in network.inputs
    }
    units = {p.name: units_per_message(p, inputs[p.name]) for p in network.inputs}
    graded = [port for port in inputs.values() if calibration and port.kind == "graded"]
    errors = [input_error(port, units[port.name], (calibration or {})[port.name]) for port in graded]
    bounds = {name: plan.bound(name, bound) for name, bound in observed.bounds.items()}
    plan = replace(plan, formats={**plan.formats, **exact_formats(network)})
    scales, senders = _settled(network, bounds, units, plan, chip)
    units |= {p.name: scales[p.name] for p in network.relays}
    messages = messages_of(network, inputs, units, senders, observed, chip)
    populations: dict[str, IntegerPopulation] = {}
    projections: dict[str, IntegerProjection] = {}
    for population in (p for p in network.populations if not p.copies):
        incoming = _incoming(network, population.name, messages.units)
        sender, latency = senders.get(population.name), retimed.latency[population.name]
        scale = scales.get(population.name)
        if scale is None:
            scale = _scale(population, incoming, plan, bounds, observed, messages, chip, network)
        integers, register_errors, remarks = _registers(population, scale, latency, chip, sender)
        populations[population.name] = integers
        rounded_apart = plan.rounding == "reconstruct" and not _share_kernels(network, population, chip)
        found = _splits(population, incoming, scale, plan, observed, messages, rounded_apart)
        for edge, exact, split in found:
            tables, delay = _tables(exact, split, messages.bits[edge.name]), retimed.delay_steps[edge.name]
            made = IntegerProjection(edge.name, edge.source, edge.target, tables, delay, edge.port)
            projections[edge.name] = made
        errors += register_errors
        errors += [_weight_error(edge.name, weight_values(exact), split) for edge, exact, split in found]
        warnings += remarks + _zero_weights(found)
    add_copies(retimed, populations, projections, senders)
    refuse_overflow(network, populations, list(projections.values()), inputs, chip.formats.accumulator_bits)
    return QuantizedNetwork(
        tuple(populations[p.name] for p in network.populations),
        tuple(projections[e.name] for p in network.populations for e in network.incoming(p.name)),
        tuple(inputs.values()),
        tuple(OutputPort(p.name, p.population, **asdict(p.readout)) for p in network.outputs),
        tuple(errors),
        tuple(warnings),
    )


def _settled(
    network: Network, bounds: Mapping[str, Peak], units: Mapping[str, float], plan: Plan, chip: Chip
) -> tuple[dict[str, float], dict[str, Sender]]:
    """Return the scales that no search has to find, by population, and how states are sent."""
    senders = membrane_senders(network, bounds, chip)
    known = {**units, **{name: sender.unit for name, sender in senders.items()}}
    liquid = liquid_scales(network, bounds, known, chip)
    senders |= liquid_senders(network, bounds, liquid, chip)
    units_of = {p.name: p.kind.input_units for p in network.populations}
    fixed = {p.name: of(p) for p in network.populations if (of := units_of[p.name])}
    formats = {edge.name: plan.of(edge.name) for edge in network.projections}
    relayed = relay_units(network, known, formats)
    return {n: s.scale for n, s in senders.items()} | liquid | fixed | relayed, senders


def _zero_weights(found: list[tuple[Projection, Weight, SplitWeights]]) -> list[str]:
    return [
        f"projection {edge.name!r}: every weight is zero{' after rounding' if edge.values.any() else ''}"
        for edge, _, split in found
        if not any(part.weights.any() for part in split.parts)
    ]


def _registers(
    population: Population, scale: float, latency: int, chip: Chip, sender: Sender | None
) -> tuple[IntegerPopulation, list[TensorError], list[str]]:
    """Return a population in integers, the rounding error of each register, and warnings.

    Raises CompileError if a fixed scale does not hold a register exactly.
    """
    if population.kind.integers:
        made, errors, remarks = population.kind.integers(population, scale, latency, chip)
        made = with_shift(made, sender)
    else:
        made, errors = integer_population(population, scale, latency, chip, sender.shift if sender else 0)
        remarks = register_warnings(population, made, chip)
    if population.fixed_scale is not None:
        refuse_rounding(errors, population.name)
    return made, errors, remarks


def _scale(
    population: Population,
    incoming: list[tuple[Projection, Weight]],
    plan: Plan,
    bounds: Mapping[str, Peak],
    observed: Observation,
    messages: Messages,
    chip: Chip,
    network: Network,
) -> float:
    """Return a population's scale: the fixed one, or the best one, which is searched for once."""
    if population.fixed_scale is not None:
        return population.fixed_scale
    bound, formats = bounds[population.name], {e.name: plan.of(e.name) for e, _ in incoming}
    key = (population.name, bound, chip, *formats.items(), *messages.units.items())
    if key not in observed.chosen:
        seen = observed.messages is not None
        message = divided(network, population.name, messages.units)
        observed.chosen[key] = choose_scale(
            population, incoming, bound, messages.activity, chip, formats, messages.graded, seen, message
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
    if calibration:
        found += [line for p in retimed.network.inputs for line in host_warning(p, calibration[p.name])]
    return found + [
        f"projection {name!r}: {steps} step(s) of delay added, so the program no longer computes the network"
        for name, steps in retimed.relaxed.items()
    ]


def _refuse_negative_thresholds(network: Network) -> None:
    for p in network.populations:
        if p.spiking and float(p.parameters["threshold"].min()) < 0:
            raise CompileError(
                f"population {p.name!r}: a threshold of "
                f"{p.parameters['threshold'].min():g}; the chip holds none below 0",
                population=p.name,
            )


def _incoming(network: Network, name: str, units: Mapping[str, float]) -> list[tuple[Projection, Weight]]:
    """Return a population's projections with their weights per unit of message."""
    return [(e, e.weight / units.get(e.source, 1.0)) for e in network.incoming(name)]


def _share_kernels(network: Network, population: Population, chip: Chip) -> bool:
    """Whether the chip stores a kernel into a population once, so that its weights must stay equal."""
    shapes = {node.name: node.shape for node in network.nodes}
    return chip.memory.shared_kernels and any(
        shared_kernel(edge.weight, population.shape, shapes[edge.source])
        for edge in network.projections
        if edge.target == population.name
    )


def _splits(
    population: Population,
    incoming: list[tuple[Projection, Weight]],
    scale: float,
    plan: Plan,
    observed: Observation,
    messages: Messages,
    rounded_apart: bool,
) -> list[tuple[Projection, Weight, SplitWeights]]:
    """Return each projection with its exact weights in the chip's units and the tables they become.

    `rounded_apart`: each weight may be rounded by itself, equal ones differently.
    """
    fixed = population.fixed_scale is not None
    found = []
    for edge, weight in incoming:
        exact, how = weight * scale, plan.of(edge.name)
        exponents = messages.exponents[edge.name]
        weighs, targets = importance(weight, messages.activity[edge.source]), rows(weight)
        if how is EXACT:
            exact = whole(exact)
        if fixed:
            exact = whole(exact)
            how = replace(how, tables="one", bits=population.weight_bits or how.bits)
        split = split_weights(
            weight_values(exact), how, exponents, weighs, targets, edge.source in messages.graded
        )
        if fixed and (split.values() != weight_values(exact)).any():
            how = replace(how, tables="sign")
            split = split_weights(weight_values(exact), how, exponents, weighs, targets)
            refuse_rounding([_weight_error(edge.name, weight_values(exact), split)], population.name)
        found.append((edge, exact, split))
    if not rounded_apart or observed.messages is None or fixed or not found:
        return found
    if not affordable([weight for _, weight in incoming]) or all(
        (split.values() == weight_values(exact)).all() for _, exact, split in found
    ):
        return found
    made: dict[str, SplitWeights] = {}
    for port in sorted({edge.port for edge, _ in incoming}):
        own = [(edge, exact, split) for edge, exact, split in found if edge.port == port]
        moment = moments(population, [edge for edge, _, _ in own], observed.messages, messages.units)
        splits = reconstructed([(exact, split) for _, exact, split in own], moment)
        made |= {edge.name: split for (edge, _, _), split in zip(own, splits, strict=True)}
    return [(edge, exact, made[edge.name]) for edge, exact, _ in found]


def _tables(exact: Weight, split: SplitWeights, message_bits: int) -> tuple[WeightTable, ...]:
    return tuple(
        WeightTable(with_values(exact, part.weights), part.exponent, part.bits, part.sign_mode, message_bits)
        for part in split.parts
    )


def _weight_error(name: str, exact: Float, split: SplitWeights) -> TensorError:
    text = f"{split.parts[0].bits} bits "
    text += " + ".join(f"{part.sign_mode}, exponent {part.exponent}" for part in split.parts)
    return tensor_error(name, text, exact, split.values(), split.lsb, split.clipped(exact))
