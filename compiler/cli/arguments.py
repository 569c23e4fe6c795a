"""What can be typed after `snn-compile`: its parsers, without anything heavy."""

from __future__ import annotations

import argparse
from math import isfinite, nan

STEPS_MAX = 1024

STAGE_NAMES = (
    "lower",
    "freeze_rates",
    "release_fixed_integers",
    "simplify",
    "retime",
    "quantize",
    "partition",
    "place",
    "route",
)
"""As in `pipeline.STAGES`, which takes too long to import for --help; a test compares the two."""


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of percentage points")
    return value


def _bits(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of bits nor auto") from None


def _cores(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of cores")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share over 0 and below 1")
    return value


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from 1 on (the model stands before --c-slow)"
        )
    return int(text)


def compile_parser() -> argparse.ArgumentParser:
    """Return the parser of `snn-compile MODEL`."""
    parser = argparse.ArgumentParser(
        prog="snn-compile",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compile a trained spiking network to the integers of a neuromorphic chip.",
        epilog="other forms:\n  snn-compile inspect FILE            what a graph means, and how that was "
        "decided\n  snn-compile export MODEL -o X.nir   the NIR graph of a checkpoint\n\n"
        "exit codes: 0 done, 1 the input or the chip is at fault, 2 usage, 3 a gate failed",
    )
    parser.add_argument(
        "model", nargs="?", help="a checkpoint (.pt), NIR graph (.nir), lava-dl .net or .onnx"
    )
    parser.add_argument(
        "--target", default="loihi2-sim", help="chip: a name, or its .toml file (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the program here, for snn-run")
    _add_factory(parser)
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        help="data to choose scales on: a data set's name or an .npz (default: the checkpoint's own)",
    )
    parser.add_argument(
        "--check",
        metavar="DATA",
        help="labelled data to compare with the float network on (default: the checkpoint's own test split)",
    )
    parser.add_argument(
        "--max-drop",
        type=_points,
        metavar="PP",
        help="exit with 3 if accuracy drops by more percentage points; with --bits auto, if the upper "
        "end of the drop's 95 %% interval does",
    )
    parser.add_argument(
        "--max-cores", type=_cores, metavar="N", help="exit with 3 if the program takes more cores"
    )
    parser.add_argument(
        "--bits",
        type=_bits,
        default=8,
        metavar="N",
        help="weight bits, 1-8 (default: 8), or auto: search bits and tables of each projection for the "
        "cheapest program (synapse memory, then cores) within --max-drop and --max-cores, and print "
        "accuracy against memory; needs calibration data, and --check DATA decides: test on other data",
    )
    parser.add_argument(
        "--tables",
        choices=("auto", "one", "sign", "group", "residual"),
        default="auto",
        help="weight tables a projection: one; one for each sign (a bit finer, the same synops); one for "
        "each group of targets of like weights; a coarse and a residual one (twice the bits, memory and "
        "synops); auto (default): by sign where that takes no more cores, residual where predictions on "
        "the calibration data need it",
    )
    parser.add_argument(
        "--rounding",
        choices=("auto", "nearest", "reconstruct"),
        default="auto",
        help="round each weight to the nearest value, or up or down so that what neurons receive on the "
        "calibration data stays; auto (default): the better of the two",
    )
    parser.add_argument(
        "--c-slow",
        nargs="?",
        type=_whole,
        const=None,
        default=1,
        metavar="C",
        help="spend C device steps on each logical step, so that cycles which are too short for the chip run "
        "exactly, C times slower; without C as few as they need",
    )
    parser.add_argument(
        "--relax-timing",
        action="store_true",
        help="add delay to cycles that are too short for the chip; the result is then no longer the "
        "network's, and the report says so",
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="hold the rates of liquid spiking neurons at their means over the calibration data, which makes "
        "adaptive neurons of them; the result is then no longer the network's, and the report compares",
    )
    parser.add_argument(
        "--convention",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="answer what the graph leaves open, e.g. dt=1e-4, reset=subtract",
    )
    _add_mismatch(parser)
    parser.add_argument(
        "--stop-after",
        choices=STAGE_NAMES,
        metavar="STAGE",
        help="stop after one of: " + ", ".join(STAGE_NAMES),
    )
    _add_conversion(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--list-targets", action="store_true", help="list chip profiles")
    return parser


def inspect_parser() -> argparse.ArgumentParser:
    """Return the parser of `snn-compile inspect MODEL`."""
    parser = argparse.ArgumentParser(
        prog="snn-compile inspect",
        description="Print what a model's graph means: its nodes and its contract, how each item was "
        "decided, and where popular readings of it differ; with --data, how its spikes depend on dt. "
        "Of a program (.snn) print what it holds.",
    )
    parser.add_argument(
        "model", help="a checkpoint (.pt), NIR graph (.nir), lava-dl .net, .onnx, or a program (.snn)"
    )
    _add_factory(parser)
    parser.add_argument(
        "--data",
        "--calibrate",
        metavar="DATA",
        help="compare the network's spikes with those at finer steps on this data: a data set's name or an "
        ".npz, and advise the largest dt that keeps them",
    )
    _add_mismatch(parser)
    parser.add_argument("--convention", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    return parser


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of `snn-compile export MODEL`."""
    parser = argparse.ArgumentParser(
        prog="snn-compile export", description="Write the NIR graph of a checkpoint to a file."
    )
    parser.add_argument("model", help="a checkpoint (.pt)")
    _add_factory(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE.nir")
    return parser


def _steps(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or not 1 <= int(text) <= STEPS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'auto' nor a number from 1 to {STEPS_MAX}")
    return int(text)


def _add_conversion(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "ONNX models", "networks of rectifiers, converted to rates on --calibrate DATA of still samples"
    )
    group.add_argument(
        "--steps",
        type=_steps,
        metavar="N|auto",
        help="steps that a sample is shown (default: 64); auto: the fewest that meet --max-drop on --check",
    )
    group.add_argument(
        "--balance",
        metavar="error|PERCENTILE",
        help="ranges of the rates: of least square error (default), or a percentile such as 99.9",
    )
    group.add_argument(
        "--max-pool",
        choices=("refuse", "rectify", "average"),
        help="what becomes of MaxPool: refused (default), max(a, b) = b + relu(a - b), or the average",
    )
    group.add_argument("--curve", metavar="FILE.png", help="draw accuracy and energy against steps")


def _add_mismatch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-mismatch",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="for the advice on dt: share of neurons and samples whose spike count may differ from that at "
        "much finer steps (default: %(default)s)",
    )


def _add_factory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        dest="factory",
        metavar="MODULE:FACTORY",
        help="for a state dict (.pt) of a network of your own: what builds it, as package.module:factory; "
        "it returns the module and a sample input",
    )
