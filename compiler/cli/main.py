"""The command `snn-compile`: does it fit, what did the integers do to it, what would it cost.

stdout is the result, stderr the talk. Exit codes: 0 done; 1 the input, the model or the chip is at
fault; 2 usage; 3 compiled, but a stated gate (--max-drop, --max-cores) failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.cli.arguments import compile_parser, export_parser, inspect_parser
from snn_compile.compiler.cli.console import (
    check_output,
    closed_pipe,
    conventions,
    is_program,
    remarks_at_the_end,
    writing,
)
from snn_compile.targets.errors import CompileError, SnnCompileError, WrongInput

if TYPE_CHECKING:
    from snn_compile.compiler.calibration.mixed_precision import Search
    from snn_compile.compiler.pipeline import Compilation, Options
    from snn_compile.runtime.data.registry import Dataset
    from snn_compile.runtime.evaluation.conversion import Prepared
    from snn_compile.runtime.evaluation.step_curve import StepCurve
    from snn_compile.runtime.reports.report import Report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's arguments) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with remarks_at_the_end():
            return _run(arguments)
    except SnnCompileError as error:
        print(f"snn-compile: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("snn-compile: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return closed_pipe()


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["inspect"]:
        return _inspect(inspect_parser().parse_args(arguments[1:]))
    if arguments[:1] == ["export"]:
        return _export(export_parser().parse_args(arguments[1:]))
    parser = compile_parser()
    options = parser.parse_args(arguments)
    if options.list_targets:
        return _list_targets(options.json)
    if options.model is None:
        parser.error("name a MODEL (.pt, .nir, .net or .onnx), or --list-targets")
    if options.bits == "auto" and options.max_drop is None and options.max_cores is None:
        parser.error("--bits auto needs a limit to search within: --max-drop PP or --max-cores N")
    if options.bits == "auto" and options.tables != "auto":
        parser.error(f"--bits auto searches tables as well; leave out --tables {options.tables}")
    code = _compile(options)
    sys.stdout.flush()  # a reader that went away is noticed here, not at exit
    return code


@dataclass(frozen=True, eq=False)
class Model:
    """A model as commands take it: its graph, its name, and the spec of the data it was trained on."""

    graph: Any
    name: str
    data: dict[str, Any] | None = None


def load_model(path: str | Path, factory: str | None = None, max_pool: str | None = None) -> Model:
    """Read a checkpoint (.pt), graph (.nir), lava-dl network (.net) or .onnx; no code of the file is run.

    With `factory` ("package.module:factory") a .pt is a state dict of the network that this builds.
    `max_pool` is for ONNX: see `onnx_graph.read_onnx`.
    """
    file = Path(path)
    if file.suffix.lower() == ".onnx":
        from snn_compile.compiler.onnx.graph import read_onnx

        return Model(read_onnx(file, max_pool or "refuse"), file.name)
    if factory is not None:
        from snn_compile.train.checkpoints.state_dict import load_foreign

        return Model(load_foreign(file, factory).graph, file.name)
    if file.suffix.lower() in (".pt", ".pth"):
        from snn_compile.train.checkpoints.checkpoint import load_checkpoint

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on files that are refused anyway
            checkpoint = load_checkpoint(file)
        data = checkpoint.data
        return Model(checkpoint.checked_graph(str(file)), file.name, dict(data) if data else None)
    from snn_compile.compiler.frontends.read import read_graph

    return Model(read_graph(file), file.name)


def model_data(name: str | None, split: str, spec: dict[str, Any] | None) -> Dataset | None:
    """Return the data set `name`, or the model's own if None; options come from the model's spec when
    it names the same set.
    """
    from snn_compile.runtime.data.registry import load_data, same_set

    if name is None and spec is None:
        return None
    own = spec is not None and (name is None or same_set(name, spec["name"]))
    options = dict(spec["options"]) if own and spec is not None else {}
    return load_data(name if name is not None else spec["name"] if spec else "", split, **options)


def _list_targets(as_json: bool) -> int:
    from snn_compile.targets.chips.chip import chip_names, load_chip

    chips = [load_chip(name) for name in chip_names()]
    if as_json:
        rows = [
            {
                "target": f"{c.name}-sim",
                "chip": c.name,
                "title": c.title,
                "cores": c.cores,
                "device": c.default_device,
            }
            for c in chips
        ]
        print(json.dumps({"schema": {"name": "snn-compile-targets", "version": 1}, "targets": rows}))
    else:
        for chip in chips:
            print(f"{chip.name}-sim   {chip.title}: {chip.cores} cores; runs on {chip.default_device}")
    return 0


@dataclass(frozen=True, eq=False)
class Given:
    """What is compiled: a graph, calibration inputs, labelled data to check on, and a conversion, if any."""

    graph: Any
    calibration: Any
    checked: Dataset | None
    prepared: Prepared | None
    provenance: dict[str, str]


def _given(arguments: argparse.Namespace) -> Given:
    """Read the model and its data as the arguments name them."""
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork

    model = load_model(arguments.model, arguments.factory, arguments.max_pool)
    if arguments.bits == "auto" and isinstance(model.graph, RectifierNetwork):
        raise CompileError("--bits auto does not search converted models; give --bits N")
    prepared, provenance = _prepare(model, arguments), {"model": model.name}
    graph: Any = model.graph
    calibration: Any = None
    if prepared is not None:
        graph, calibration = prepared.conversion.network, prepared.conversion.shown_calibration()
        checked = prepared.checked
        provenance |= prepared.provenance()
    else:
        shown = model_data(arguments.calibrate, "calibration", model.data)
        calibration = None if shown is None else shown.inputs
        checked = None if arguments.stop_after else model_data(arguments.check, "test", model.data)
        if checked is not None:
            provenance["data"] = json.dumps(checked.spec(), sort_keys=True)
    if arguments.max_drop is not None and (checked is None or checked.labels is None):
        raise WrongInput("--max-drop needs labelled data to measure the drop on: add --check DATA")
    return Given(graph, calibration, checked, prepared, provenance)


def _compile(arguments: argparse.Namespace) -> int:
    from snn_compile.compiler.analysis.dt_sensitivity import REPORT, sensitivity_json
    from snn_compile.compiler.cli import gates
    from snn_compile.compiler.cli.result import result_json, warnings_of
    from snn_compile.compiler.frontends.read import naming
    from snn_compile.compiler.pipeline import Options, compile_stages
    from snn_compile.targets.chips.chip import load_chip

    load_chip(arguments.target)  # an unknown target is known before the model is read
    check_output(arguments.output, arguments.model)
    if arguments.stop_after and arguments.output:
        raise CompileError("--stop-after makes no program, so there is nothing to write to -o")
    given = _given(arguments)
    graph, calibration, checked, prepared = given.graph, given.calibration, given.checked, given.prepared
    options = Options(
        weight_bits=8 if arguments.bits == "auto" else arguments.bits,
        tables=arguments.tables,
        rounding=arguments.rounding,
        c_slow=arguments.c_slow,
        relax_timing=arguments.relax_timing,
        approximate=arguments.approximate,
        conventions=conventions(arguments.convention),
        provenance=given.provenance,
    )
    found = None
    if arguments.bits == "auto":
        found = _search(graph, calibration, arguments, options, checked)
        options = replace(options, plan=found.chosen.plan)
    with naming(arguments.model):
        done = compile_stages(
            graph, arguments.target, options, calibration, _tell_stage, arguments.stop_after
        )
    for warning in warnings_of(done):
        print(f"snn-compile: warning: {warning}", file=sys.stderr)
    if done.program is None:
        return _show_stage(done, arguments)
    if prepared is None:
        report = _measure(done, checked)
    else:
        done, report, curve = _measure_steps(done, prepared, arguments)
    program = done.program
    assert program is not None
    failed = gates.failures(done, report, found, arguments.max_drop, arguments.max_cores)
    if arguments.output:
        with writing(arguments.output):
            program.save(arguments.output)
    result = result_json(done, report, arguments, failed, found)
    if prepared is not None:
        result |= prepared.json(curve)
    data = (calibration, checked)
    result["sensitivity"] = sensitivity_json(
        graph, data, options.conventions, arguments.max_mismatch, *REPORT
    )
    _print_result(result, report, arguments.json)
    if arguments.output:
        print(f"snn-compile: program written to {arguments.output}", file=sys.stderr)
    for failure in failed:
        print(f"snn-compile: gate failed: {failure}", file=sys.stderr)
    return 3 if failed else 0


def _print_result(result: dict[str, Any], report: Report | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    from snn_compile.compiler.cli.tables import compilation_text

    print(compilation_text(result, report), end="")
    if "conversion" in result:
        from snn_compile.compiler.cli.conversion_tables import conversion_text

        print(conversion_text(result["conversion"], result["curve"]), end="")


def _prepare(model: Model, arguments: argparse.Namespace) -> Prepared | None:
    """Convert an ONNX model on its calibration data; None for models that spike already."""
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork

    if isinstance(model.graph, RectifierNetwork):
        from snn_compile.runtime.evaluation.conversion import prepare_as_asked

        check_output(arguments.curve, arguments.model)
        return prepare_as_asked(model.graph, arguments)
    for option in ("steps", "balance", "max_pool", "curve"):
        if getattr(arguments, option) is not None:
            raise CompileError(f"--{option.replace('_', '-')} is for ONNX models; {model.name} is none")
    return None


def _measure_steps(
    done: Compilation, prepared: Prepared, arguments: argparse.Namespace
) -> tuple[Compilation, Report | None, StepCurve | None]:
    """Measure a converted model against its float model, over numbers of steps."""
    data = prepared.checked
    if data is None or done.program is None:
        return done, None, None
    print(f"snn-compile: running {len(data.inputs)} samples of {data.name} ({data.split})", file=sys.stderr)
    limit = arguments.max_drop if arguments.steps == "auto" else None
    program, report, curve = prepared.measure(done.program, limit)
    if arguments.curve:
        with writing(arguments.curve):
            curve.save(arguments.curve)
    return replace(done, program=program), report, curve


def _search(
    graph: Any, calibration: Any, arguments: argparse.Namespace, options: Options, checked: Dataset | None
) -> Search:
    """Search bits and tables on calibration data, accuracy measured on the check data."""
    from snn_compile.runtime.evaluation.mixed_precision import search_precision

    if calibration is None:
        raise WrongInput("--bits auto searches on calibration data: add --calibrate DATA")
    if arguments.stop_after:
        raise CompileError("--bits auto runs programs, so it cannot stop early; leave out --stop-after")
    labelled = checked is not None and checked.labels is not None
    return search_precision(
        graph,
        arguments.target,
        options,
        calibration,
        checked.inputs if checked is not None and labelled else None,
        checked.labels if checked is not None and labelled else None,
        arguments.max_drop,
        arguments.max_cores,
        lambda text: print(f"snn-compile: measured {text}", file=sys.stderr),
    )


def _tell_stage(name: str, value: Any, seconds: float) -> None:
    print(f"snn-compile: {name} {seconds * 1000:.0f} ms", file=sys.stderr)


def _measure(done: Compilation, data: Dataset | None) -> Report | None:
    """Compare program and float network on the data, if there is any."""
    if data is None or done.program is None:
        return None
    from snn_compile.runtime import compare

    print(f"snn-compile: running {len(data.inputs)} samples of {data.name} ({data.split})", file=sys.stderr)
    return compare(done.program, done.network, data.inputs, data.labels, data=data.spec())


def _show_stage(done: Compilation, arguments: argparse.Namespace) -> int:
    from snn_compile.compiler.cli.tables import stage_json, stage_text

    result = stage_json(done, arguments.stop_after)
    print(json.dumps(result) if arguments.json else stage_text(result), end="\n" if arguments.json else "")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from snn_compile.compiler.analysis.dt_sensitivity import sensitivity_json
    from snn_compile.compiler.cli.inspect import inspection_json, inspection_text, program_json
    from snn_compile.compiler.frontends.read import naming

    if is_program(arguments.model):
        from snn_compile.targets.program.file import load_program

        result = program_json(load_program(arguments.model), Path(arguments.model).name)
    else:
        model = load_model(arguments.model, arguments.factory)
        with naming(arguments.model):
            stated = conventions(arguments.convention)
            result = inspection_json(model.graph, model.name, stated)
            if arguments.data and not result.get("open"):
                data = (model_data(arguments.data, "test", model.data),)
                result["sensitivity"] = sensitivity_json(model.graph, data, stated, arguments.max_mismatch)
    print(
        json.dumps(result) if arguments.json else inspection_text(result), end="\n" if arguments.json else ""
    )
    return 0


def _export(arguments: argparse.Namespace) -> int:
    check_output(arguments.output, arguments.model)
    model = load_model(arguments.model, arguments.factory)
    import nir

    if not isinstance(model.graph, nir.NIRGraph):
        raise CompileError(f"{model.name} holds no NIR graph; snn-compile reads it as it is")

    from snn_compile.targets.program.file import write_whole

    with writing(arguments.output):
        write_whole(arguments.output, lambda path: nir.write(path, model.graph))
    print(f"snn-compile: graph written to {arguments.output}", file=sys.stderr)
    return 0
