"""The command `snn-compile`: whether a model fits a chip, what quantization changes, and what it would cost.

The result goes to stdout, messages go to stderr. Exit codes: 0 done; 1 the input, the model or the chip is at
fault; 2 usage; 3 compiled, but a stated gate (--max-drop, --max-cores) failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from snn_compile.compiler.cli.arguments import compile_parser, export_parser, inspect_parser
from snn_compile.compiler.cli.console import closed_pipe, deferred_warnings, is_program, parse_conventions
from snn_compile.targets.errors import CompileError, SnnCompileError, naming_extras
from snn_compile.targets.output import check_writable, write_whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's arguments) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with deferred_warnings(), naming_extras():
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
    from snn_compile.compiler.cli.compile import compile_command

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
    code = compile_command(options)
    sys.stdout.flush()  # a reader that went away is noticed here, not at exit
    return code


def _list_targets(as_json: bool) -> int:
    from snn_compile.targets.chips.chip import boards, chip_names, load_chip

    chips = {name: load_chip(name) for name in (*chip_names(), *boards())}
    if as_json:
        rows = [
            {
                "target": f"{name}-sim",
                "chip": c.name,
                "title": c.heading,
                "cores": c.all_cores if c.mapped else None,
                "chips": c.chips,
                "device": c.default_device,
            }
            for name, c in chips.items()
        ]
        print(json.dumps({"schema": {"name": "snn-compile-targets", "version": 1}, "targets": rows}))
    else:
        for name, chip in chips.items():
            cores = f"{chip.all_cores:,} cores" if chip.mapped else "not mapped"
            print(f"{name}-sim   {chip.heading}: {cores}; runs on {chip.default_device}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from snn_compile.compiler.analysis.dt_sensitivity import sensitivity_json
    from snn_compile.compiler.cli.inspect import inspection_json, inspection_text, program_json
    from snn_compile.compiler.cli.model import data_shape, load_model, model_data, torch_source
    from snn_compile.compiler.frontends.read import naming

    if is_program(arguments.model):
        from snn_compile.targets.program.file import load_program

        result = program_json(load_program(arguments.model), Path(arguments.model).name)
    else:
        source = torch_source(arguments, test=arguments.data)
        shape = arguments.input_shape or partial(data_shape, (arguments.data, "test"))
        with naming(arguments.model):
            stated = parse_conventions(arguments.convention)
            model = load_model(arguments.model, source, input_shape=shape, stated=stated)
            result = inspection_json(model.graph, model.name, stated, arguments.strict)
            if arguments.data and not result.get("open"):
                shown = model.presentation(stated)
                data = (model_data(arguments.data, "test", model.data, shown),)
                result["sensitivity"] = sensitivity_json(model.graph, data, stated, arguments.max_mismatch)
    print(
        json.dumps(result) if arguments.json else inspection_text(result), end="\n" if arguments.json else ""
    )
    return 0


def _export(arguments: argparse.Namespace) -> int:
    import nir

    from snn_compile.compiler.cli.model import load_model, torch_source
    from snn_compile.compiler.contract.contract import attach
    from snn_compile.compiler.contract.resolve import resolution
    from snn_compile.compiler.contract.unheld import lines_of
    from snn_compile.compiler.frontends.read import naming

    check_writable(arguments.output, CompileError, arguments.model)
    model = load_model(arguments.model, torch_source(arguments), input_shape=arguments.input_shape)

    if not isinstance(model.graph, nir.NIRGraph):
        raise CompileError(f"{model.name} holds no NIR graph; snn-compile reads it as it is")
    if arguments.convention or arguments.strict:
        with naming(arguments.model):
            found = resolution(model.graph, parse_conventions(arguments.convention), arguments.strict)
        attach(model.graph, found.contract)
        for line in lines_of(found.assumptions):
            print(f"snn-compile: {line}", file=sys.stderr)

    write_whole(arguments.output, lambda path: nir.write(path, model.graph), CompileError)
    print(f"snn-compile: graph written to {arguments.output}", file=sys.stderr)
    return 0
