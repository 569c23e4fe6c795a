"""The command snn-train: train a preset or a TOML configuration and write the best checkpoint.

stdout is the result, stderr holds progress and errors. Exit codes: 0 done, 1 the configuration, the data or
the training is at fault, 2 usage, 130 interrupted (the best checkpoint so far stays).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.targets.errors import SnnCompileError, naming_extras
from snn_compile.targets.output import check_writable
from snn_compile.train.cli.progress import progress_bar, shown
from snn_compile.train.configs.config import RunConfig
from snn_compile.train.configs.presets import PRESETS, read_config

if TYPE_CHECKING:
    from snn_compile.train.algorithms.training import Training

INTERRUPTED = 130
DYNAMICS = "dynamics"


def main(argv: Sequence[str] | None = None) -> int:
    """Run snn-train with `argv` (the process's own arguments if None) and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "analyse":
        return _reported(lambda: _analyse(argv[1:]))
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.list_presets:
        _print_presets(arguments.json)
        return 0
    if arguments.config == DYNAMICS:
        return _reported(lambda: _dynamics(arguments.set, arguments.output, arguments.json))
    if arguments.config is None or arguments.output is None:
        parser.error("give a preset or a .toml file, and -o MODEL.pt (or --list-presets)")
    return _reported(lambda: _train(arguments), "interrupted before the first epoch ended")


def _reported(run: Callable[[], int], when: str = "interrupted") -> int:
    """Return the exit code of `run`; errors and interrupts are reported in one line."""
    try:
        with naming_extras():
            return run()
    except SnnCompileError as error:
        print(f"snn-train: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"snn-train: {when}; nothing was written", file=sys.stderr)
        return INTERRUPTED


def _analyse(argv: Sequence[str]) -> int:
    from snn_compile.train.cli.analyse import analyse, table

    found, as_json = analyse(argv)
    print(json.dumps(found) if as_json else table(found))
    if found.get("interrupted"):
        print("snn-train: interrupted; only finished trainings are reported", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snn-train",
        description="Train a spiking network and write its best checkpoint.",
        epilog="Any key of the configuration can be set: --set epochs=5 --set seed=1 "
        "--set data=my.npz --set recurrent=false. --set weight_bits=4 trains in the chip's integers, "
        "--set init=model.pt starts from a checkpoint. A .toml file holds the same keys. See also snn-train "
        "analyse --help: divergence boundary, gradients through time, error landscapes, convergence.",
    )
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG.toml|PRESET",
        help=f"a configuration file, or one of {', '.join(PRESETS)}; or {DYNAMICS}, which trains nothing: it "
        "measures orders of Euler-Maruyama and Lyapunov exponents of noisy LIF networks (--set paths=, "
        "levels=, seed=; -o FIGURE.png)",
    )
    parser.add_argument("-o", "--output", metavar="MODEL.pt", type=Path, help="where the checkpoint goes")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one key of the configuration; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--list-presets", action="store_true", help="list the presets and stop")
    return parser


def _print_presets(as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "schema": {"name": "snn-train-presets", "version": 1},
                    "presets": {name: line for name, (line, _) in PRESETS.items()},
                }
            )
        )
        return
    width = max(len(name) for name in PRESETS)
    for name, (line, _) in PRESETS.items():
        print(f"{name:{width}}  {line}")


def _check_output(path: Path) -> None:
    check_writable(path)
    if path.suffix not in (".pt", ".pth"):
        raise SnnCompileError(f"-o {path}: the other commands know a checkpoint by its ending; use .pt")


def _dynamics(overrides: Sequence[str], figure: Path | None, as_json: bool) -> int:
    """Run the experiment; it writes no model, and its figure where -o says so."""
    from snn_compile.train.analysis.dynamics import draw_dynamics, dynamics_text, run_dynamics

    values: dict[str, int] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        if key not in ("paths", "levels", "seed"):
            raise SnnCompileError(f"--set {key}: {DYNAMICS} has the keys paths, levels and seed", key=key)
        if not text.isdecimal():
            raise SnnCompileError(f"--set {override}: {key} is a whole number", key=key)
        values[key] = int(text)
    if figure is not None and (figure.suffix not in (".png", ".pdf", ".svg") or not figure.parent.is_dir()):
        raise SnnCompileError(
            f"-o {figure}: {DYNAMICS} writes no model; name a figure (.png, .pdf or .svg) in a folder "
            "that exists"
        )
    result, found = run_dynamics(**values, tell=lambda text: print(f"snn-train: {text}", file=sys.stderr))
    if figure is not None:
        draw_dynamics(found, figure)
    print(json.dumps(result) if as_json else dynamics_text(result))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    config = read_config(arguments.config, arguments.set)
    path = arguments.output
    _check_output(path)
    fit = import_module(f"snn_compile.train.algorithms.{config.algorithm}").fit
    started = time.process_time()
    with progress_bar(config.epochs) as observe:
        training = fit(config, path, observe)
    result = _result(config, training, path, time.process_time() - started)
    print(json.dumps(result) if arguments.json else _table(result))
    if training.interrupted:
        print(f"snn-train: interrupted; {path} holds the best epoch so far", file=sys.stderr)
        return INTERRUPTED
    return 0


def _result(config: RunConfig, training: Training, path: Path, seconds: float) -> dict[str, Any]:
    metrics, name = dict(training.metrics), training.metric
    split = "validation" if training.interrupted else "test"
    return {
        "schema": {"name": "snn-train", "version": 1},
        "preset": config.preset,
        "seed": config.seed,
        "checkpoint": str(path),
        "metric": {"name": name, "value": metrics[f"{split}_{name}"], "split": split},
        f"validation_{name}": metrics[f"validation_{name}"],
        "best_epoch": metrics["epoch"],
        "epochs": training.epochs,
        "cpu_seconds": round(seconds, 2),
        "spike_rate": metrics["spike_rate"],
        "spike_rates": metrics["spike_rates"],
        **{key: value for key, value in metrics.items() if key not in ("epoch", f"test_{name}")},
        "interrupted": training.interrupted,
    }


def _table(result: dict[str, Any]) -> str:
    metric = result["metric"]
    name = metric["name"]
    rates = ", ".join(f"{layer} {rate:.3f}" for layer, rate in result["spike_rates"].items())
    rows = {
        "preset": f"{result['preset']} (seed {result['seed']})",
        f"{metric['split']} {name}": shown(name, metric["value"]),
        f"validation {name}": shown(name, result[f"validation_{name}"]),
        "epochs": f"{result['epochs']} (best {result['best_epoch']})",
        "spike rate": f"{result['spike_rate']:.3f} per neuron and step ({rates})",
        "cpu seconds": f"{result['cpu_seconds']:.1f}",
        "checkpoint": result["checkpoint"],
    }
    more = list(result)[list(result).index("spike_rates") + 1 : -1]
    rows |= {
        key.replace("_", " "): shown(key, result[key]) for key in more if not isinstance(result[key], dict)
    }
    width = max(map(len, rows))
    return "\n".join(f"{key:{width}}  {value}" for key, value in rows.items())
