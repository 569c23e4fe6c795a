"""snn-run: run a program on data; report accuracy, counts and cost.

    snn-run PROGRAM --data DATA [--device NAME] [--against MODEL] [--max-drop PP] [--check]
                    [--samples N] [--steps N] [--report FILE] [--threads N] [--json]
    snn-run diverge PROGRAM --against MODEL --data DATA [--samples N] [--report FILE] [--json]
    snn-run loop PROGRAM [--environment NAME] [--episodes N] [--device NAME] [--json]
    snn-run --list-devices

stdout is the result, stderr holds messages. Exit codes: 0 done; 1 invalid input; 2 usage; 3 a
gate (--check, --max-drop, --min-return) failed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.runtime.cli.arguments import diverge_parser, loop_parser, run_parser
from snn_compile.targets.errors import SnnCompileError, WrongInput, WrongProgram, naming_extras

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork
    from snn_compile.runtime.data.registry import Dataset
    from snn_compile.runtime.evaluation.compare import Check
    from snn_compile.runtime.reports.report import Report
    from snn_compile.targets.devices.record import RunRecord
    from snn_compile.targets.program.program import Program

_SPLIT = "test"
Observer = Callable[[int, int], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with naming_extras():
            code = _command(arguments)
        sys.stdout.flush()  # a closed pipe is noticed here, not at exit
        return code
    except SnnCompileError as error:
        print(f"snn-run: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("snn-run: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        from snn_compile.compiler.cli.console import closed_pipe

        return closed_pipe()


def _command(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in _SUBCOMMANDS:
        return _SUBCOMMANDS[arguments[0]](arguments[1:])
    parser = run_parser()
    options = parser.parse_args(arguments)
    if options.list_devices:
        _list_devices(options.json)
        return 0
    _check_usage(parser, options)
    return _run(parser, options)


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.program is None:
        parser.error("the following arguments are required: PROGRAM")
    for name in ("max_drop", "convention", "strict", "input_shape"):
        if getattr(options, name) not in (None, [], False) and options.against is None:
            parser.error(f"--{name.replace('_', '-')} needs --against MODEL")
    for name in ("samples", "threads", "steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; it must be at least 1")


def _list_devices(as_json: bool) -> None:
    from snn_compile.targets.devices.registry import conflicts, listings

    devices = {name: listing.text for name, listing in listings().items()}
    for line in conflicts():
        _message(line)
    if as_json:
        print(json.dumps({"schema": {"name": "snn-compile-devices", "version": 1}, "devices": devices}))
    else:
        print("\n".join(f"{name:<14} {text}".rstrip() for name, text in devices.items()))


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from snn_compile.runtime.evaluation.compare import check_labels, report
    from snn_compile.runtime.execution.core_counters import check_counters, save_counters
    from snn_compile.runtime.execution.run import take
    from snn_compile.runtime.reports.report import check_format
    from snn_compile.runtime.reports.sanafe_files import check_folder, write_sanafe
    from snn_compile.targets.devices.device import open_device
    from snn_compile.targets.devices.registry import device_names
    from snn_compile.targets.program.file import load_program

    for file in options.report:
        check_format(file)
    if options.counters:
        check_counters(options.counters)
    if options.sanafe:
        check_folder(options.sanafe)
    if options.device not in device_names():
        open_device(options.device)  # raises, naming the devices there are
    program = load_program(options.program)
    network = _load_network(options, program) if options.against else None
    dataset = _load_dataset(parser, options, program)
    inputs, labels = dataset.inputs[: options.samples], dataset.labels
    labels = None if labels is None else labels[: options.samples]
    check_labels(program, inputs, labels)
    if options.max_drop is not None and labels is None:
        raise WrongInput(f"--max-drop needs labels, and data {dataset.name} has none")
    record, outcome = _execute(program, inputs, options)
    ideal = _reference(network, inputs)
    made = report(program, record, labels, ideal, {**dataset.spec(), "split": dataset.split}, inputs)
    for warning in made.warnings():
        _message(f"warning: {warning}")
    passed = outcome is None or outcome.difference is None
    gates = {} if outcome is None else {"check": outcome.json()}
    if options.max_drop is not None:
        gates["max_drop"] = _drop_gate(made, options.max_drop)
        passed = passed and gates["max_drop"]["passed"]
    _write_reports(options, program, made, inputs, labels)
    if options.counters:
        with _progress("counters") as observe:
            save_counters(options.counters, program, inputs, options.device, observe)
        _message(f"wrote {options.counters}")
    if options.sanafe:
        write_sanafe(program, take(inputs, 0, 1), options.sanafe)
        _message(
            f"wrote arch.yaml and snn.yaml to {options.sanafe}: run "
            f"{program.device_steps(inputs.shape[1])} steps"
        )
    _print_result(options, made, outcome, gates)
    return 0 if passed else 3


def _diverge(arguments: Sequence[str]) -> int:
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork
    from snn_compile.runtime.divergence.diverge import diverge
    from snn_compile.runtime.reports.report import check_format
    from snn_compile.targets.devices.device import open_device
    from snn_compile.targets.devices.registry import device_names
    from snn_compile.targets.program.file import load_program

    parser = diverge_parser()
    options = parser.parse_args(arguments)
    if options.against is None:
        parser.error("diverge compares with a network: --against MODEL is required")
    if options.samples < 1:
        parser.error(f"--samples is {options.samples}; it must be at least 1")
    for file in options.report:
        check_format(file)
    if options.device not in device_names():
        open_device(options.device)  # raises, naming the devices there are
    program = load_program(options.program)
    network = _load_network(options, program)
    if isinstance(network, RectifierNetwork):
        raise WrongInput(f"{options.against} has no spikes to compare; snn-compile reports how it converts")
    dataset = _load_dataset(parser, options, program)
    inputs, labels = dataset.inputs[: options.samples], dataset.labels
    if len(dataset.inputs) > len(inputs):
        _message(f"the first {len(inputs)} of {len(dataset.inputs)} samples; --samples N takes more")
    with _progress("causes") as observe:
        kept = None if labels is None else labels[: options.samples]
        found = diverge(program, network, inputs, kept, options.device, observe)
    stated = ["--model", options.factory] if options.factory else []
    stated += ["--forward", options.forward] if options.forward else []
    stated += [word for item in options.convention for word in ("--convention", item)]
    names = (options.against, dataset.name, stated)
    for file in options.report:
        found.save(file, *names)
        _message(f"wrote {file}")
    body = {**found.json(*names), "data": {**dataset.spec(), "split": dataset.split}}
    print(json.dumps(body, allow_nan=False) if options.json else found.text(*names), end="\n" * options.json)
    return 0


def _loop(arguments: Sequence[str]) -> int:
    from snn_compile.runtime.cli.loop import run_loop

    parser = loop_parser()
    options = parser.parse_args(arguments)
    for name in ("episodes", "steps"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}; it must be at least 1")
    with _progress("episodes") as observe:
        done = run_loop(options, observe)
    if not done.passed:
        _message(f"the mean return is {done.episodes.mean:.2f}, below the {options.min_return:g} asked for")
    print(json.dumps(done.json(), allow_nan=False) if options.json else done.text(), end="\n" * options.json)
    return 0 if done.passed else 3


_SUBCOMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"diverge": _diverge, "loop": _loop}


def _load_network(options: argparse.Namespace, program: Program) -> Network | RectifierNetwork:
    from snn_compile.compiler.cli.console import parse_conventions
    from snn_compile.compiler.cli.model import load_model, torch_source
    from snn_compile.compiler.contract.unheld import lines_of
    from snn_compile.compiler.frontends.read import naming
    from snn_compile.compiler.lowering.lower import lower
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork

    file = options.against

    try:
        # The program's input has the shape that the file may leave open.
        shape = options.input_shape or partial(_input_shape, program)
        stated = parse_conventions(options.convention)
        model = load_model(file, torch_source(options, test=options.data), input_shape=shape, stated=stated)
    except ModuleNotFoundError as error:
        raise WrongInput(
            f"{file}: reading a checkpoint needs {error.name}; install "
            "snn-compile[train], or give the model as .nir"
        ) from error
    network: Network | RectifierNetwork
    if isinstance(model.graph, RectifierNetwork):
        network = model.graph
        digest, expected = network.digest, program.provenance.get("graph")
    else:
        with naming(file):
            network = lower(model.graph, stated, options.strict)
        for line in lines_of(network.assumptions):
            _message(line)
        digest, expected = network.digest(), program.provenance.get("network")
    if expected and digest != expected:
        _message(
            f"{file} is not the network this program was compiled from (digest "
            f"{digest[:12]}, expected {expected[:12]})"
        )
    return network


def _input_shape(program: Program) -> tuple[int, ...] | None:
    return program.inputs[0].shape if program.inputs else None


def _load_dataset(parser: argparse.ArgumentParser, options: argparse.Namespace, program: Program) -> Dataset:
    from snn_compile.runtime.data.registry import load_data, load_still, same_set

    spec = _data_spec(program)
    if options.data is None and spec is None:
        parser.error("--data is required: the program does not record what data it was compiled for")
    name = options.data if options.data is not None else (spec or {})["name"]
    chosen = spec["options"] if spec and same_set(name, spec["name"]) else {}
    steps = program.provenance.get("steps")
    wanted = getattr(options, "steps", None)  # diverge has no such option
    if wanted is not None and steps is None:
        raise WrongInput("--steps is for converted models; this program takes data with their own steps")
    if steps is not None:
        chosen = {**chosen, "steps": wanted or int(steps)}
        dataset = load_still(name, _SPLIT, program.inputs[0].shape, **chosen)
    else:
        dataset = load_data(name, _SPLIT, **chosen)
    if chosen:
        words = ", ".join(f"{key}={value}" for key, value in chosen.items())
        _message(f"data {name}, split {dataset.split}, as the program was compiled for: {words}")
    return dataset


def _data_spec(program: Program) -> dict[str, Any] | None:
    text = program.provenance.get("data")
    if not text:
        return None
    try:
        spec = json.loads(text)
        return {"name": str(spec["name"]), "options": dict(spec.get("options") or {})}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongProgram(
            f"the program's provenance names its data in an unknown format: {text!r}; give --data"
        ) from error


def _execute(program: Program, inputs: Any, options: argparse.Namespace) -> tuple[RunRecord, Check | None]:
    from snn_compile.runtime.evaluation.compare import check
    from snn_compile.runtime.execution.run import simulate_batches

    if options.check:
        against = "oracle" if options.device == "loihi2-sim" else "loihi2-sim"
        with _progress(f"{options.device} and {against}") as observe:
            outcome = check(program, inputs, options.device, against, options.threads, observe)
        return outcome.record, outcome
    with _progress(options.device) as observe:
        return simulate_batches(program, inputs, options.device, options.threads, observe), None


def _reference(network: Network | RectifierNetwork | None, inputs: Any) -> RunRecord | None:
    from snn_compile.compiler.onnx.relu_network import RectifierNetwork
    from snn_compile.runtime.execution.run import reference_batches

    if network is None:
        return None
    if isinstance(network, RectifierNetwork):
        from snn_compile.runtime.evaluation.step_curve import float_record

        return float_record(network, inputs[:, 0])
    with _progress("float reference") as observe:
        return reference_batches(network, inputs, observe=observe)


def _drop_gate(made: Report, limit: float) -> dict[str, Any]:
    drop = made.accuracy.drop if made.accuracy else None
    if drop is None:
        raise WrongInput("--max-drop needs a program that classifies; this one has no accuracy")
    passed = drop <= limit + 1e-9  # a drop of exactly the limit passes, whatever its last bit
    if not passed:
        _message(f"accuracy drops by {drop:.2f} points, more than the {limit:g} allowed")
    return {"limit": limit, "drop": drop, "passed": passed}


def _write_reports(
    options: argparse.Namespace, program: Program, made: Report, inputs: Any, labels: Any
) -> None:
    trace = None
    if any(Path(file).suffix != ".json" for file in options.report):
        from snn_compile.runtime.reports.figure import trace as run_trace

        trace = run_trace(program, inputs, labels, 0, options.device)
    for file in options.report:
        made.save(file, trace)
        _message(f"wrote {file}")


def _print_result(
    options: argparse.Namespace, made: Report, outcome: Check | None, gates: dict[str, Any]
) -> None:
    if options.json:
        print(json.dumps({**made.json(), **gates}, allow_nan=False))
        return
    print(made.text(), end="")
    if outcome is not None:
        print(f"check: {outcome}")


def _message(text: str) -> None:
    print(f"snn-run: {text}", file=sys.stderr)


@contextmanager
def _progress(name: str) -> Iterator[Observer]:
    """Show a bar on stderr, if that is a terminal, until the block ends."""
    if not sys.stderr.isatty():
        yield lambda done, samples: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, samples: bar.update(task, completed=done, total=samples)
