"""The command `snn-compile`: does it fit, what did the integers do to it, what would it cost.

stdout is the result, stderr the talk. Exit codes: 0 done; 1 the input, the model or the chip is at
fault; 2 usage; 3 compiled, but a stated gate (--max-drop) failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.arguments import compile_parser, export_parser, inspect_parser
from snn_compile.targets.errors import CompileError, SnnCompileError, WrongInput

if TYPE_CHECKING:
    from snn_compile.compiler.pipeline import Compilation, Options
    from snn_compile.compiler.search import Search
    from snn_compile.runtime.data import Dataset
    from snn_compile.runtime.report import Report

SCHEMA = {"name": "snn-compile", "version": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's arguments) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="snn-compile: %(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        if arguments[:1] == ["inspect"]:
            return _inspect(inspect_parser().parse_args(arguments[1:]))
        if arguments[:1] == ["export"]:
            return _export(export_parser().parse_args(arguments[1:]))
        parser = compile_parser()
        options = parser.parse_args(arguments)
        if options.list_targets:
            return _list_targets(options.json)
        if options.model is None:
            parser.error("name a MODEL (.pt, .nir or .net), or --list-targets")
        if options.bits == "auto" and options.max_drop is None and options.max_cores is None:
            parser.error("--bits auto needs a limit to search within: --max-drop PP or --max-cores N")
        code = _compile(options)
        sys.stdout.flush()  # a reader that went away is noticed here, not at exit
        return code
    except SnnCompileError as error:
        print(f"snn-compile: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("snn-compile: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return closed_pipe()


def closed_pipe() -> int:
    """Return the exit code for a reader that went away, with nothing left to flush into the pipe."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open until the process ends
    return 141


@dataclass(frozen=True, eq=False)
class Model:
    """A model as commands take it: its graph, its name, and the spec of the data it was trained on."""

    graph: Any
    name: str
    data: dict[str, Any] | None = None


def load_model(path: str | Path, factory: str | None = None) -> Model:
    """Read a checkpoint (.pt), a graph (.nir) or a lava-dl network (.net); no code of the file is run.

    With `factory` ("package.module:factory") a .pt is a state dict of the network that this builds.
    """
    file = Path(path)
    if factory is not None:
        from snn_compile.train.foreign import load_foreign

        return Model(load_foreign(file, factory).graph, file.name)
    if file.suffix.lower() in (".pt", ".pth"):
        from snn_compile.train.checkpoint import load_checkpoint

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on files that are refused anyway
            checkpoint = load_checkpoint(file)
        data = checkpoint.data
        return Model(checkpoint.graph, file.name, dict(data) if data else None)
    from snn_compile.compiler.frontends import read_graph

    return Model(read_graph(file), file.name)


def model_data(name: str | None, split: str, spec: dict[str, Any] | None) -> Dataset | None:
    """Return the data set `name`, or the model's own if None; options come from the model's spec when
    it names the same set.
    """
    from snn_compile.runtime.data import load_data, same_set

    if name is None and spec is None:
        return None
    own = spec is not None and (name is None or same_set(name, spec["name"]))
    options = dict(spec["options"]) if own and spec is not None else {}
    return load_data(name if name is not None else spec["name"] if spec else "", split, **options)


def conventions(stated: Sequence[str]) -> dict[str, Any]:
    """Parse `--convention key=value`; delays are written SOURCE:TARGET:STEPS and may be repeated."""
    found: dict[str, Any] = {}
    for item in stated:
        key, equals, text = item.partition("=")
        if not equals:
            raise CompileError(f"--convention {item}: write it as key=value, for example dt=1e-4")
        if key == "delays":
            parts = text.rsplit(":", 2)
            if len(parts) != 3 or not parts[2].isdigit():
                raise CompileError(f"--convention {item}: write it as delays=SOURCE:TARGET:STEPS")
            found.setdefault("delays", {})[parts[0], parts[1]] = int(parts[2])
            continue
        try:
            found[key] = float(text)
        except ValueError:
            found[key] = text
    return found


