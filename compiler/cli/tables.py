"""What `snn-compile` prints: plain values for scripts, tables for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.cli.pareto import front_text
from snn_compile.compiler.cli.sensitivity_text import sensitivity_text
from snn_compile.compiler.cli.text_table import Row, table_text
from snn_compile.compiler.pipeline import Compilation
from snn_compile.targets.program.program import Program

if TYPE_CHECKING:
    from snn_compile.runtime.reports.report import Report

RESOURCES = ("neurons", "memory_bits", "in_axons", "out_axons")


def resources_json(program: Program) -> dict[str, Any]:
    """Return each resource's use against its limit, over the chip and in the fullest core."""
    chip = program.target
    limits = {
        "neurons": chip.core_neurons,
        "memory_bits": chip.core_memory_bits,
        "in_axons": chip.core_in_axons,
        "out_axons": chip.core_out_axons,
    }
    found: dict[str, Any] = {"cores": {"used": len(program.cores), "limit": chip.cores}}
    for key in RESOURCES:
        values = [core.use[key] for core in program.cores]
        found[key] = {"used": sum(values), "fullest_core": max(values), "core_limit": limits[key]}
    found["synapse_bits"] = {"used": sum(core.use["synapse_bits"] for core in program.cores)}
    return found


def quantization_json(done: Compilation) -> dict[str, Any]:
    """Return the error of every tensor in last bits of its format, and what was tried for it."""
    quantized, precision = done.quantized, done.precision
    assert quantized is not None and precision is not None
    return {
        "rounding": precision.plan.rounding,
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


def compilation_text(result: dict[str, Any], report: Report | None) -> str:
    """Return the result of a compilation as text."""
    cores = result["resources"]["cores"]
    lines = [
        f"{result['model']} -> {result['target']}: fits on {cores['used']} of {cores['limit']} cores, "
        f"pipeline latency {result['latency_steps']} steps, program {result['program']['digest'][:12]}"
    ]
    if result["period"] > 1:
        lines.append(f"c-slow: every step of the network takes {result['period']} device steps")
    rows: list[Row] = [
        (key.replace("_", " "), f"{item['used']:,}", f"{item['fullest_core']:,}", f"{item['core_limit']:,}")
        for key, item in result["resources"].items()
        if "core_limit" in item
    ]
    text = (
        "\n".join(lines)
        + "\n"
        + table_text(
            "Resources (an estimate: the chip's memory layout is not public)",
            ("", "in all", "fullest core", "a core holds"),
            rows,
        )
    )
    text += _errors_text(result) + precision_text(result["quantization"])
    if result.get("front"):
        text += front_text(result["front"], result["search"]["measured"])
    if result.get("sensitivity"):
        text += sensitivity_text(result["sensitivity"])
    if report is None:
        return text + "No data to run: --check DATA measures accuracy, spikes and energy.\n"
    return text + "\n" + report.text()


def _errors_text(result: dict[str, Any]) -> str:
    rows: list[Row] = [
        (
            e["tensor"],
            e["format"],
            f"{e['values']:,}",
            f"{e['max_lsb']:.2f}",
            f"{e['rms_lsb']:.2f}",
            f"{e['relative']:.3%}",
            str(e["clipped"]),
        )
        for e in result["quantization"]["tensors"]
    ]
    return table_text(
        "Quantization error, in last bits of each format",
        ("tensor", "format", "values", "max", "rms", "relative", "clipped"),
        rows,
    )


def precision_text(found: dict[str, Any]) -> str:
    """Return what was tried on calibration data, and where membranes may saturate, as tables."""
    rows: list[Row] = [
        (
            trial["name"],
            "-" if trial["disagreements"] is None else f"{trial['disagreements']} of {trial['predictions']}",
            f"{trial['changed']:.2%}",
            f"{trial['error']:.2%}",
            f"{trial['synapse_bits']:,}",
            "too many" if trial["cores"] is None else str(trial["cores"]),
            "kept" if trial["kept"] else "",
        )
        for trial in found["trials"]
    ]
    heads: Row = ("", "other predictions", "spikes changed", "output error", "synapse bits", "cores", "")
    text = table_text("Tried on the calibration data, against the float network", heads, rows) if rows else ""
    if found["too_large_to_reconstruct"]:
        text += f"Too large to reconstruct: {', '.join(found['too_large_to_reconstruct'])}.\n"
    rows = [
        (
            item["population"],
            f"{item['gain']:.2f}",
            f"{item['spikes_changed']:.3%}",
            f"{item['times']:,} of {item['of']:,}",
        )
        for item in found["saturation"]
    ]
    heads = ("population", "scale, times", "float spikes changed by it", "neuron steps on calibration data")
    return text + (table_text("Membranes that saturate when deeply inhibited", heads, rows) if rows else "")


def stage_json(done: Compilation, stage: str) -> dict[str, Any]:
    """Return what a compilation knew after a stage."""
    found: dict[str, Any] = {"schema": {"name": "snn-compile-stage", "version": 1}, "stage": stage}
    network = done.network
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


def stage_text(result: dict[str, Any]) -> str:
    """Return `stage_json` as tables."""

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return (", " if isinstance(value[0], str) else "x").join(map(str, value))
        return "-" if value is None else str(value)

    text = f"after {result['stage']}\n"
    for title in [key for key in ("populations", "projections", "cores") if key in result]:
        rows: list[Row] = [tuple(cell(value) for value in row.values()) for row in result[title]]
        heads = tuple(key.replace("_", " ") for key in result[title][0]) if result[title] else ()
        text += table_text(title.capitalize(), heads, rows)
    if "quantization" in result:
        text += _errors_text(result) + precision_text(result["quantization"])
    return text
