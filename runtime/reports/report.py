"""The report of a run: text for a terminal, a JSON object for scripts, a figure and a page.

Accuracy stands in fractions 0-1, its drop and interval in percentage points; counts and energies
per sample and in total; energies one by one, each a proxy with its source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.cli.text_table import table_text, wrapped_text
from snn_compile.compiler.contract.unheld import Assumption, assumed_items, lines_of, read_assumptions
from snn_compile.runtime.reports.accuracy import Accuracy
from snn_compile.runtime.reports.accuracy_tables import Table, accuracy_json, accuracy_tables
from snn_compile.runtime.reports.cost_tables import (
    ann_table,
    energy_details,
    energy_json,
    energy_table,
    neurobench_table,
    time_table,
)
from snn_compile.runtime.reports.energy import Energy, Traffic
from snn_compile.runtime.reports.neurobench import NeuroBench
from snn_compile.runtime.reports.quantized_ann import QuantizedAnn
from snn_compile.runtime.reports.step_time import StepTime
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.output import check_writable, write_whole

if TYPE_CHECKING:
    from snn_compile.runtime.reports.figure import Trace

SCHEMA = {"name": "snn-compile-report", "version": 1}
FORMATS = (".html", ".json", ".png")
COMMAND = "try: "


@dataclass(frozen=True, eq=False)
class Report:
    """Accuracy, counts and cost of a run of `samples` samples x `steps` logical steps.

    `latency_steps`: device steps that the pipeline adds; `period`: device steps per logical step.
    `agreement`: share of predictions equal to the float network's. `ties`: share of predictions with a
    tie for the highest value. `input_clipped`: input values outside the range of their messages. `data`:
    the data set's spec.
    `traffic`: spike messages between cores, None if the program is not placed. `mapping_note`: a warning
    that the program was mapped under an older version of its chip, or "". `onsets`: by population, the first
    step at which states left their range.
    """

    device: str
    digest: str
    chip: str
    samples: int
    steps: int
    latency_steps: int
    period: int
    accuracy: Accuracy | None
    agreement: float | None
    ties: float | None
    counts: Counts
    energy: tuple[Energy, ...]
    overflows: Mapping[str, Overflow]
    input_clipped: int
    wall_s: float
    sizes: Mapping[str, int]
    provenance: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    witness: Mapping[str, str] = field(default_factory=dict)
    traffic: Traffic | None = None
    mapping_note: str = ""
    neurobench: NeuroBench | None = None
    step_time: StepTime | None = None
    quantized_ann: QuantizedAnn | None = None
    onsets: Mapping[str, int] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the whole report as plain values, with its schema's name and version."""
        return {
            "schema": SCHEMA,
            "program": {
                "digest": self.digest,
                "chip": self.chip,
                "network": self.provenance.get("network"),
                "model": self.provenance.get("model"),
            },
            "data": None if self.data is None else dict(self.data),
            "device": self.device,
            "samples": self.samples,
            "steps": self.steps,
            "latency_steps": self.latency_steps,
            "period": self.period,
            "device_steps": self.latency_steps + (self.steps - 1) * self.period + 1,
            "accuracy": accuracy_json(self.accuracy),
            "agreement": self.agreement,
            "ties": self.ties,
            "counts": counts_json(self.counts, self.sizes, self.traffic),
            "energy": energy_json(self.energy),
            "static_energy": self.step_time.static_json() if self.step_time else None,
            "step_time": self.step_time.json() if self.step_time else None,
            "quantized_ann": self.quantized_ann.json() if self.quantized_ann else None,
            "neurobench": self.neurobench.json() if self.neurobench else None,
            "overflows": overflows_json(self.overflows),
            "overflow_onsets": dict(self.onsets),
            "warnings": self.warnings(),
            "input_clipped": self.input_clipped,
            "assumed": assumed_items(self.assumptions),
            "wall_s": self.wall_s,
            "witness": dict(self.witness),
        }

    def text(self, width: int = 100) -> str:
        """Return the report as tables of `width` characters."""
        return render(self.headline(), self.tables(), self.notes(), width, self.warnings())

    def headline(self) -> str:
        """Return one line: device, chip, samples, steps."""
        model = self.provenance.get("model")
        name = f"{model} [{self.digest[:12]}]" if model else f"[{self.digest[:12]}]"
        return (
            f"{name} on {self.device} ({self.chip}): {self.samples} samples x {self.steps} "
            f"steps, +{self.latency_steps} steps latency"
            + (f", {self.period} device steps per step" if self.period > 1 else "")
        )

    def tables(self) -> list[Table]:
        """Return the tables that text and page show."""
        return [
            *accuracy_tables(self.accuracy, self.agreement),
            self._counts_table(),
            self._population_table(),
            *([neurobench_table(self.neurobench)] if self.neurobench else []),
            energy_table(self.energy, self.step_time),
            *([ann_table(self.quantized_ann)] if self.quantized_ann else []),
            *([time_table(self.step_time)] if self.step_time else []),
        ]

    def _counts_table(self) -> Table:
        rows: list[tuple[str, ...]] = [
            (name.replace("_", " "), _number(total / self.samples), _number(total))
            for name, total in {
                **_totals(self.counts),
                **_messages(self.traffic),
                **_drain(self.counts, "pipeline drain "),
            }.items()
        ]
        return "Counts (pipeline drain is not included elsewhere)", ("", "per sample", "total"), rows

    def _population_table(self) -> Table:
        rates = self.counts.rates()
        rows: list[tuple[str, ...]] = []
        for name, updates in self.counts.updates.items():
            spikes = self.counts.spikes.get(name)
            share = self.counts.active_updates[name] / updates if updates else 0.0
            rows.append(
                (
                    name,
                    _number(self.sizes[name]),
                    "-" if spikes is None else _number(spikes / self.samples),
                    f"{rates[name]:.4f}" if name in rates else "-",
                    f"{share:.1%}",
                )
            )
        heads = ("name", "neurons", "spikes per sample", "spikes/neuron/step", "active")
        return "Populations", heads, rows

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What the program's compilation assumed of the exporter of its file."""
        return read_assumptions(self.provenance.get("assumed", ""))

    def warnings(self) -> list[str]:
        """Return a line for data of a single step, which may be still images whose steps nothing states.

        A line for each population whose states left their range, other than by deep inhibition, follows.
        """
        single = [
            "each sample was one step long; if the samples are still images, state for how many steps each "
            "is shown when the model is compiled: --convention presented_steps=N"
        ]
        return (single if self.steps == 1 and "steps" not in self.provenance else []) + [
            f"population {name!r} left its range from step {step} on: u wrapped {found.u_wraps:,} times, v "
            f"saturated {found.v_high:,} times high and {found.v_low:,} times low in {self.samples} samples "
            f"x {self.steps} steps; calibrate on data of this length and range (--calibrate DATA), shorten "
            "the run, or let it leak"
            for name, step in self.onsets.items()
            if (found := self.overflows[name])
        ]

    def notes(self) -> list[str]:
        """Return warnings, one line each."""
        found = [self.mapping_note] if self.mapping_note else []
        found += lines_of(self.assumptions)
        found += overflow_notes({n: o for n, o in self.overflows.items() if n not in self.onsets})
        if self.input_clipped:
            found.append(f"{self.input_clipped} input values were clipped to a message's range")
        if self.ties:
            found.append(f"{self.ties:.1%} of predictions were ties, given to the lowest class")
        return found

    def title(self) -> str:
        """Return the model, or the program's digest, and the device."""
        return f"{self.provenance.get('model') or f'program {self.digest[:12]}'} on {self.device}"

    def html(self, picture: bytes | None = None) -> str:
        """Return the report as one self-contained HTML file, with the figure (PNG bytes) inside it."""
        from snn_compile.runtime.reports.html import compose

        caption = ("One sample", "input, spikes of every population, output membrane, mean rates")
        tables = [*self.tables(), energy_details(self.energy)]
        notes = [*(f"warning: {text}" for text in self.warnings()), *self.notes()]
        return compose(self.title(), self.headline(), notes, tables, self.digest, picture, caption)

    def save(self, path: str | os.PathLike[str], trace: Trace | None = None) -> None:
        """Write the report as .json, .html or .png by the file's suffix, whole or not at all.

        The figure, in .png and .html, needs a `trace` (`runtime.trace`). Raises WrongInput on
        another suffix, a .png without a trace, or a place that cannot be written.
        """
        file = Path(path)
        check_format(file)
        if file.suffix == ".json":
            body = (json.dumps(self.json(), indent=1) + "\n").encode()
        else:
            from snn_compile.runtime.reports.figure import draw

            picture = draw(trace, self.title(), self.counts) if trace else None
            if file.suffix == ".png" and picture is None:
                raise WrongInput(f"{file}: a figure needs the trace of one sample")
            body = self.html(picture).encode() if file.suffix == ".html" else (picture or b"")
        write_report(file, body)


