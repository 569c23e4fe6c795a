"""Command lines of `snn-compile`: its argument parsers, without heavy imports."""

from __future__ import annotations

import argparse
from math import isfinite, nan

STEPS_MAX = 1024

STAGE_NAMES = (
    "lower",
    "release_fixed_integers",
    "simplify",
    "retime",
    "quantize",
    "partition",
    "place",
    "route",
)
"""Equal to `pipeline.STAGES`, which takes too long to import for --help; a test compares the two."""


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


def _samples(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples; give 0 or more")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction between 0 and 1")
    return value


def _period(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a positive integer (write the model before --c-slow)"
        )
    return int(text)


def _steps(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or not 1 <= int(text) <= STEPS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'auto' nor a number from 1 to {STEPS_MAX}")
    return int(text)


def shape_argument(text: str) -> tuple[int, ...]:
    """Return the shape that `--input-shape` states."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape; write it as 2,34,34")
    return tuple(int(part) for part in parts)


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
    _add_data(parser)
    _add_gates(parser)
    _add_quantization(parser)
    _add_timing(parser)
    _add_mapper(parser)
    _add_approximation(parser)
    _add_convention(parser)
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
        description="Print what a model's graph means: its nodes, its contract, how each item of it was "
        "decided, and where common interpretations differ; with --data, how its spikes depend on dt. "
        "For a program (.snn), print its contents.",
    )
    parser.add_argument(
        "model", help="a checkpoint (.pt), NIR graph (.nir), lava-dl .net, .onnx, or a program (.snn)"
    )
    _add_factory(parser)
    parser.add_argument(
        "--data",
        "--calibrate",
        metavar="DATA",
        help="compare the network's spikes with those at finer steps on this data (a data set's name or an "
        ".npz), and advise the largest dt that keeps them",
    )
    _add_mismatch(parser)
    _add_convention(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of `snn-compile export MODEL`."""
    parser = argparse.ArgumentParser(
        prog="snn-compile export",
        description="Write the NIR graph of a checkpoint to a file. With --convention or --strict, what the "
        "graph means is settled and written into it as metadata.",
    )
    parser.add_argument("model", help="a checkpoint (.pt), or a NIR graph (.nir)")
    _add_factory(parser)
    _add_convention(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE.nir", help="write the graph here")
    return parser


def _add_input_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-shape",
        type=shape_argument,
        metavar="A,B,C",
        help="shape of one step of one sample, for a .net file without an input layer, or with --model a "
        "factory that returns the module alone (default: that of the data)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        help="data to choose scales on: a data set's name or an .npz (default: the checkpoint's own, or "
        "a part of --check DATA)",
    )
    parser.add_argument(
        "--check",
        metavar="DATA",
        help="labelled data to compare with the float network on (default: the checkpoint's own test split)",
    )
    parser.add_argument(
        "--holdout",
        type=_samples,
        metavar="N",
        help="with --check and without --calibrate: calibrate on N samples of the check data and measure on "
        "the others; 0: on none (default: the calibration split of a data set; of an .npz a random tenth, 32 "
        "to 256 samples)",
    )


def _add_gates(parser: argparse.ArgumentParser) -> None:
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


def _add_quantization(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bits",
        type=_bits,
        default=8,
        metavar="N",
        help="weight bits, 1-8 (default: 8), or auto: search bits and tables per projection for the "
        "cheapest program (synapse memory, then cores) within --max-drop and --max-cores, and print "
        "accuracy against memory; needs calibration data. --check DATA decides, so test on other data",
    )
    parser.add_argument(
        "--tables",
        choices=("auto", "one", "sign", "group", "residual"),
        default="auto",
        help="weight tables per projection. one: per-tensor; sign: one table per sign (slightly finer, "
        "the same synops); group: one table per group of rows with similar weights; residual: a coarse and "
        "a residual table (twice the bits, memory and synops); auto (default): sign where that takes no "
        "more cores, residual where predictions on the calibration data need it",
    )
    parser.add_argument(
        "--rounding",
        choices=("auto", "nearest", "reconstruct"),
        default="auto",
        help="nearest: round each weight to the nearest value; reconstruct: calibrated rounding (as "
        "AdaRound), up or down per weight to keep what neurons receive on the calibration data; auto "
        "(default): the better of the two",
    )


def _add_timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--c-slow",
        nargs="?",
        type=_period,
        const=None,
        default=1,
        metavar="C",
        help="spend C device steps per logical step, so that cycles that are too short for the chip run "
        "exactly, C times slower; without C: the fewest that they need",
    )
    parser.add_argument(
        "--relax-timing",
        action="store_true",
        help="add delay to cycles that are too short for the chip; this changes the network, and the report "
        "says so",
    )


def _chips(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of chips; give 1 or more, or auto")
    return int(text)


def _add_mapper(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chips",
        type=_chips,
        metavar="N|auto",
        help="chips of this kind that are connected; auto takes as many as the network needs (default: those "
        "of the target)",
    )
    parser.add_argument(
        "--mapper",
        choices=("best", "vendor"),
        default="best",
        help="how the network is put on cores: best lets layers share them, vendor maps as Intel's compiler "
        "does (default: best); the choice changes costs, never spikes",
    )
    parser.add_argument(
        "--spread",
        type=int,
        metavar="CORES",
        help="cores that the mapper may take for a shorter step, where fewer would do (default: the fewest)",
    )
    parser.add_argument(
        "--mapper-effort",
        type=int,
        choices=range(1, 6),
        default=2,
        metavar="1..5",
        help="how long --mapper best searches for fewer cores, shorter steps and fewer hops; 1 fills cores "
        "alone, 5 takes up to a minute (default: %(default)s)",
    )


def _add_approximation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="refused for liquid spiking neurons (lsn), which it held at their mean rates before programs "
        "had them; leave it out",
    )


def _add_convention(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--convention",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="state what the graph leaves open, e.g. dt=1e-4, reset=subtract, for one node NODE.reset=value, "
        "or the exporter that wrote it, maker=NAME",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="ask for everything that the exporter's file does not hold, instead of assuming its defaults",
    )


def _add_conversion(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "ONNX models", "ReLU networks, converted to rates on --calibrate DATA of static samples"
    )
    group.add_argument(
        "--steps",
        type=_steps,
        metavar="N|auto",
        help="steps per sample (default: 64); auto: the fewest that meet --max-drop on --check",
    )
    group.add_argument(
        "--balance",
        metavar="error|PERCENTILE",
        help="ranges of the rates: those of least squared error (default), or a percentile such as 99.9",
    )
    group.add_argument(
        "--max-pool",
        choices=("refuse", "rectify", "average"),
        help="conversion of MaxPool: refuse (default), rectify as max(a, b) = b + relu(a - b), or average",
    )
    group.add_argument("--curve", metavar="FILE.png", help="draw accuracy and energy against steps")


def _add_mismatch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-mismatch",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="for the advice on dt: fraction of neurons and samples whose spike count may differ from that "
        "at much finer steps (default: %(default)s)",
    )


def _add_factory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        dest="factory",
        metavar="MODULE:FACTORY",
        help="for a state dict (.pt) of a custom network: the function that builds it, as "
        "package.module:factory or path/to/file.py:factory; it returns the module, or the module and a "
        "sample input",
    )
    _add_input_shape(parser)
    parser.add_argument(
        "--forward",
        choices=("steps", "step", "image"),
        help="with --model: forward takes all steps (steps, batch, *shape), one step (batch, *shape), or an "
        "image (batch, *shape) of which it makes all steps (default: found by trial)",
    )
