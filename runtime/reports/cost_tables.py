"""Energies, times and NeuroBench's metrics as tables and as plain values, the same in every report."""

from __future__ import annotations

from typing import Any

from snn_compile.runtime.reports.accuracy_tables import Table
from snn_compile.runtime.reports.energy import Energy
from snn_compile.runtime.reports.neurobench import NeuroBench
from snn_compile.runtime.reports.quantized_ann import QuantizedAnn
from snn_compile.runtime.reports.step_time import StepTime
from snn_compile.targets.costs.silicon_records import silicon_records
from snn_compile.targets.schema import Interval


def energy_json(proxies: tuple[Energy, ...]) -> dict[str, Any]:
    """Return the proxies by name as every command prints them; parts are picojoules per sample."""
    return {
        p.name: {
            "per_sample_pj": p.per_sample_pj,
            "interval_pj": list(p.interval_pj),
            "against_silicon": {
                record.network: list(ratio)
                for record in silicon_records()
                if (ratio := record.energy_ratio(p.name)) is not None
            },
            "total_pj": p.total_pj,
            "label": p.label,
            "source": p.source,
            "excluded": p.excluded,
            "parts_pj": {term: value / p.samples for term, value in p.parts_pj.items()},
        }
        for p in proxies
    }


def energy_table(proxies: tuple[Energy, ...], time: StepTime | None = None) -> Table:
    """Return one line per proxy: what it prices, and nanojoules per sample; static power has its own."""
    records = silicon_records()
    rows: list[tuple[str, ...]] = []
    for proxy in proxies:
        ratios = [record.energy_ratio(proxy.name) for record in records]
        against = ["-" if ratio is None else _span(ratio, ".2f") for ratio in ratios]
        rows.append((proxy.name, proxy.prices, _nanojoules(proxy.interval_pj), *against))
    if time and time.static_w and time.static_pj:
        power = f"{_span(time.static_w, '.3g')} W of {time.hardware}, least time below"
        rows.append(("static", power, f"at least {_nanojoules(time.static_pj)}", *("-" for _ in records)))
    title = "Energy proxies: each a proxy, not a measurement (terms and sources: --report, --json). "
    title += _measured()
    one = len(records) == 1
    heads = ("against silicon",) if one else tuple(record.network for record in records)
    return title, ("proxy", "prices", "nJ per sample", *heads), rows


def _measured() -> str:
    records = silicon_records()
    names = ", ".join(f"{record.network} on {record.hardware}" for record in records)
    count = "one network" if len(records) == 1 else f"{len(records)} networks"
    return f"Against silicon: predicted / measured of {names}; {count} measured"


def energy_details(proxies: tuple[Energy, ...]) -> Table:
    """Return the proxies with their terms, sources and exclusions."""
    rows: list[tuple[str, ...]] = []
    for proxy in proxies:
        rows.append((f"{proxy.name}: {proxy.label}", _nanojoules(proxy.interval_pj)))
        high = proxy.high_parts_pj or proxy.parts_pj
        rows += [
            (f"    {term}", _nanojoules((value / proxy.samples, high[term] / proxy.samples)))
            for term, value in proxy.parts_pj.items()
            if len(proxy.parts_pj) > 1
        ]
        rows.append((f"    source: {proxy.source}", ""))
        rows.append((f"    excluded: {proxy.excluded}", ""))
    return "Energy proxies by term (no hardware was measured)", ("proxy", "nJ per sample"), rows


def neurobench_table(found: NeuroBench) -> Table:
    """Return NeuroBench's metrics as one line."""
    sparsity = found.activation_sparsity
    heads = (
        "effective MACs",
        "effective ACs",
        "dense",
        "activation sparsity",
        "connection sparsity",
        "footprint",
    )
    row = (
        f"{found.effective_macs:,.0f}",
        f"{found.effective_acs:,.0f}",
        f"{found.dense:,.0f}",
        "-" if sparsity is None else f"{sparsity:.1%}",
        f"{found.connection_sparsity:.1%}",
        f"{found.footprint_bytes / 1024:,.1f} KiB",
    )
    return "NeuroBench's metrics (operations per sample)", heads, [row]


def time_table(time: StepTime) -> Table:
    """Return the terms of a step's least time, one line each."""
    rows: list[tuple[str, ...]] = []
    for term in time.terms:
        amount = (
            "" if term.per_step is None else f"{term.per_step:,.1f}".removesuffix(".0") + f" {term.units}"
        )
        each = "no public rate" if term.each_ns is None else f"{_span(term.each_ns)} ns"
        least = "-" if term.ns is None else f"{_span(term.ns)} ns"
        rows.append((term.name, term.place, amount, each, least))
    title = (
        f"A step takes at least {_span(time.bound_ns)} ns: {time.binding.name}, {time.binding.place} "
        f"({time.hardware}; mean counts of the run; +{time.latency_steps} steps latency). "
        + ", ".join(
            f"Of {record.network} the bound is {_span(record.time_ratio, '.2f')} of the measured time"
            for record in silicon_records()
        )
    )
    return title, ("term", "fullest at", "per step", "each", "at least"), rows


def ann_table(ann: QuantizedAnn) -> Table:
    """Return the quantized ANN of the same layers as one line."""
    row = (
        f"{ann.macs:,.0f}",
        f"{ann.per_sample_pj / 1000:,.3f}",
        f"{ann.spiking_pj / 1000:,.3f}",
        f"{ann.break_even_rate:.4f}" if ann.break_even_rate else "none",
        "-" if ann.rate is None else f"{ann.rate:.4f}",
    )
    title = (
        f"The same layers as an ANN of {ann.weight_bits}-bit weights and {ann.activation_bits}-bit "
        "activations (45 nm integer arithmetic alone)"
    )
    heads = ("MACs", "nJ per sample", "spiking", "even at spikes/neuron/step", "here")
    return title, heads, [row]


def _span(interval: Interval, form: str = "") -> str:
    low, high = (format(value, form or (",.4g" if value < 100 else ",.0f")) for value in interval)
    return low if low == high else f"{low} to {high}"


def _nanojoules(interval: Interval) -> str:
    low, high = (f"{value / 1000:,.3f}" for value in interval)
    return low if low == high else f"{low} to {high}"