def write_report(file: Path, body: bytes) -> None:
    """Write a report, whole or not at all; raises WrongInput if the place cannot be written."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(body)

    write_whole(file, write, WrongInput)


def render(
    headline: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    width: int = 100,
    warnings: Sequence[str] = (),
) -> str:
    """Return a headline, warnings, tables and notes as text of `width` characters."""
    text = wrapped_text(headline, width)
    text += "".join(wrapped_text(f"warning: {warning}", width) for warning in warnings)
    for title, heads, rows in tables:
        text += table_text(title, heads, rows, width, right=[i > 0 and bool(h) for i, h in enumerate(heads)])
    # A command stays one line.
    return text + "".join(wrapped_text(note, width, wrap=not note.startswith(COMMAND)) for note in notes)


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise WrongInput if no report can be written to `path`."""
    file = Path(path)
    if file.suffix not in FORMATS:
        raise WrongInput(f"report {file}: unknown format {file.suffix!r}; use one of {', '.join(FORMATS)}")
    check_writable(file, WrongInput)


def counts_json(counts: Counts, sizes: Mapping[str, int], traffic: Traffic | None = None) -> dict[str, Any]:
    """Return counts as every command prints them, per sample and in total, the pipeline drain apart."""
    totals, rates = {**_totals(counts), **_messages(traffic)}, counts.rates()
    return {
        "samples": counts.samples,
        "steps": counts.steps,
        "per_sample": {name: total / counts.samples for name, total in totals.items()},
        "total": totals,
        "populations": {
            name: {
                "neurons": sizes[name],
                "spikes": counts.spikes.get(name),
                "rate": rates.get(name),
                "updates": updates,
                "active_updates": counts.active_updates[name],
            }
            for name, updates in counts.updates.items()
        },
        "projections": {name: {"synops": n} for name, n in counts.synops.items()},
        "drain": _drain(counts),
    }


