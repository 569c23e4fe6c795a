"""The pipeline: straight-line code that calls the stages in order."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from snn_compile.compiler.calibration.calibrate import TABLES, Precision, choose_precision
from snn_compile.compiler.frontends.read import read_graph
from snn_compile.compiler.lowering.fixed_integers import released, trained_bits, unheard
from snn_compile.compiler.lowering.freeze_rates import freeze_rates
from snn_compile.compiler.lowering.lower import lower
from snn_compile.compiler.lowering.retime import RetimedNetwork, retime
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.mapping.partition import Partition, partition
from snn_compile.compiler.mapping.place import place
from snn_compile.compiler.mapping.route import route
from snn_compile.compiler.network import Float, Network
from snn_compile.compiler.onnx.rate_coding import ConversionOptions, convert
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.compiler.quantization.quantize import Plan, QuantizedNetwork
from snn_compile.compiler.quantization.rounding import METHODS
from snn_compile.compiler.quantization.weight_tables import TableFormat
from snn_compile.compiler.reference import as_inputs
from snn_compile.targets.chips.chip import Chip, load_chip
from snn_compile.targets.errors import CompileError
from snn_compile.targets.program.program import Core, Program

STAGES = ("lower", "simplify", "retime", "quantize", "partition", "place", "route")


@dataclass(frozen=True)
class Options:
    """What a compilation may be asked for.

    `weight_bits`: 1 to 8. `tables` of a projection: "one", "sign", "group", "residual"
    (`quantization/weight_tables.py`), or "auto": by sign where that takes no more cores, two that add up
    where calibration data shows that predictions need them. `rounding`: "nearest", "reconstruct", or "auto",
    the better of the two on calibration data. `plan`: what a search found, projection by projection; it
    replaces these three. `input_bits`: of graded input messages. `c_slow`: device steps a logical step takes,
    for cycles that are too short for the chip; None is the least that they need. `relax_timing`: add delay to
    such cycles instead. `conventions`: answers to what the graph leaves open. `provenance`: text that travels
    in the program (model file, data set). `conversion`: how an ONNX model becomes rates (None: the defaults).
    `approximate`: liquid spiking neurons as adaptive ones, see `lowering/freeze_rates.py`.
    """

    weight_bits: int = 8
    tables: str = "auto"
    rounding: str = "auto"
    plan: Plan | None = None
    input_bits: int = 8
    c_slow: int | None = 1
    relax_timing: bool = False
    conventions: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    conversion: ConversionOptions | None = None
    approximate: bool = False


@dataclass(frozen=True, eq=False)
class Compilation:
    """Everything a compilation made, stage by stage; what was not reached is None."""

    network: Network
    retimed: RetimedNetwork | None = None
    quantized: QuantizedNetwork | None = None
    partition: Partition | None = None
    cores: tuple[Core, ...] | None = None
    program: Program | None = None
    precision: Precision | None = None


Observer = Callable[[str, Any, float], None]
"""Called after each stage with its name, value and duration in seconds."""


def compile_graph(
    graph: Any,
    target: str = "loihi2-sim",
    options: Options | None = None,
    calibration: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
    observe: Observer | None = None,
) -> Program:
    """Compile a NIR graph, a path to one, a Network or an ONNX model (RectifierNetwork) for `target`.

    `calibration`: inputs (batch, steps, *shape), or a mapping of input name to such arrays; scales are
    chosen on them. For an ONNX model: still inputs (batch, *shape), on which it is converted. Raises
    CompileError and its kinds.
    """
    program = compile_stages(graph, target, options, calibration, observe).program
    assert program is not None
    return program


def compile_stages(
    graph: Any,
    target: str = "loihi2-sim",
    options: Options | None = None,
    calibration: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
    observe: Observer | None = None,
    stop_after: str | None = None,
) -> Compilation:
    """As `compile_graph`, and return what every stage made; stop after the stage named."""
    options = options or Options()
    if stop_after is not None and stop_after not in STAGES:
        raise CompileError(f"no stage {stop_after!r}; stages are {', '.join(STAGES)}")
    chip = load_chip(target)
    _check(options, chip)

    def stage(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        value = function(*arguments)
        if observe:
            made = value.quantized if isinstance(value, Precision) else value
            observe(name, made, time.perf_counter() - began)
        return value

    graph, calibration = _converted(graph, calibration, options)
    network = stage("lower", lower, graph, options.conventions)
    data = as_inputs(network, calibration) if calibration is not None else None
    if stop_after == "lower":
        return Compilation(network)
    steady, held = freeze_rates(network, data, options.approximate)
    free, told = released(steady, None if options.plan else options.weight_bits)
    told += held + unheard(free, {"tables": options.tables, "rounding": options.rounding})
    simple = stage("simplify", simplify, free)
    if stop_after == "simplify":
        return Compilation(simple)
    retimed = stage("retime", retime, simple, chip.delay_max, options.relax_timing, options.c_slow)
    if stop_after == "retime":
        return Compilation(network, retimed)
    precision = stage("quantize", _quantize, retimed, chip, options, data, told)
    quantized = precision.quantized
    if stop_after == "quantize":
        return Compilation(network, retimed, quantized, precision=precision)
    split = stage("partition", partition, quantized, chip)
    if stop_after == "partition":
        return Compilation(network, retimed, quantized, split, precision=precision)
    cores = stage("place", place, split, chip)
    if stop_after == "place":
        return Compilation(network, retimed, quantized, split, cores, precision=precision)
    routes = stage("route", route, quantized, cores)
    parts = (quantized.populations, quantized.projections, quantized.inputs, quantized.outputs)
    origin = _provenance(network, options, data)
    facts = (chip.formats, chip.profile)
    program = Program(chip.name, chip.version, *parts, cores, routes, origin, retimed.period, *facts)
    return Compilation(network, retimed, quantized, split, cores, program, precision)


def _check(options: Options, chip: Chip) -> None:
    asked = TableFormat(options.weight_bits, options.tables)
    for how in (asked, options.plan.format, *options.plan.formats.values()) if options.plan else (asked,):
        if how.tables not in TABLES:
            raise CompileError(f"tables {how.tables!r}; use one of {', '.join(TABLES)}")
        low, high = chip.formats.weight_bits
        if not low <= how.bits <= high:
            raise CompileError(f"{how.bits} weight bits; {chip.title} has {low} to {high}")
    if options.c_slow is not None and options.c_slow < 1:
        raise CompileError(f"{options.c_slow} device steps a logical step; 1 or more are possible")
    if options.rounding not in METHODS:
        raise CompileError(f"rounding {options.rounding!r}; use one of {', '.join(METHODS)}")
    # A chip without graded messages refuses a graded input itself, by name.
    if options.input_bits < 1 or (chip.graded_messages and options.input_bits > chip.message_bits_max):
        raise CompileError(
            f"{options.input_bits} bits an input message; {chip.title} has 1 to {chip.message_bits_max}"
        )


def _converted(graph: Any, calibration: Any, options: Options) -> tuple[Any, Any]:
    """Convert an ONNX model on its still calibration inputs; return anything else as it is."""
    if isinstance(graph, (str, os.PathLike)) and Path(graph).suffix.lower() == ".onnx":
        graph = read_graph(graph)
    if not isinstance(graph, RectifierNetwork) or calibration is None:
        return graph, calibration
    conversion = convert(graph, calibration, options.conversion)
    return conversion.network, conversion.shown_calibration()


def _quantize(
    retimed: RetimedNetwork,
    chip: Chip,
    options: Options,
    data: Mapping[str, Float] | None,
    told: tuple[str, ...],
) -> Precision:
    form = TableFormat(options.weight_bits, options.tables)
    made = choose_precision(retimed, chip, form, options.input_bits, options.rounding, data, options.plan)
    return replace(made, quantized=replace(made.quantized, warnings=(*told, *made.quantized.warnings)))


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
    if data is not None:
        facts["calibration_samples"] = str(next(iter(data.values())).shape[0])
    return {**facts, **options.provenance}
