"""Resolve the contract of a NIR graph.

An item is taken from what the user states, else from the graph's metadata, else from the conventions of the
exporter that wrote the file (`detect.py`). Nothing is guessed: an item that stays open is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from snn_compile.compiler.contract.contract import (
    CHOICES,
    MEANING,
    METADATA_KEY,
    SCHEMA,
    SCHEMA_VERSION,
    Contract,
    Readout,
    graph_digest,
)
from snn_compile.compiler.contract.detect import detect
from snn_compile.compiler.contract.fingerprints import Detection
from snn_compile.targets.errors import AmbiguousConvention, CompileError

ITEMS = ("dt", "rule", "reset", "reset_timing", "comparison")
"""Items without a default, in the order in which errors list them."""

NEEDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("LIF", "CubaLIF", "IF"), ITEMS),
    **dict.fromkeys(("LI", "CubaLI", "I", "Delay"), ("dt", "rule")),
}
"""Items that NIR's nodes need to have a meaning; extension nodes list them in `needs`."""

PARAMETRIC = frozenset({"dt", "rule", "reset", "reset_timing", "comparison"})
"""Items that give a graph's numbers their meaning; they are required again once the numbers were edited."""


def resolve(graph: Any, stated: Mapping[str, Any] | None = None) -> tuple[Contract, dict[str, str]]:
    """Return the contract of a NIR graph and, per item, how it was decided.

    `stated` holds the user's items; they override the metadata and, in files without metadata, detection
    (`maker` in it names the exporter). Decisions read "stated", "metadata", "detected (norse)", "default of
    norse", or "default" (items on which released exporters agree). Raises AmbiguousConvention if an item that
    the exporter leaves open, or that the nodes need, is not stated, and CompileError on stale or unreadable
    metadata.
    """
    stated = dict(stated or {})
    exporter = {key: stated.pop(key) for key in ("maker",) if key in stated}
    if stated.get("v_min") == "none":
        stated["v_min"] = None
    known = {f.name for f in fields(Contract)}
    if unknown := stated.keys() - known:
        raise CompileError(
            f"unknown convention {', '.join(map(repr, sorted(unknown)))}; known are "
            f"{', '.join(sorted(known | {'maker'}))}"
        )
    _contract({"dt": 1.0, **stated})  # invalid values are reported before missing ones
    from_file = _from_metadata(graph, stated)
    if isinstance(from_file.get("nodes"), Mapping):  # stated items hold for every node
        from_file["nodes"] = {
            name: {key: value for key, value in items.items() if key not in stated}
            for name, items in from_file["nodes"].items()
        }
    found = None if METADATA_KEY in (graph.metadata or {}) else detect(graph, {**stated, **exporter})
    values = {**(found.values if found else from_file), **stated}
    decided = {f.name: "default" for f in fields(Contract)}
    decided |= {key: "metadata" for key in from_file} | (_detected(found) if found else {})
    decided |= {key: "stated" for key in stated}
    for key in stated.keys() & from_file.keys() - {"delays", "readouts", "nodes"}:
        if stated[key] != from_file[key]:
            decided[key] = f"stated, against the file's {from_file[key]}"
    needed = {
        item
        for node in graph.nodes.values()
        for item in NEEDED.get(type(node).__name__, getattr(node, "needs", ()))
    }
    missing = {i: CHOICES.get(i, ("a number",)) for i in ITEMS if i in needed and i not in values}
    if found and found.open and (missing or not found.candidates):
        missing = {o.item: tuple(o.interpretations) for o in found.open}
        raise AmbiguousConvention(f"the graph was {found.describe()}", missing=missing, detection=found)
    if missing:
        lines = "; ".join(f"{item} ({MEANING[item]})" for item in missing)
        flags = " ".join(f"--convention {item}=..." for item in missing)
        raise AmbiguousConvention(f"the graph does not state: {lines}. Set it with {flags}", missing=missing)
    values.setdefault("dt", 1.0)
    return _contract(values), decided


def _contract(values: dict[str, Any]) -> Contract:
    try:
        return Contract(**_typed(values))
    except (TypeError, ValueError, AttributeError) as error:
        raise CompileError(f"contract: {error}") from error


def _detected(found: Detection) -> dict[str, str]:
    decided = {item: f"detected ({found.exporter})" for item in found.values}
    return decided | {item: f"default of {found.exporter}" for item in found.defaults}


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    typed = dict(values)
    for item in ("readouts", "nodes", "integers"):
        if not isinstance(typed.get(item, {}), Mapping):
            raise CompileError(f"contract: {item} is {typed[item]!r}; it maps node names to items", item=item)
    delays = typed.get("delays", {})
    if not isinstance(delays, Mapping):
        delays = {(str(a), str(b)): n for a, b, n in delays}
    typed["delays"] = delays
    typed["readouts"] = {
        name: item if isinstance(item, Readout) else Readout(**item)
        for name, item in typed.get("readouts", {}).items()
    }
    for item in ("dt", "spike_amplitude"):
        try:
            typed[item] = float(typed.get(item, 1.0))
        except (TypeError, ValueError):
            raise CompileError(
                f"contract: {item} is {typed[item]!r}; it must be a number", item=item, value=typed[item]
            ) from None
    return typed


def _from_metadata(graph: Any, stated: Mapping[str, Any]) -> dict[str, Any]:
    raw = (graph.metadata or {}).get(METADATA_KEY)
    if raw is None:
        return {}
    try:
        body = json.loads(raw.decode() if isinstance(raw, bytes) else str(raw))
        schema, version, parameters = body.pop("schema"), body.pop("version"), body.pop("parameters")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CompileError(f"graph metadata {METADATA_KEY!r} is not a contract: {error}") from error
    if schema != SCHEMA or not isinstance(version, int) or version > SCHEMA_VERSION:
        raise CompileError(
            f"graph metadata holds {schema} version {version}; this reads {SCHEMA} up to "
            f"version {SCHEMA_VERSION}; a newer snn-compile wrote it"
        )
    if parameters != graph_digest(graph):
        open_items = PARAMETRIC - stated.keys()
        if open_items:
            raise AmbiguousConvention(
                "the graph was edited after its contract was written, so the contract is stale; state "
                + " ".join(f"--convention {item}=..." for item in sorted(open_items)),
                missing={item: CHOICES.get(item, ("a number",)) for item in sorted(open_items)},
                stale=body,
            )
        # Items that do not depend on the parameters (edges, readouts, the rest) still hold.
        return {key: value for key, value in body.items() if key not in PARAMETRIC | {"integers"}}
    return dict(body)
