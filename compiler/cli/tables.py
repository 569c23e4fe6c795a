"""The text output of `snn-compile`: its results as tables."""

from __future__ import annotations

from typing import Any

from snn_compile.compiler.cli.pareto import front_text
from snn_compile.compiler.cli.protocols import Report
from snn_compile.compiler.cli.sensitivity_text import sensitivity_text
from snn_compile.compiler.cli.text_table import Row, table_text


def compilation_text(result: dict[str, Any], report: Report | None) -> str:
    """Return the result of a compilation as text."""
    cores = result["resources"]["cores"]
    chips = result["resources"].get("chips")
    on = f", on {chips['used']} of {chips['limit']} chips" if chips else ""
    fits = f"fits on {cores['used']} of {cores['limit']} cores{on}"
    lines = [
        f"{result['model']} -> {result['target']}: {fits if cores['used'] else 'not mapped'}, "
        f"pipeline latency {result['latency_steps']} steps, program {result['program']['digest'][:12]}"
    ]
    if result["period"] > 1:
        lines.append(f"c-slow: each step of the network takes {result['period']} device steps")
    lines += [f"added stage: {line}" for line in result["added_stages"]]
    rows: list[Row] = [
        (key.replace("_", " "), f"{item['used']:,}", f"{item['fullest_core']:,}", f"{item['core_limit']:,}")
        for key, item in result["resources"].items()
        if "core_limit" in item
    ]
    text = (
        "\n".join(lines)
        + "\n"
        + (
            rows
            and table_text(
                "Resources (an estimate: the chip's memory layout is not public)",
                ("", "total", "fullest core", "limit per core"),
                rows,
            )
            or ""
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
        "Quantization error, in LSBs of each format",
        ("tensor", "format", "values", "max", "rms", "relative", "clipped"),
        rows,
    )


def precision_text(found: dict[str, Any]) -> str:
    """Return the trials on calibration data, and where membranes may saturate, as tables."""
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
    text = (
        table_text("Trials on the calibration data, against the float network", heads, rows) if rows else ""
    )
    if found["fidelity"]:
        text += _sureness_text(found["fidelity"])
    if found["too_large_to_reconstruct"]:
        text += f"Too large for calibrated rounding: {', '.join(found['too_large_to_reconstruct'])}.\n"
    rows = [
        (
            item["population"],
            f"{item['gain']:.2f}",
            f"{item['spikes_changed']:.3%}",
            f"{item['times']:,} of {item['of']:,}",
        )
        for item in found["saturation"]
    ]
    heads = ("population", "scale gain", "float spikes changed", "neuron steps on calibration data")
    return text + (table_text("Membranes that saturate when deeply inhibited", heads, rows) if rows else "")


def _sureness_text(found: dict[str, Any]) -> str:
    """Return how closely the kept program follows the float network, with the interval for other samples."""
    words = {
        "same_prediction": "same prediction",
        "same_counts": "same output counts",
        "spikes_changed": "spikes changed",
    }
    parts = []
    for key in (key for key in words if key in found):
        low, high = found[key]["interval"]
        parts.append(f"{words[key]} {found[key]['value']:.1%} ({low:.1%} to {high:.1%})")
    text = f"Kept on {found['samples']} calibration sample(s), with 95% intervals: {', '.join(parts)}."
    return text + " More calibration data narrows them.\n"


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
