"""The result of `snn-compile` as plain values."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.calibration.mixed_precision import Search
from snn_compile.compiler.cli.pareto import front_json
from snn_compile.compiler.cli.tables import quantization_json, resources_json
from snn_compile.compiler.pipeline import Compilation

if TYPE_CHECKING:
    from snn_compile.runtime.reports.report import Report

SCHEMA = {"name": "snn-compile", "version": 1}


def warnings_of(done: Compilation) -> list[str]:
    """Return what the user should know: conventions stated against the file, then what rounding did."""
    against = [
        f"{item} is {getattr(done.network.contract, item)}: {how}; this is another network"
        for item, how in done.network.decided.items()
        if "against" in how
    ]
    return [*against, *(done.quantized.warnings if done.quantized else ())]


def result_json(
    done: Compilation,
    report: Report | None,
    arguments: argparse.Namespace,
    failed: Sequence[str],
    found: Search | None,
) -> dict[str, Any]:
    """Return what `--json` prints; `failed` says which limits of the arguments were not kept."""
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
        "warnings": warnings_of(done),
    }
