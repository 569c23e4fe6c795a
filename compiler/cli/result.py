"""The result of `snn-compile` as plain values."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from snn_compile.compiler.calibration.mixed_precision import Search
from snn_compile.compiler.cli.pareto import front_json
from snn_compile.compiler.cli.protocols import Report
from snn_compile.compiler.contract.unheld import lines_of
from snn_compile.compiler.mapping.core_memory import core_limits
from snn_compile.compiler.network import Network
from snn_compile.compiler.pipeline import Compilation
from snn_compile.targets.program.program import Program

SCHEMA = {"name": "snn-compile", "version": 1}


def resources_json(program: Program) -> dict[str, Any]:
    """Return each resource's use against its limit, over the chip and in the fullest core."""
    chip = program.target
    found: dict[str, Any] = {"cores": {"used": len(program.cores), "limit": chip.all_cores}}
    if not program.cores:
        return found
    for key, limit in core_limits(chip).items():
        # A program that was mapped under an older version of its chip counts other resources.
        values = [core.use.get(key, 0) for core in program.cores]
        found[key] = {"used": sum(values), "fullest_core": max(values), "core_limit": limit}
    if chip.chips > 1:
        found["chips"] = {"used": -(-len(program.cores) // chip.cores), "limit": chip.chips}
    found["synapse_bits"] = {"used": sum(core.use["synapse_bits"] for core in program.cores)}
    return found


def quantization_json(done: Compilation) -> dict[str, Any]:
    """Return the error of every tensor in LSBs of its format, and the trials."""
    quantized, precision = done.quantized, done.precision
    assert quantized is not None and precision is not None
    kept = next((trial.fidelity for trial in precision.trials if trial.kept), None)
    return {
        "rounding": precision.plan.rounding,
        "fidelity": None if kept is None else kept.sureness(),
        "too_large_to_reconstruct": list(precision.too_large),
        "trials": [
            {
                "name": trial.name.strip(),
                "kept": trial.kept,
                **{key: value for key, value in asdict(trial.fidelity).items() if key != "overflows"},
            }
            for trial in precision.trials
        ],
        "saturation": [asdict(item) for item in precision.saturations],
        "tensors": [asdict(error) for error in quantized.errors],
        "scales": {p.name: p.scale for p in quantized.populations},
        "inputs": {
            p.name: {"kind": p.kind, "scale": p.scale, "bits": p.bits, "signed": p.signed}
            for p in quantized.inputs
        },
    }


COSTS = ("energy", "static_energy", "step_time", "quantized_ann", "neurobench")
"""Keys of a report that price its counts."""


def assumed_json(network: Network) -> dict[str, Any]:
    """Return what was assumed of the file's exporter, by item, and a line for each with its option."""
    return {"assumed": network.assumed, "assumptions": lines_of(network.assumptions)}


def warnings_of(done: Compilation) -> list[str]:
    """Return warnings: conventions stated against the file, then those of quantization."""
    against = [
        f"{item} is {getattr(done.network.contract, item)}: {how}; this changes the network"
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
    """Return the object that `--json` prints; `failed` lists the limits that were exceeded."""
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
        "cores_lower_bound": done.partition.lower_bound if done.partition else None,
        "resources": resources_json(done.program),
        "latency_steps": done.program.latency_steps,
        "period": done.program.period,
        "added_stages": list(done.added),
        "quantization": quantization_json(done),
        "gate": gate,
        **searched,
        "accuracy": measured.get("accuracy"),
        "counts": measured.get("counts"),
        **{key: measured.get(key) for key in COSTS},
        "overflows": measured.get("overflows"),
        "input_clipped": measured.get("input_clipped"),
        "agreement": measured.get("agreement"),
        "data": measured.get("data"),
        "contract": {
            "values": json.loads(done.program.provenance["contract"]),
            "decided": dict(done.network.decided),
        },
        **assumed_json(done.network),
        "warnings": warnings_of(done),
    }


def stage_json(done: Compilation, stage: str) -> dict[str, Any]:
    """Return the state of a compilation after a stage."""
    found: dict[str, Any] = {"schema": {"name": "snn-compile-stage", "version": 1}, "stage": stage}
    network = done.network
    found |= assumed_json(network)
    latency = done.retimed.latency if done.retimed else {}
    delays = done.retimed.delay_steps if done.retimed else {}
    found["populations"] = [
        {
            "name": p.name,
            "model": p.model,
            "shape": list(p.shape),
            "reset": p.reset,
            "start_step": latency.get(p.name),
        }
        for p in (done.retimed.network if done.retimed else network).populations
    ]
    found["projections"] = [
        {
            "name": e.name,
            "source": e.source,
            "target": e.target,
            "shape": list(e.weight.shape),
            "delay_steps": e.delay_steps,
            "device_delay_steps": delays.get(e.name),
        }
        for e in (done.retimed.network if done.retimed else network).projections
    ]
    if done.quantized:
        found["quantization"] = quantization_json(done)
    if done.partition:
        tiles = [list(core.tile) for core in done.cores] if done.cores else [None] * len(done.partition.cores)
        found["cores"] = [
            {
                "index": index,
                "tile": tile,
                "slices": [f"{name}[{start}:{stop}]" for name, start, stop in slices],
                **use,
            }
            for index, (tile, slices, use) in enumerate(
                zip(tiles, done.partition.cores, done.partition.use, strict=True)
            )
        ]
    return found
