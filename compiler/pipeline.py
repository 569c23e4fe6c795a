"""The pipeline: straight-line code that calls the stages in order."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.frontends import read_graph
from snn_compile.compiler.lowering import lower
from snn_compile.compiler.network import Float, Network
from snn_compile.compiler.partition import Partition, partition
from snn_compile.compiler.place import place
from snn_compile.compiler.quantize import QuantizedNetwork, quantize
from snn_compile.compiler.rates import ConversionOptions, convert
from snn_compile.compiler.rectifiers import RectifierNetwork
from snn_compile.compiler.reference import as_inputs
from snn_compile.compiler.retime import RetimedNetwork, retime
from snn_compile.compiler.route import route
from snn_compile.compiler.simplify import simplify
from snn_compile.targets.chip import Chip, load_chip
from snn_compile.targets.device import execute
from snn_compile.targets.errors import CompileError, DoesNotFit, PrecisionLost
from snn_compile.targets.program import Core, Program
from snn_compile.targets.record import Overflow

TABLES = ("auto", "one", "sign")
RETRIES = 6
"""Times the headroom of a population is doubled before its range is given up."""

STAGES = ("lower", "simplify", "retime", "quantize", "partition", "place", "route")


@dataclass(frozen=True)
class Options:
    """What a compilation may be asked for.

    `weight_bits`: 1 to 8. `tables` of a projection: "one", "sign" (positive and negative weights apart:
    a bit more for each), or "auto" (by sign where that takes no more cores). `input_bits`: of graded
    input messages. `c_slow`: device steps a logical step takes, for cycles that are too short for the chip;
    None is the least that they need. `relax_timing`: add delay to such cycles instead. `conventions`: answers
    to what the graph leaves open. `provenance`: text that travels in the program (model file, data set).
    `conversion`: how an ONNX model becomes rates (None: the defaults).
    """

    weight_bits: int = 8
    tables: str = "auto"
    input_bits: int = 8
    c_slow: int | None = 1
    relax_timing: bool = False
    conventions: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    conversion: ConversionOptions | None = None


@dataclass(frozen=True, eq=False)
class Compilation:
    """Everything a compilation made, stage by stage; what was not reached is None."""

    network: Network
    retimed: RetimedNetwork | None = None
    quantized: QuantizedNetwork | None = None
    partition: Partition | None = None
    cores: tuple[Core, ...] | None = None
    program: Program | None = None


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
    if options.tables not in TABLES:
        raise CompileError(f"tables {options.tables!r}; use one of {', '.join(TABLES)}")
    if options.c_slow is not None and options.c_slow < 1:
        raise CompileError(f"{options.c_slow} device steps a logical step; 1 or more are possible")
    chip = load_chip(target)
    low, high = chip.weight_bits
    if not low <= options.weight_bits <= high:
        raise CompileError(f"{options.weight_bits} weight bits; {chip.title} has {low} to {high}")
    # A chip without graded messages refuses a graded input itself, by name.
    if options.input_bits < 1 or (chip.graded_messages and options.input_bits > chip.message_bits_max):
        raise CompileError(
            f"{options.input_bits} bits an input message; {chip.title} has 1 to {chip.message_bits_max}"
        )

    def stage(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        value = function(*arguments)
        if observe:
            observe(name, value, time.perf_counter() - began)
        return value

    graph, calibration = _converted(graph, calibration, options)
    network = stage("lower", lower, graph, options.conventions)
    data = as_inputs(network, calibration) if calibration is not None else None
    if stop_after == "lower":
        return Compilation(network)
    simple = stage("simplify", simplify, network)
    if stop_after == "simplify":
        return Compilation(simple)
    retimed = stage("retime", retime, simple, chip.delay_max, options.relax_timing, options.c_slow)
    if stop_after == "retime":
        return Compilation(network, retimed)
    quantized = stage("quantize", _quantize, retimed, chip, options, data)
    if stop_after == "quantize":
        return Compilation(network, retimed, quantized)
    split = stage("partition", partition, quantized, chip)
    if stop_after == "partition":
        return Compilation(network, retimed, quantized, split)
    cores = stage("place", place, split, chip)
    if stop_after == "place":
        return Compilation(network, retimed, quantized, split, cores)
    routes = stage("route", route, quantized, cores)
    program = Program(
        chip.name,
        chip.version,
        quantized.populations,
        quantized.projections,
        quantized.inputs,
        quantized.outputs,
        cores,
        routes,
        _provenance(network, options, data),
        retimed.period,
    )
    return Compilation(network, retimed, quantized, split, cores, program)


def _converted(graph: Any, calibration: Any, options: Options) -> tuple[Any, Any]:
    """Convert an ONNX model on its still calibration inputs; return anything else as it is."""
    if isinstance(graph, (str, os.PathLike)) and Path(graph).suffix.lower() == ".onnx":
        graph = read_graph(graph)
    if not isinstance(graph, RectifierNetwork) or calibration is None:
        return graph, calibration
    conversion = convert(graph, calibration, options.conversion)
    return conversion.network, conversion.shown_calibration()


def _quantize(
    retimed: RetimedNetwork, chip: Chip, options: Options, data: Mapping[str, Float] | None
) -> QuantizedNetwork:
    def made(split: bool) -> QuantizedNetwork:
        return _in_range(retimed, chip, options, split, data)

    if options.tables != "auto" or retimed.network.fixed:
        return made(options.tables == "sign")
    one, by_sign = made(False), made(True)
    try:
        more = len(partition(by_sign, chip).cores) > len(partition(one, chip).cores)
    except DoesNotFit:
        more = True
    return one if more else by_sign


def _provenance(network: Network, options: Options, data: Mapping[str, Float] | None) -> dict[str, str]:
    facts = {
        "snn-compile": version("snn-compile"),
        "network": network.digest(),
        "graph": network.source_digest,
        "weight_bits": str(options.weight_bits),
        "contract": network.contract.to_json(network.source_digest),
        "decided": json.dumps(dict(network.decided), sort_keys=True),
    }
    if data is not None:
        facts["calibration_samples"] = str(next(iter(data.values())).shape[0])
    return {**facts, **options.provenance}


def _in_range(
    retimed: RetimedNetwork, chip: Chip, options: Options, split: bool, data: Mapping[str, Float] | None
) -> QuantizedNetwork:
    """Quantize so that on the calibration data no state leaves 24 bits in integers either.

    The scales leave headroom over what the float network showed; where integers go further than that,
    as in networks that amplify any difference, the population's headroom is doubled.
    """
    headroom: dict[str, float] = {}
    for _ in range(RETRIES):
        made = quantize(
            retimed, chip, options.weight_bits, options.input_bits, split, data, headroom=headroom
        )
        if data is None or retimed.network.fixed:
            return made
        overflows = _overflows(made, chip, retimed, data)
        if not overflows:
            return made
        for name in overflows:
            headroom[name] = 2 * headroom.get(name, 1.0)
    name, overflow = next(iter(overflows.items()))
    raise PrecisionLost(
        f"population {name!r} leaves its 24-bit range on the calibration data at any scale: {overflow}; its "
        "integer dynamics differ too much from the float ones",
        tensor=name,
    )


def _overflows(
    made: QuantizedNetwork, chip: Chip, retimed: RetimedNetwork, data: Mapping[str, Float]
) -> dict[str, Overflow]:
    program = Program(
        chip.name,
        chip.version,
        made.populations,
        made.projections,
        made.inputs,
        made.outputs,
        period=retimed.period,
    )
    shaped = {
        port.name: np.reshape(data[port.name], (*data[port.name].shape[:2], *port.shape))
        for port in retimed.network.inputs
    }
    found = execute(program, shaped, "loihi2-sim").overflows
    scaled = {p.name for p in retimed.network.populations if p.fixed_scale is None}
    return {name: overflow for name, overflow in found.items() if overflow and name in scaled}
