"""The arguments of `snn-run` and its sub-commands."""

from __future__ import annotations

import argparse

from snn_compile.compiler.cli.arguments import shape_argument

DIVERGE_SAMPLES = 256
"""Every cause costs two runs of the float network; a few hundred samples suffice."""


def run_parser() -> argparse.ArgumentParser:
    """Return the parser of `snn-run PROGRAM`."""
    parser = argparse.ArgumentParser(
        prog="snn-run",
        allow_abbrev=False,
        description="Run a compiled program on data; report accuracy, counts and cost.",
        epilog="snn-run diverge PROGRAM --against MODEL finds where and why a program differs from its "
        "network; snn-run loop PROGRAM runs it in an environment. Exit codes: 0 done, "
        "1 invalid input, 2 usage, 3 --check or --max-drop failed.",
    )
    add = parser.add_argument
    add("program", nargs="?", metavar="PROGRAM", help="program file, as snn-compile -o writes it")
    _add_shared(parser)
    add(
        "--max-drop",
        metavar="PP",
        type=float,
        help="with --against: exit 3 if accuracy drops by more percentage points than this",
    )
    add(
        "--check",
        action="store_true",
        help="compare states and spikes of every population with "
        "loihi2-sim (loihi2-sim itself with the oracle); exit 3 if they differ",
    )
    add("--samples", metavar="N", type=int, help="use the first N samples only")
    add("--steps", metavar="N", type=int, help="converted models: present each sample for N steps")
    add(
        "--counters",
        metavar="FILE",
        help="write per core and step: spikes, messages, hops, synops, updates (.csv or .parquet)",
    )
    add(
        "--sanafe",
        metavar="FOLDER",
        help="write the program and the first sample as files of SANA-FE (arch.yaml, snn.yaml)",
    )
    add("--threads", metavar="N", type=int, help="threads of loihi2-sim")
    add("--list-devices", action="store_true", help="list the devices and stop")
    return parser


def diverge_parser() -> argparse.ArgumentParser:
    """Return the parser of `snn-run diverge`."""
    parser = argparse.ArgumentParser(
        prog="snn-run diverge",
        allow_abbrev=False,
        description="Find where a program diverges from its float network, and why: float reference, "
        "integers, mapped program and device in lock-step; every cause switched alone and left out alone.",
        epilog="Exit codes: 0 done, whatever was found; 1 invalid input; 2 usage.",
    )
    parser.add_argument("program", metavar="PROGRAM", help="program file, as snn-compile -o writes it")
    _add_shared(parser)
    parser.add_argument(
        "--samples",
        metavar="N",
        type=int,
        default=DIVERGE_SAMPLES,
        help="use the first N samples (default: %(default)s)",
    )
    return parser


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `run` and `diverge` share."""
    add = parser.add_argument
    add(
        "--data",
        metavar="DATA",
        help="name of a data set, or an .npz with inputs (batch, steps, "
        "*shape) and optional labels; default: the data the program was compiled for",
    )
    add(
        "--device",
        metavar="NAME",
        default="loihi2-sim",
        help="device to run on (default: loihi2-sim; see snn-run --list-devices)",
    )
    add("--against", metavar="MODEL", help="a .pt, .nir, .net or .onnx: compare with its float reference")
    add(
        "--model",
        dest="factory",
        metavar="MODULE:FACTORY",
        help="with --against on a state dict: function that builds the network, as package.module:factory "
        "or path/to/file.py:factory",
    )
    add(
        "--forward",
        choices=("steps", "step", "image"),
        help="with --model: what forward takes, as for snn-compile (default: found by trial)",
    )
    add(
        "--input-shape",
        type=shape_argument,
        metavar="A,B,C",
        help="with --against: shape of one step of one sample, as for snn-compile (default: the program's)",
    )
    add(
        "--convention",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="with --against: state a convention that the graph leaves open, e.g. dt=1e-4 (may be repeated)",
    )
    add(
        "--strict",
        action="store_true",
        help="with --against: ask for everything that the exporter's file does not hold",
    )
    add(
        "--report",
        metavar="FILE",
        action="append",
        default=[],
        help="write a report; the suffix selects the format: .html, .json or .png (may be repeated)",
    )
    add("--json", action="store_true", help="print the result as one JSON object")


def loop_parser() -> argparse.ArgumentParser:
    """Return the parser of `snn-run loop`."""
    parser = argparse.ArgumentParser(
        prog="snn-run loop",
        allow_abbrev=False,
        description="Run a program in a gymnasium environment with discrete actions: it is opened on "
        "the device once, each observation is a direct current, and the predicted class is the action.",
        epilog="Exit codes: 0 done, 1 invalid input, 2 usage, 3 --min-return failed.",
    )
    add = parser.add_argument
    add("program", metavar="PROGRAM", help="program file, as snn-compile -o writes it")
    add(
        "--environment",
        metavar="NAME",
        help="such as CartPole-v1; default: the one whose data the program was compiled for",
    )
    add("--episodes", metavar="N", type=int, default=30, help="episodes (default: %(default)s)")
    add(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="episode i starts from seed + i (default: %(default)s)",
    )
    add(
        "--scale",
        metavar="S,...",
        type=_numbers,
        help="observation value that maps to a current of 1; one number, or one per dimension; default: "
        "those the program was compiled for",
    )
    add("--steps", metavar="N", type=int, help="steps per observation; default: likewise")
    add(
        "--continuous",
        action="store_true",
        help="keep the states between decisions and reset them only between episodes; actions then "
        "lag the observations by the latency of the pipeline",
    )
    add(
        "--device",
        metavar="NAME",
        default="loihi2-sim",
        help="device to run on (default: loihi2-sim; also oracle and lava-stepped)",
    )
    add("--min-return", metavar="R", type=float, help="exit 3 if the mean return is below this")
    add("--json", action="store_true", help="print the result as one JSON object")
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
