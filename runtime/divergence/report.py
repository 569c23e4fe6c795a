"""A divergence as tables, as one JSON object, and as files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.runtime.reports.accuracy_tables import Table, accuracy_json, accuracy_tables
from snn_compile.runtime.reports.report import COMMAND, check_format, render, write_report

if TYPE_CHECKING:
    from snn_compile.runtime.divergence.diverge import Divergence, Found

SCHEMA = {"name": "snn-run-diverge", "version": 1}

UNITS = {"drop": "points of accuracy", "predictions": "% that differ", "signal": "% of neuron-steps"}
HOW = (
    "share = (alone + last) / 2: the effect of the cause alone on the reference, and what the program gains "
    "without it; the remainder is the interaction of causes."
)
_SHOWN = 12


def as_json(found: Divergence, model: str, data: str, stated: Sequence[str]) -> dict[str, Any]:
    """Return a divergence as plain values."""
    return {
        "schema": SCHEMA,
        "program": {
            "digest": found.program.digest(),
            "network": found.program.provenance.get("network"),
            "model": found.program.provenance.get("model"),
        },
        "device": found.device,
        "samples": found.samples,
        "steps": found.steps,
        "verdict": found.verdict(),
        "stages": [
            {
                "name": s.name,
                "against": s.against,
                "differing": s.differing,
                "compared": s.compared,
                "first": s.first.json() if s.first else None,
            }
            for s in found.stages
        ],
        "first": found.first.json() if found.first else None,
        "first_beyond_rounding": found.beyond.json() if found.beyond else None,
        "near_threshold_flips": {"judged": found.judged, "flips": found.flips},
        "accuracy": accuracy_json(found.accuracy),
        "agreement": found.agreement,
        "totals": dict(found.totals),
        "remainder": found.remainder,
        "shares": HOW,
        "causes": [_cause_json(f, f in found.faults) for f in found.causes],
        "symptoms": [vars(s) for s in found.symptoms],
        "over_time": {
            name: {"differing": values.tolist(), "spikes": found.counts_over_time[name].tolist()}
            for name, values in found.over_time.items()
        },
        "advice": found.advice(model, data, stated),
    }


def _cause_json(found: Found, fault: bool) -> dict[str, Any]:
    cause = found.cause
    return {
        "kind": cause.kind,
        "place": cause.place,
        "index": None if cause.index is None else list(cause.index),
        "values": cause.values,
        "size": cause.size,
        "detail": cause.detail,
        "fault": fault,
        "shares": None
        if found.shares is None
        else {key: {"alone": s.alone, "last": s.last, "share": s.share} for key, s in found.shares.items()},
    }


def headline(found: Divergence) -> str:
    """Return one line: program, device, samples, steps."""
    name = found.program.provenance.get("model")
    digest = f"[{found.program.digest()[:12]}]"
    return (
        f"{f'{name} {digest}' if name else digest} against its network on {found.device}: "
        f"{found.samples} samples x {found.steps} steps"
    )


def tables(found: Divergence) -> list[Table]:
    """Return the tables that text and page show."""
    return [
        _stages(found),
        *([_symptoms(found)] if found.symptoms else []),
        _causes(found),
        *accuracy_tables(found.accuracy, found.agreement)[:1],
    ]


def _stages(found: Divergence) -> Table:
    rows: list[tuple[str, ...]] = []
    for s in found.stages:
        share = f"{s.differing / s.compared:.3%}" if s.compared else "-"
        first = "equal"
        if s.first:
            f = s.first
            first = f"step {f.step}, {f.population}[{f.neuron}], sample {f.sample}"
        rows.append((s.name, s.against, share, first))
    return (
        "Stages (share of neuron-steps with a different message)",
        ("stage", "against", "differ", "first difference"),
        rows,
    )


def _symptoms(found: Divergence) -> Table:
    rows: list[tuple[str, ...]] = [
        (s.population, s.kind, f"{s.reference_rate:.4f}", f"{s.rate:.4f}", s.because or "-")
        for s in found.symptoms
    ]
    return (
        "Populations (messages per neuron and step)",
        ("name", "is", "network", "program", "because of"),
        rows,
    )


def _causes(found: Divergence) -> Table:
    key = "drop" if "drop" in found.totals else "predictions" if "predictions" in found.totals else "signal"
    keys = list(dict.fromkeys([key, "signal"]))
    rows: list[tuple[str, ...]] = []
    for f in found.causes[:_SHOWN]:
        name = f"{f.cause.name}{' *' if f in found.faults else ''}"
        cells = [name, f.cause.detail]
        for k in keys:
            s = None if f.shares is None else f.shares[k]
            cells += ["-"] * 3 if s is None else [_cell(k, x) for x in (s.alone, s.last, s.share)]
        rows.append(tuple(cells))
    for name, values in (("remainder", found.remainder), ("total", found.totals)):
        rows.append((name, "", *(cell for k in keys for cell in ("", "", _cell(k, values[k])))))
    heads = ["cause (* a fault)", ""]
    for k in keys:
        heads += [f"{k} alone", "last", "share"]
    units = ", ".join(f"{k} in {UNITS[k]}" for k in keys)
    return f"Causes of the difference ({units})", tuple(heads), rows


def _cell(key: str, value: float) -> str:
    scaled = value if key == "drop" else 100 * value
    return f"{scaled + 0.0:+.2f}" if abs(scaled) >= 0.005 else "0"


def notes(found: Divergence, model: str, data: str, stated: Sequence[str]) -> list[str]:
    """Return the verdict, the first difference, accuracy and advice, one line each."""
    lines = [f"verdict: {found.verdict()}"]
    if found.judged:
        lines.append(
            f"near-threshold flips: {found.flips} of {found.judged} samples that differ first do so within "
            "what rounding explains"
        )
    if found.first:
        lines.append(f"first difference: {found.first}")
    if found.beyond and found.beyond != found.first:
        lines.append(f"first beyond rounding: {found.beyond}")
    lines.append(HOW)
    return lines + [f"{COMMAND}{command}" for command in found.advice(model, data, stated)]


def text(found: Divergence, model: str, data: str, stated: Sequence[str], width: int = 110) -> str:
    """Return a divergence as text."""
    return render(headline(found), tables(found), notes(found, model, data, stated), width)


def save(
    found: Divergence, path: str | os.PathLike[str], model: str, data: str, stated: Sequence[str]
) -> None:
    """Write a divergence as .json, .html or .png, whole or not at all; raises WrongInput."""
    file = Path(path)
    check_format(file)
    if file.suffix == ".json":
        write_report(file, (json.dumps(as_json(found, model, data, stated), indent=1) + "\n").encode())
        return
    from snn_compile.runtime.divergence.figure import draw

    picture = draw(found)
    if file.suffix == ".html":
        from snn_compile.runtime.reports.html import compose

        title = f"{found.program.provenance.get('model') or 'program'}: where it deviates from its network"
        body = compose(
            title,
            headline(found),
            notes(found, model, data, stated),
            tables(found),
            found.program.digest(),
            picture,
            ("Over time, and by cause", "difference of every population over time, shares of causes"),
        )
        write_report(file, body.encode())
    else:
        write_report(file, picture)
