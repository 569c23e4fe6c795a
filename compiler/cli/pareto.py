"""Output of a search for mixed precision: the Pareto front of accuracy against memory."""

from __future__ import annotations

from typing import Any

from snn_compile.compiler.calibration.mixed_precision import Point, Search
from snn_compile.compiler.cli.text_table import table_text


def point_json(point: Point, chosen: bool) -> dict[str, Any]:
    """Return one measured program as plain values; `drop` and `upper` in points, None without labels."""
    accuracy = point.accuracy
    return {
        "formats": {
            name: {"bits": form.bits, "tables": form.tables} for name, form in point.plan.formats.items()
        },
        "title": point.plan.title(),
        "synapse_bits": point.synapse_bits,
        "cores": point.cores,
        "spikes_changed": point.changed,
        "deployed": accuracy.deployed if accuracy else None,
        "drop": accuracy.drop if accuracy else None,
        "upper": accuracy.upper if accuracy else None,
        "samples": accuracy.samples if accuracy else None,
        "meets": point.holds and point.fits,
        "chosen": chosen,
    }


def front_json(found: Search) -> list[dict[str, Any]]:
    """Return the Pareto front of memory and drop, the smallest first, with the chosen point."""
    shown = list(found.front)
    if found.chosen not in shown:
        shown = sorted([*shown, found.chosen], key=lambda p: p.price)
    return [point_json(point, point is found.chosen) for point in shown]


def front_text(rows: list[dict[str, Any]], measured: int) -> str:
    """Return the front as a table."""

    def points(value: float | None) -> str:
        return "-" if value is None else f"{value:+.2f}"

    cells: list[tuple[str, ...]] = [
        (
            row["title"],
            f"{row['synapse_bits']:,}",
            str(row["cores"]),
            f"{row['spikes_changed']:.1%}",
            "-" if row["deployed"] is None else f"{row['deployed']:.2%}",
            points(row["drop"]),
            points(row["upper"]),
            "chosen" if row["chosen"] else "meets" if row["meets"] else "",
        )
        for row in rows
    ]
    heads = ("tables (projections)", "synapse bits", "cores", "spikes changed", "accuracy", "drop", "at most")
    title = f"Accuracy against memory: the front of {measured} programs measured, drop in points"
    return table_text(title, (*heads, ""), cells)
