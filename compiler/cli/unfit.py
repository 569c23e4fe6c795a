"""What `snn-compile` says of a network that does not fit: every violation, and remedies that were tried."""

from __future__ import annotations

import argparse
import json
import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.mapping.remedies import MARGIN, Remedy, tried_remedies
from snn_compile.targets.errors import DoesNotFit

if TYPE_CHECKING:
    from snn_compile.compiler.pipeline import Options
    from snn_compile.compiler.quantization.quantize import QuantizedNetwork
    from snn_compile.targets.chips.chip import Chip

VIOLATIONS_SHOWN = 6


class Stages:
    """Observes a compilation: prints a line per stage, and keeps the integers and the chip's sizes."""

    def __init__(self) -> None:
        self.quantized: QuantizedNetwork | None = None

    def __call__(self, name: str, value: Any, seconds: float) -> None:
        """Print a stage that is done."""
        print(f"snn-compile: {name} {seconds * 1000:.0f} ms", file=sys.stderr)
        if name == "quantize":
            self.quantized = value


def report_unfit(
    error: DoesNotFit, stages: Stages, chip: Chip, options: Options, arguments: argparse.Namespace
) -> int:
    """Print the violations and what was tried, and return the exit code."""
    remedies = _remedies(error, stages.quantized, chip, options)
    facts: Any = error.facts
    violations: list[str] = list(facts.get("violations", ()))
    print(f"snn-compile: error: {_message(error, violations)}", file=sys.stderr)
    for remedy in remedies:
        print(f"snn-compile: tried {remedy.text()}", file=sys.stderr)
    if remedies and not any(remedy.fits for remedy in remedies):
        print("snn-compile: nothing that was tried is enough: make the network smaller", file=sys.stderr)
    if arguments.json:
        result = {
            "schema": {"name": "snn-compile", "version": 1},
            "model": Path(arguments.model).name,
            "target": arguments.target,
            "fits": False,
            "error": str(error),
            "violations": violations,
            "remedies": [remedy.json() for remedy in remedies],
        }
        print(json.dumps(result))
    return 1


def _remedies(
    error: DoesNotFit, quantized: QuantizedNetwork | None, chip: Chip, options: Options
) -> list[Remedy]:
    if quantized is not None:
        return tried_remedies(quantized, chip, options.mapper, options.weight_bits)
    least: Any = error.facts.get("least_cores")
    if least is None:
        return []
    return [Remedy("--chips auto", least, ceil(least / MARGIN / chip.cores), True, least=True)]


def _message(error: DoesNotFit, violations: list[str]) -> str:
    """Return the error, of many violations the first ones and their number."""
    if len(violations) <= VIOLATIONS_SHOWN:
        return str(error)
    head = str(error).partition(violations[0])[0]
    shown = "; ".join(violations[:VIOLATIONS_SHOWN])
    return f"{head}{shown}; and {len(violations) - VIOLATIONS_SHOWN} more (--json lists all)"