def overflows_json(overflows: Mapping[str, Overflow]) -> dict[str, dict[str, int]]:
    """Return overflows by population as every command prints them."""
    return {
        name: {"u_wraps": o.u_wraps, "v_high": o.v_high, "v_low": o.v_low} for name, o in overflows.items()
    }


def overflow_notes(overflows: Mapping[str, Overflow]) -> list[str]:
    """Return a line for each population whose states left their range."""
    return [
        f"overflow in {name}: u wrapped {o.u_wraps} times, v saturated {o.v_high} times high and {o.v_low} "
        "times low"
        for name, o in overflows.items()
        if o
    ]


def _totals(counts: Counts) -> dict[str, int]:
    return {
        "spikes": counts.total_spikes,
        "synops": counts.total_synops,
        "graded_synops": counts.graded_synops,
        "updates": counts.total_updates,
        "active_updates": counts.total_active_updates,
        "input_messages": counts.input_messages,
    }


def _messages(traffic: Traffic | None) -> dict[str, int]:
    if traffic is None:
        return {}
    between = {"messages_between_chips": traffic.between_chips} if traffic.between_chips else {}
    return {
        "core_messages": traffic.messages,
        "messages_within_tile": traffic.within_tile,
        "hops_east_west": traffic.hops_east_west,
        "hops_north_south": traffic.hops_north_south,
        **between,
    }


def _drain(counts: Counts, prefix: str = "") -> dict[str, int]:
    return {
        f"{prefix}spikes": counts.drain_spikes,
        f"{prefix}synops": counts.drain_synops,
        f"{prefix}updates": counts.drain_updates,
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.2f}"