def _list_targets(as_json: bool) -> int:
    from snn_compile.targets.chip import chip_names, load_chip

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


def _compile(arguments: argparse.Namespace) -> int:
    from snn_compile.compiler import gates
    from snn_compile.compiler.pipeline import Options, compile_stages
    from snn_compile.targets.chip import load_chip

    load_chip(arguments.target)  # an unknown target is known before the model is read
    _check_output(arguments.output, arguments.model)
    if arguments.stop_after and arguments.output:
        raise CompileError("--stop-after makes no program, so there is nothing to write to -o")
    model = load_model(arguments.model, arguments.factory)
    calibration = model_data(arguments.calibrate, "calibration", model.data)
    checked = None if arguments.stop_after else model_data(arguments.check, "test", model.data)
    if arguments.max_drop is not None and (checked is None or checked.labels is None):
        raise WrongInput("--max-drop needs labelled data to measure the drop on: add --check DATA")
    provenance = {"model": model.name}
    if checked is not None:
        provenance["data"] = json.dumps(checked.spec(), sort_keys=True)
    options = Options(
        weight_bits=8 if arguments.bits == "auto" else arguments.bits,
        tables=arguments.tables,
        rounding=arguments.rounding,
        c_slow=arguments.c_slow,
        relax_timing=arguments.relax_timing,
        conventions=conventions(arguments.convention),
        provenance=provenance,
    )
    found = None
    if arguments.bits == "auto":
        found = _search(model, arguments, options, calibration, checked)
        options = replace(options, plan=found.chosen.plan)
    done = compile_stages(
        model.graph,
        arguments.target,
        options,
        None if calibration is None else calibration.inputs,
        _tell_stage,
        arguments.stop_after,
    )
    for warning in _warnings(done):
        print(f"snn-compile: warning: {warning}", file=sys.stderr)
    if done.program is None:
        return _show_stage(done, arguments)
    report = _measure(done, checked, options)
    failed = gates.failures(done, report, found, arguments.max_drop, arguments.max_cores)
    if arguments.output:
        with _writing(arguments.output):
            done.program.save(arguments.output)
    result = _result(done, report, arguments, failed, found)
    if arguments.json:
        print(json.dumps(result))
    else:
        from snn_compile.compiler.tables import compilation_text

        print(compilation_text(result, report), end="")
    if arguments.output:
        print(f"snn-compile: program written to {arguments.output}", file=sys.stderr)
    for failure in failed:
        print(f"snn-compile: gate failed: {failure}", file=sys.stderr)
    return 3 if failed else 0


def _search(
    model: Model,
    arguments: argparse.Namespace,
    options: Options,
    calibration: Dataset | None,
    checked: Dataset | None,
) -> Search:
    """Search bits and tables on calibration data, accuracy measured on the check data."""
    from snn_compile.runtime.search import search_precision

    if calibration is None:
        raise WrongInput("--bits auto searches on calibration data: add --calibrate DATA")
    if arguments.stop_after:
        raise CompileError("--bits auto runs programs, so it cannot stop early; leave out --stop-after")
    labelled = checked is not None and checked.labels is not None
    return search_precision(
        model.graph,
        arguments.target,
        options,
        calibration.inputs,
        checked.inputs if checked is not None and labelled else None,
        checked.labels if checked is not None and labelled else None,
        arguments.max_drop,
        arguments.max_cores,
        lambda text: print(f"snn-compile: measured {text}", file=sys.stderr),
    )


def _check_output(path: str | None, model: str) -> None:
    if path is None:
        return
    if Path(path).resolve() == Path(model).resolve():
        raise CompileError(f"cannot write {path}: it is the model itself; name another file")
    if not Path(path).resolve().parent.is_dir():
        raise CompileError(f"cannot write {path}: its folder does not exist")
    if Path(path).is_dir():
        raise CompileError(f"cannot write {path}: it is a folder")


