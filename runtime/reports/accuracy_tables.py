"""Accuracy as tables and as plain values, the same in every report."""

from __future__ import annotations

from typing import Any

from snn_compile.runtime.reports.accuracy import CONFIDENCE, Accuracy

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""A title, the column heads and the rows."""

CLASSES_SHOWN = 20


def accuracy_tables(accuracy: Accuracy | None, agreement: float | None) -> list[Table]:
    """Return a table of accuracy or agreement, if either is known, and one of classes."""
    if accuracy is None and agreement is None:
        return []
    classes = [_class_table(accuracy)] if accuracy is not None and accuracy.classes else []
    return [_accuracy_table(accuracy, agreement), *classes]


def _accuracy_table(a: Accuracy | None, agreement: float | None) -> Table:
    rows: list[tuple[str, ...]] = []
    if a is not None:
        rows += [
            (name, f"{share:.2%}", f"{round(share * a.samples)} of {a.samples}")
            for name, share in (("float", a.reference), ("deployed", a.deployed))
            if share is not None
        ]
    if a is not None and a.drop is not None:
        span = (
            "no interval"
            if a.interval is None
            else (f"{CONFIDENCE:.0%} interval {a.interval[0]:+.2f} to {a.interval[1]:+.2f}")
        )
        rows += [
            ("drop", f"{a.drop:+.2f} points", span),
            (
                "right in only one",
                f"{a.lost:+d} net",
                f"float {a.only_reference}, deployed {a.only_deployed}",
            ),
        ]
    if a is not None and a.p_value is not None:
        discordant = a.only_reference + a.only_deployed
        rows.append(
            ("McNemar's exact test", f"p = {a.p_value:.3g}", f"{discordant} of {a.samples} discordant")
        )
    if agreement is not None:
        rows.append(("same prediction", f"{agreement:.2%}", ""))
    title = f"Accuracy: {a.verdict()}" if a else "Predictions (no labels, so no accuracy)"
    return title, ("", "value", "samples"), rows


def _class_table(accuracy: Accuracy) -> Table:
    """Return the classes, those that lose most first if they are many."""
    classes, title = accuracy.classes, f"Classes ({CONFIDENCE:.0%} intervals, each on its own)"
    if len(classes) > CLASSES_SHOWN:
        worst = sorted(classes, key=lambda c: (-c.drop, c.label))[:CLASSES_SHOWN]
        title = f"The {CLASSES_SHOWN} of {len(classes)} classes that lose most" + title[7:]
        classes = tuple(worst)
    rows: list[tuple[str, ...]] = [
        (
            str(c.label),
            f"{c.samples:,}",
            f"{c.reference:.2%}",
            f"{c.deployed:.2%}",
            f"{c.drop:+.2f}",
            f"{c.interval[0]:+.2f} to {c.interval[1]:+.2f}",
        )
        for c in classes
    ]
    return title, ("class", "samples", "float", "deployed", "drop, points", "interval"), rows


def accuracy_json(accuracy: Accuracy | None) -> dict[str, Any] | None:
    """Return accuracy as every command prints it: fractions 0-1, drop and interval in points."""
    if accuracy is None:
        return None
    a = accuracy
    return {
        "float": a.reference,
        "deployed": a.deployed,
        "drop": a.drop,
        "interval": None if a.interval is None else list(a.interval),
        "samples": a.samples,
        "confidence": CONFIDENCE,
        "only_float": a.only_reference,
        "only_deployed": a.only_deployed,
        "lost": a.lost,
        "detectable": a.detectable,
        "mcnemar": None
        if a.p_value is None
        else {
            "p_value": a.p_value,
            "only_float": a.only_reference,
            "only_deployed": a.only_deployed,
            "test": "exact, two-sided",
        },
        "classes": [
            {
                "label": c.label,
                "samples": c.samples,
                "float": c.reference,
                "deployed": c.deployed,
                "drop": c.drop,
                "interval": list(c.interval),
            }
            for c in a.classes
        ],
        "verdict": a.verdict(),
    }
