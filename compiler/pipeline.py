"""The compiler's pipeline: from a model to a Program, one named stage after the other.

| stage | makes |
|---|---|
| lower | the Network that a model means; an ONNX model is first converted to rates on calibration data |
| release_fixed_integers | trained integers freed, where other bits are requested |
| simplify | fewer populations with the same spikes |
| retime | delays and start steps in device time |
| quantize | integers, chosen on calibration data |
| partition | slices of populations packed into cores |
| place | tiles of cores |
| route | routes between cores, and with them the Program |
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import ceil
from typing import Any

import numpy.typing as npt

from snn_compile.compiler.calibration.calibrate import TABLES, Precision, choose_precision
from snn_compile.compiler.frontends.read import naming, read_graph
from snn_compile.compiler.lowering.fan_in import relieve_fan_in
from snn_compile.compiler.lowering.fixed_integers import ignored_options, release_fixed_integers, trained_bits
from snn_compile.compiler.lowering.lower import lower
from snn_compile.compiler.lowering.retime import RetimedNetwork, retime
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.mapping.partition import MAPPERS, Partition, partition
from snn_compile.compiler.mapping.place import place
from snn_compile.compiler.mapping.route import route
from snn_compile.compiler.mapping.search import DEFAULT_EFFORT, EFFORTS
from snn_compile.compiler.mapping.sizes import refuse_sizes
from snn_compile.compiler.network import Float, Network
from snn_compile.compiler.onnx.rate_coding import ConversionOptions, convert
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.compiler.quantization.quantize import Plan, QuantizedNetwork
from snn_compile.compiler.quantization.rounding import METHODS
from snn_compile.compiler.quantization.weight_tables import TableFormat
from snn_compile.compiler.reference import as_inputs
from snn_compile.targets.chips.chip import CHIPS_MAX, Chip, load_chip
from snn_compile.targets.errors import CompileError
from snn_compile.targets.program.program import Core, Program

STAGES = ("lower", "release_fixed_integers", "simplify", "retime", "quantize", "partition", "place", "route")
"""Names of the stages, in the order in which they run."""


@dataclass(frozen=True)
class Options:
    """Settings of a compilation.

    - `weight_bits`: 1 to 8.
    - `tables`: weight tables per projection, "one", "sign", "group" or "residual" (per-tensor, sign-split,
      row-grouped, residual; see `quantization/weight_tables.py`), or "auto": sign-split where that takes no
      more cores (with liquid layers, else row-grouped where that takes none), residual where calibration data
      shows that predictions need it.
    - `rounding`: "nearest", "reconstruct" (calibrated rounding, as AdaRound), or "auto": the better of the
      two on calibration data.
    - `plan`: formats per projection, as a search found them; replaces the three above.
    - `input_bits`: bits per graded input message.
    - `c_slow`: device steps per logical step, for cycles that are too short for the chip; None takes the
      fewest that work.
    - `relax_timing`: add delay to such cycles instead.
    - `conventions`: contract items that the graph leaves open.
    - `strict`: what the file of a known exporter does not hold is open, instead of taking its defaults.
    - `provenance`: text stored in the program (model file, data set).
    - `conversion`: how an ONNX model is converted to rates (None: the defaults).
    - `chips`: how many of the chip there are; "auto" takes as many as the network needs, None those of the
      target.
    - `mapper`: "best" lets layers share cores, "vendor" maps as Intel's compiler does.
    - `spread`: cores that "best" may take for a shorter step where fewer would do; None takes the fewest.
    - `mapper_effort`: 1 to 5, how long "best" searches; 1 fills cores, higher ones balance and place them.
    - `approximate`: refused for networks with liquid spiking neurons (`lsn`), which compile as they are; it
      once made adaptive neurons of them.
    """

    weight_bits: int = 8
    tables: str = "auto"
    rounding: str = "auto"
    plan: Plan | None = None
    input_bits: int = 8
    c_slow: int | None = 1
    relax_timing: bool = False
    conventions: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    provenance: Mapping[str, str] = field(default_factory=dict)
    conversion: ConversionOptions | None = None
    approximate: bool = False
    mapper: str = "best"
    mapper_effort: int = DEFAULT_EFFORT
    spread: int | None = None
    chips: int | str | None = None

    def of_chip(self, chip: Chip) -> Chip:
        """Return so many of a chip as `chips` says, for "auto" more than any network needs."""
        if self.chips is None:
            return chip
        return chip.times(CHIPS_MAX if self.chips == "auto" else int(self.chips))


@dataclass(frozen=True, eq=False)
class Compilation:
    """The result of every stage of a compilation; None for stages that did not run.

    `network` is the lowered network, which is the float reference; after a stop at one of the stages that
    rewrite it (`release_fixed_integers`, `simplify`) it is the rewritten one. `added`: a line per stage of
    relays that was put into it so that a core holds its fan-in.
    """

    network: Network
    retimed: RetimedNetwork | None = None
    quantized: QuantizedNetwork | None = None
    partition: Partition | None = None
    cores: tuple[Core, ...] | None = None
    program: Program | None = None
    precision: Precision | None = None
    added: tuple[str, ...] = ()


Observer = Callable[[str, Any, float], None]
"""Called after each stage with its name, its result and its duration in seconds."""

Calibration = npt.ArrayLike | Mapping[str, npt.ArrayLike]


def compile_graph(
    graph: Any,
    target: str = "loihi2-sim",
    options: Options | None = None,
    calibration: Calibration | None = None,
    observe: Observer | None = None,
) -> Program:
    """Compile a NIR graph, a path to one, a Network or an ONNX model (RectifierNetwork) for `target`.

    `calibration`: inputs (batch, steps, *shape), or a mapping of input name to such arrays, on which scales
    are chosen. For an ONNX model: static inputs (batch, *shape), on which it is converted. Raises
    CompileError and its subclasses.
    """
    program = compile_stages(graph, target, options, calibration, observe).program
    assert program is not None
    return program


def compile_stages(
    graph: Any,
    target: str = "loihi2-sim",
    options: Options | None = None,
    calibration: Calibration | None = None,
    observe: Observer | None = None,
    stop_after: str | None = None,
) -> Compilation:
    """Compile as `compile_graph` does and return the result of every stage, up to the stage `stop_after`."""
    options = options or Options()
    if stop_after is not None and stop_after not in STAGES:
        raise CompileError(f"no stage {stop_after!r}; stages are {', '.join(STAGES)}")
    chip = options.of_chip(load_chip(target))
    _check(options, chip)
    began = time.perf_counter()
    for name, result, done in _stages(graph, chip, options, calibration):
        if observe:
            observe(name, result, time.perf_counter() - began)
        if name == stop_after:
            return done
        began = time.perf_counter()
    return done


def _stages(
    graph: Any, chip: Chip, options: Options, calibration: Calibration | None
) -> Iterator[tuple[str, Any, Compilation]]:
    """Run one stage per iteration; yield its name, its result, and the compilation so far."""
    network, calibration = _lower(graph, calibration, options)
    yield "lower", network, Compilation(network)
    data = as_inputs(network, calibration) if calibration is not None else None

    if options.approximate:
        _refuse_approximation(network)

    free, releasing = release_fixed_integers(network, None if options.plan else options.weight_bits)
    yield "release_fixed_integers", free, Compilation(free)

    relieved = relieve_fan_in(simplify(free), chip, options.weight_bits)
    simple = relieved.network
    yield "simplify", simple, Compilation(simple)

    retimed = retime(simple, chip.delay_max, options.relax_timing, options.c_slow)
    done = Compilation(network, retimed, added=relieved.added)
    yield "retime", retimed, done

    refuse_sizes(retimed.network, chip)
    ignored = ignored_options(free, {"tables": options.tables, "rounding": options.rounding})
    precision = _quantize(retimed, chip, options, data, (*releasing, *ignored))
    quantized = precision.quantized
    done = replace(done, quantized=quantized, precision=precision)
    yield "quantize", quantized, done

    split = partition(quantized, chip, options.mapper, options.mapper_effort, precision.rates, options.spread)
    if options.chips == "auto":
        chip = chip.times(max(ceil(len(split.cores) / chip.cores), 1))
    done = replace(done, partition=split)
    yield "partition", split, done

    cores = place(split, chip)
    done = replace(done, cores=cores)
    yield "place", cores, done

    routes = route(quantized, cores)
    parts = (quantized.populations, quantized.projections, quantized.inputs, quantized.outputs)
    origin = _provenance(network, options, data)
    facts = (chip.formats, chip.profile, chip.chips)
    program = Program(chip.name, chip.version, *parts, cores, routes, origin, retimed.period, *facts)
    yield "route", routes, replace(done, program=program)


def _refuse_approximation(network: Network) -> None:
    if liquid := [p.name for p in network.populations if p.model == "lsn"]:
        raise CompileError(
            f"node {', '.join(map(repr, liquid))}: liquid spiking neurons (lsn) compile as they are, with "
            "rates that follow their input; leave out --approximate (Options.approximate)",
            nodes=liquid,
        )


def _check(options: Options, chip: Chip) -> None:
    formats = [TableFormat(options.weight_bits, options.tables)]
    if options.plan:
        formats += [options.plan.format, *options.plan.formats.values()]
    low, high = chip.formats.weight_bits
    for form in formats:
        if form.tables not in TABLES:
            raise CompileError(f"tables {form.tables!r}; use one of {', '.join(TABLES)}")
        if not low <= form.bits <= high:
            raise CompileError(f"{form.bits} weight bits; {chip.title} has {low} to {high}")
    if options.c_slow is not None and options.c_slow < 1:
        raise CompileError(f"{options.c_slow} device steps per logical step; use 1 or more")
    if options.mapper not in MAPPERS:
        raise CompileError(f"mapper {options.mapper!r}; use one of {', '.join(MAPPERS)}")
    if options.spread is not None and (options.mapper != "best" or not chip.mapped):
        other = "the vendor's mapper" if chip.mapped else chip.heading
        raise CompileError(f"a spread over {options.spread} cores; {other} takes none, leave it out")
    if options.spread is not None and not 1 <= options.spread <= chip.all_cores:
        raise CompileError(f"a spread over {options.spread} cores; {chip.heading} has {chip.all_cores}")
    if options.mapper_effort not in EFFORTS:
        raise CompileError(
            f"mapper effort {options.mapper_effort!r}; use a number from {EFFORTS[0]} to {EFFORTS[-1]}"
        )
    if options.rounding not in METHODS:
        raise CompileError(f"rounding {options.rounding!r}; use one of {', '.join(METHODS)}")
    # A chip without graded messages refuses a graded input itself, by name.
    if options.input_bits < 1 or (chip.graded_messages and options.input_bits > chip.message_bits_max):
        raise CompileError(
            f"{options.input_bits} bits per input message; {chip.title} has 1 to {chip.message_bits_max}"
        )


def _lower(model: Any, calibration: Any, options: Options) -> tuple[Network, Any]:
    """Return the network that a model means, and its calibration inputs with an axis of steps."""
    with naming(model):
        if isinstance(model, (str, os.PathLike)):
            model = read_graph(model)
        if isinstance(model, RectifierNetwork) and calibration is not None:
            conversion = convert(model, calibration, options.conversion)
            model, calibration = conversion.network, conversion.shown_calibration()
        return lower(model, options.conventions, options.strict), calibration


def _quantize(
    retimed: RetimedNetwork,
    chip: Chip,
    options: Options,
    data: Mapping[str, Float] | None,
    warnings: tuple[str, ...],
) -> Precision:
    """Choose the integers of a network; `warnings` of earlier stages come before those of this one."""
    form = TableFormat(options.weight_bits, options.tables)
    found = choose_precision(retimed, chip, form, options.input_bits, options.rounding, data, options.plan)
    return replace(found, quantized=replace(found.quantized, warnings=(*warnings, *found.quantized.warnings)))


def _provenance(network: Network, options: Options, data: Mapping[str, Float] | None) -> dict[str, str]:
    bits = min(trained_bits(network) or options.weight_bits, options.weight_bits)
    facts = {
        "snn-compile": version("snn-compile"),
        "network": network.digest(),
        "graph": network.source_digest,
        "weight_bits": options.plan.title() if options.plan else str(bits),
        "contract": network.contract.to_json(network.source_digest),
        "decided": json.dumps(dict(network.decided), sort_keys=True),
    }
    if network.assumptions:
        facts["assumed"] = json.dumps([item.json() for item in network.assumptions])
    if data is not None:
        facts["calibration_samples"] = str(next(iter(data.values())).shape[0])
    return {**facts, **options.provenance}