def _warnings(done: Compilation) -> list[str]:
    """Return what the user should know: conventions stated against the file, then what rounding did."""
    against = [
        f"{item} is {getattr(done.network.contract, item)}: {how}; this is another network"
        for item, how in done.network.decided.items()
        if "against" in how
    ]
    return [*against, *(done.quantized.warnings if done.quantized else ())]


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CompileError(f"cannot write {path}: {error.strerror or error}", path=path) from error


def _tell_stage(name: str, value: Any, seconds: float) -> None:
    print(f"snn-compile: {name} {seconds * 1000:.0f} ms", file=sys.stderr)


def _measure(done: Compilation, data: Dataset | None, options: Options) -> Report | None:
    """Compare program and float network on the data, if there is any."""
    if data is None or done.program is None:
        return None
    from snn_compile.runtime import compare

    print(f"snn-compile: running {len(data.inputs)} samples of {data.name} ({data.split})", file=sys.stderr)
    return compare(done.program, done.network, data.inputs, data.labels, data=data.spec())


def _result(
    done: Compilation,
    report: Report | None,
    arguments: argparse.Namespace,
    failed: Sequence[str],
    found: Search | None,
) -> dict[str, Any]:
    from snn_compile.compiler.tables import quantization_json, resources_json

    assert done.program is not None and done.quantized is not None
    measured = report.json() if report else {}
    gate: dict[str, Any] | None = None
    if arguments.max_drop is not None or arguments.max_cores is not None:
        gate = {
            key: getattr(arguments, key)
            for key in ("max_drop", "max_cores")
            if getattr(arguments, key) is not None
        } | {"passed": not failed}
    searched: dict[str, Any] = {}
    if found is not None:
        from snn_compile.compiler.front import front_json

        searched = {
            "front": front_json(found),
            "search": {"measured": len(found.points), "met": found.met, "unmet": list(failed)},
        }
    return {
        "schema": SCHEMA,
        "model": Path(arguments.model).name,
        "target": arguments.target,
        "program": {"digest": done.program.digest(), "file": arguments.output},
        "fits": True,
        "cores": len(done.program.cores),
        "resources": resources_json(done.program),
        "latency_steps": done.program.latency_steps,
        "period": done.program.period,
        "quantization": quantization_json(done),
        "gate": gate,
        **searched,
        "accuracy": measured.get("accuracy"),
        "counts": measured.get("counts"),
        "energy": measured.get("energy"),
        "overflows": measured.get("overflows"),
        "input_clipped": measured.get("input_clipped"),
        "agreement": measured.get("agreement"),
        "data": measured.get("data"),
        "contract": {
            "values": json.loads(done.program.provenance["contract"]),
            "decided": dict(done.network.decided),
        },
        "warnings": _warnings(done),
    }


def _show_stage(done: Compilation, arguments: argparse.Namespace) -> int:
    from snn_compile.compiler.tables import stage_json, stage_text

    result = stage_json(done, arguments.stop_after)
    print(json.dumps(result) if arguments.json else stage_text(result), end="\n" if arguments.json else "")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from snn_compile.compiler.tables import inspection_json, inspection_text

    model = load_model(arguments.model, arguments.factory)
    result = inspection_json(model.graph, model.name, conventions(arguments.convention))
    print(
        json.dumps(result) if arguments.json else inspection_text(result), end="\n" if arguments.json else ""
    )
    return 0


def _export(arguments: argparse.Namespace) -> int:
    _check_output(arguments.output, arguments.model)
    model = load_model(arguments.model, arguments.factory)
    import nir

    if not isinstance(model.graph, nir.NIRGraph):
        raise CompileError(f"{model.name} holds integers without a NIR graph; snn-compile reads it as it is")

    from snn_compile.targets.program_file import write_whole

    with _writing(arguments.output):
        write_whole(arguments.output, lambda path: nir.write(path, model.graph))
    print(f"snn-compile: graph written to {arguments.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
