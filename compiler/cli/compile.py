"""`snn-compile MODEL`: compile, measure on data, and hold the result against the stated gates."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.cli.console import parse_conventions
from snn_compile.targets.errors import CompileError, DoesNotFit, WrongInput
from snn_compile.targets.output import check_writable

if TYPE_CHECKING:
    from snn_compile.compiler.calibration.mixed_precision import Search
    from snn_compile.compiler.cli.model import LoadedModel
    from snn_compile.compiler.cli.protocols import Converted, Curve, Dataset, Division, Report
    from snn_compile.compiler.pipeline import Compilation, Options


@dataclass(frozen=True, eq=False)
class CompileRequest:
    """Inputs of a compilation: graph, calibration inputs, labelled data to check on, and provenance.

    `converted`: the conversion of an ONNX model; None for models that spike already. `division`: how one data
    set was divided into data to calibrate on and to check on, None if two were named.
    """

    graph: Any
    calibration: Any
    checked: Dataset | None
    converted: Converted | None
    provenance: dict[str, str]
    division: Division | None = None


def compile_command(arguments: argparse.Namespace) -> int:
    """Run `snn-compile MODEL` and return its exit code."""
    from snn_compile.compiler.cli import gates
    from snn_compile.compiler.cli.result import warnings_of
    from snn_compile.compiler.cli.unfit import Stages, report_unfit
    from snn_compile.compiler.contract.unheld import lines_of
    from snn_compile.compiler.frontends.read import naming
    from snn_compile.compiler.pipeline import compile_stages
    from snn_compile.targets.chips.chip import load_chip

    chip = load_chip(arguments.target)  # an unknown target is reported before the model is read
    check_writable(arguments.output, CompileError, arguments.model)
    if arguments.stop_after and arguments.output:
        raise CompileError("--stop-after makes no program, so there is nothing to write to -o")
    request = _read_request(arguments)
    options = _options(arguments, request)
    found = None
    if arguments.bits == "auto":
        found = _search(request, arguments, options)
        options = replace(options, plan=found.chosen.plan)
    stages = Stages()
    try:
        with naming(arguments.model):
            done = compile_stages(
                request.graph, arguments.target, options, request.calibration, stages, arguments.stop_after
            )
    except DoesNotFit as error:
        return report_unfit(error, stages, options.of_chip(chip), options, arguments)
    for line in lines_of(done.network.assumptions):
        print(f"snn-compile: {line}", file=sys.stderr)
    for warning in warnings_of(done):
        print(f"snn-compile: warning: {warning}", file=sys.stderr)
    if done.program is None:
        return _show_stage(done, arguments)
    report: Report | None
    curve: Curve | None = None
    if request.converted is None:
        report = _measure(done, request.checked)
    else:
        done, report, curve = _measure_steps(done, request.converted, arguments)
    for warning in report.warnings() if report is not None else ():
        print(f"snn-compile: warning: {warning}", file=sys.stderr)
    program = done.program
    assert program is not None
    failed = gates.failures(done, report, found, arguments.max_drop, arguments.max_cores)
    if arguments.output:
        program.save(arguments.output)
    _print_result(_result(done, report, curve, request, arguments, failed, found), report, arguments.json)
    if arguments.output:
        print(f"snn-compile: program written to {arguments.output}", file=sys.stderr)
    for failure in failed:
        print(f"snn-compile: gate failed: {failure}", file=sys.stderr)
    return 3 if failed else 0


def _read_request(arguments: argparse.Namespace) -> CompileRequest:
    """Read the model and its data as the arguments name them."""
    from snn_compile.compiler.cli.model import (
        calibration_and_check,
        data_shape,
        load_model,
        model_data,
        torch_source,
    )
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork

    named = ((arguments.calibrate, "calibration"), (arguments.check, "test"))
    shape = arguments.input_shape or partial(data_shape, *named)
    source = torch_source(arguments, calibration=arguments.calibrate, test=arguments.check)
    stated = parse_conventions(arguments.convention)
    model = load_model(arguments.model, source, arguments.max_pool, shape, stated)
    if arguments.bits == "auto" and isinstance(model.graph, RectifierNetwork):
        raise CompileError("--bits auto does not search converted models; give --bits N")
    converted, provenance = _convert(model, arguments), {"model": model.name, "undigested": "model"}
    graph: Any = model.graph
    calibration: Any = None
    if converted is not None:
        graph, calibration = converted.conversion.network, converted.conversion.shown_calibration()
        checked, division = converted.checked, converted.division
        provenance |= converted.provenance()
    else:
        shown_for = model.presentation(stated)
        load = partial(model_data, spec=model.data, shown=shown_for)
        if shown_for is not None:
            provenance["steps"] = str(shown_for.steps)
        shown, checked, division = calibration_and_check(arguments, model.data, load)
        calibration = None if shown is None else shown.inputs
        checked = None if arguments.stop_after else checked
        if checked is not None:
            provenance["data"] = json.dumps(checked.spec(), sort_keys=True)
    if arguments.max_drop is not None and (checked is None or checked.labels is None):
        raise WrongInput("--max-drop needs labelled data to measure the drop on: add --check DATA")
    if division is not None:
        kind = "" if division.calibration is not None else "warning: "
        print(f"snn-compile: {kind}{division.note}", file=sys.stderr)
    return CompileRequest(graph, calibration, checked, converted, provenance, division)


def _convert(model: LoadedModel, arguments: argparse.Namespace) -> Converted | None:
    """Convert an ONNX model on its calibration data; None for models that spike already."""
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork

    if isinstance(model.graph, RectifierNetwork):
        from snn_compile.runtime.evaluation.conversion import prepare_from_arguments

        check_writable(arguments.curve, CompileError, arguments.model)
        return prepare_from_arguments(model.graph, arguments)
    for option in ("steps", "balance", "max_pool", "curve"):
        if getattr(arguments, option) is not None:
            raise CompileError(f"--{option.replace('_', '-')} is for ONNX models; {model.name} is none")
    return None


def _options(arguments: argparse.Namespace, request: CompileRequest) -> Options:
    from snn_compile.compiler.pipeline import Options

    return Options(
        weight_bits=8 if arguments.bits == "auto" else arguments.bits,
        tables=arguments.tables,
        rounding=arguments.rounding,
        c_slow=arguments.c_slow,
        relax_timing=arguments.relax_timing,
        approximate=arguments.approximate,
        mapper=arguments.mapper,
        mapper_effort=arguments.mapper_effort,
        spread=arguments.spread,
        chips=arguments.chips,
        conventions=parse_conventions(arguments.convention),
        strict=arguments.strict,
        provenance=request.provenance,
    )


def _search(request: CompileRequest, arguments: argparse.Namespace, options: Options) -> Search:
    """Search bits and tables on calibration data, accuracy measured on the check data."""
    from snn_compile.runtime.evaluation.mixed_precision import search_precision

    if request.calibration is None:
        raise WrongInput("--bits auto searches on calibration data: add --calibrate DATA")
    if arguments.stop_after:
        raise CompileError("--bits auto runs programs, so it cannot stop early; leave out --stop-after")
    checked = request.checked
    labelled = checked if checked is not None and checked.labels is not None else None
    return search_precision(
        request.graph,
        arguments.target,
        options,
        request.calibration,
        labelled.inputs if labelled else None,
        labelled.labels if labelled else None,
        arguments.max_drop,
        arguments.max_cores,
        lambda text: print(f"snn-compile: measured {text}", file=sys.stderr),
    )


def _print_running(data: Dataset) -> None:
    print(f"snn-compile: running {len(data.inputs)} samples of {data.name} ({data.split})", file=sys.stderr)


def _measure(done: Compilation, data: Dataset | None) -> Report | None:
    """Compare program and float network on the data, if there is any."""
    if data is None or done.program is None:
        return None
    from snn_compile.runtime import compare

    _print_running(data)
    return compare(done.program, done.network, data.inputs, data.labels, data=data.spec())


def _measure_steps(
    done: Compilation, converted: Converted, arguments: argparse.Namespace
) -> tuple[Compilation, Report | None, Curve | None]:
    """Measure a converted model against its float model, over numbers of steps."""
    if converted.checked is None or done.program is None:
        return done, None, None
    _print_running(converted.checked)
    limit = arguments.max_drop if arguments.steps == "auto" else None
    program, report, curve = converted.measure(done.program, limit)
    if arguments.curve:
        curve.save(arguments.curve)
    return replace(done, program=program), report, curve


def _result(
    done: Compilation,
    report: Report | None,
    curve: Curve | None,
    request: CompileRequest,
    arguments: argparse.Namespace,
    failed: list[str],
    found: Search | None,
) -> dict[str, Any]:
    """Return what `--json` prints."""
    from snn_compile.compiler.analysis.dt_sensitivity import REPORT, sensitivity_json
    from snn_compile.compiler.cli.result import result_json

    result = result_json(done, report, arguments, failed, found)
    if request.converted is not None:
        result |= request.converted.json(curve)
    if (division := request.division) is not None and division.calibration is None:
        result["warnings"] = [division.note, *result["warnings"]]
    result["warnings"] = [*result["warnings"], *(report.warnings() if report is not None else ())]
    result["holdout"] = None if division is None else division.json()
    stated, data = parse_conventions(arguments.convention), (request.calibration, request.checked)
    result["sensitivity"] = sensitivity_json(request.graph, data, stated, arguments.max_mismatch, *REPORT)
    return result


def _print_result(result: dict[str, Any], report: Report | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    from snn_compile.compiler.cli.tables import compilation_text

    print(compilation_text(result, report), end="")
    if "conversion" in result:
        from snn_compile.compiler.cli.conversion_tables import conversion_text

        print(conversion_text(result["conversion"], result["curve"]), end="")


def _show_stage(done: Compilation, arguments: argparse.Namespace) -> int:
    from snn_compile.compiler.cli.result import stage_json
    from snn_compile.compiler.cli.tables import stage_text

    result = stage_json(done, arguments.stop_after)
    print(json.dumps(result) if arguments.json else stage_text(result), end="\n" if arguments.json else "")
    return 0
