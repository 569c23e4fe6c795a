"""Resolve the contract of a NIR graph.

An item is taken from what the user states, else from the graph's metadata, else from the conventions of the
exporter that wrote the file (`detect.py`). Nothing is taken in silence: what an exporter's file does not hold
gets the exporter's default and is listed as an assumption, or is an error (`strict`); an item without a
default is an error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from snn_compile.compiler.contract.contract import (
    CHOICES,
    MEANING,
    METADATA_KEY,
    PER_NODE,
    SCHEMA,
    SCHEMA_VERSION,
    Contract,
    Readout,
    graph_digest,
)
from snn_compile.compiler.contract.detect import Detection, detect, fitting
from snn_compile.compiler.contract.exporters import EXPORTERS
from snn_compile.compiler.contract.fingerprints import LINEAR, walk
from snn_compile.compiler.contract.unheld import DROPPED, Assumption, assumptions_of
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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resolution:
    """A resolved contract: how each item was decided, what was assumed, and what contradicts a statement."""

    contract: Contract
    decided: dict[str, str]
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()


def resolve(graph: Any, stated: Mapping[str, Any] | None = None) -> tuple[Contract, dict[str, str]]:
    """Return the contract of a NIR graph and, per item, how it was decided; see `resolution`."""
    found = resolution(graph, stated)
    return found.contract, found.decided


def resolution(graph: Any, stated: Mapping[str, Any] | None = None, strict: bool = False) -> Resolution:
    """Resolve the contract of a NIR graph.

    `stated` holds the user's items, under `nodes` those of single nodes; they override the metadata and, in
    files without metadata, detection (`maker` in it names the exporter). Decisions read "stated", "metadata",
    "detected (norse)", "default of norse" (which is an assumption), or "default" (items on which released
    exporters agree). Raises AmbiguousConvention if an item that the nodes need has neither a value nor a
    default, with `strict` if an exporter's default would be assumed, and CompileError on stale or unreadable
    metadata and on items that are unknown, have wrong values or name nodes that the graph does not have.
    """
    stated = dict(stated or {})
    exporter = {key: stated.pop(key) for key in ("maker",) if key in stated}
    dropped = {key: stated.pop(key) for key in DROPPED if key in stated}
    stated = _checked(graph, stated, dropped)
    own = exporter.get("maker", "none") != "none"
    from_file = _from_metadata(graph, stated, own)
    in_file = METADATA_KEY in (graph.metadata or {})
    found = None if in_file and not own else detect(graph, {**stated, **dropped, **exporter})
    values = {**from_file, **(found.values if found else {}), **stated}
    values["nodes"] = _of_nodes(from_file, found, stated)
    # An item that came later stays out of a file's contract where it says nothing.
    said = {f.name for f in fields(Contract) if in_file and f.metadata.get("later")}
    decided = {f.name: "metadata" if f.name in said else "default" for f in fields(Contract)}
    decided |= {key: "metadata" for key in from_file} | (_detected(found) if found else {})
    decided |= {key: "stated" for key in stated if key != "nodes" or stated["nodes"]}
    for key in stated.keys() & from_file.keys() - {"delays", "readouts", "nodes"}:
        if stated[key] != from_file[key]:
            decided[key] = f"stated, against the file's {from_file[key]}"
    missing = _missing(graph, values)
    if found and found.candidates and missing:
        raise _undecided(found)
    if found and strict and found.unheld:
        raise _unheld(found)
    if missing:
        raise _open(graph, missing)
    for text in found.warnings if found else ():
        log.warning("%s", text)
    assumed = assumptions_of(found.exporter, found.unheld) if found else ()
    values.setdefault("dt", 1.0)
    return Resolution(_contract(values), decided, assumed, found.warnings if found else ())


def presented_steps(graph: Any, stated: Mapping[str, Any] | None = None) -> int | None:
    """Return for how many steps a sample of one frame is presented; None where samples have steps.

    `stated` holds the user's items as for `resolution`; raises CompileError on unreadable metadata.
    """
    item = "presented_steps"
    values = {**_from_metadata(graph, {}, exporter=True), **(stated or {})}
    return _contract({"dt": 1.0, item: values.get(item)}).presented_steps


def _checked(graph: Any, stated: dict[str, Any], dropped: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stated items with `none` for a clip read; raises CompileError on what cannot be stated."""
    for item, value in dropped.items():
        if value != "none":
            raise CompileError(
                f"convention {item} is {value!r}: an exporter that drops {DROPPED[item]} leaves a graph "
                f"without it, and only {item}=none can be stated; write the nodes that are missing",
                item=item,
            )
    known = {f.name for f in fields(Contract)}
    if unknown := stated.keys() - known:
        raise CompileError(
            f"unknown convention {', '.join(map(repr, sorted(map(str, unknown))))}; known are "
            f"{', '.join(sorted(known | {'maker', *DROPPED}))}"
        )
    nodes = stated.get("nodes", {})
    if not isinstance(nodes, Mapping) or not all(isinstance(items, Mapping) for items in nodes.values()):
        raise CompileError(f"contract: nodes is {nodes!r}; it maps node names to items", item="nodes")
    there = dict(walk(graph))
    neurons = [name for name, node in there.items() if type(node).__name__ not in LINEAR]
    for name, items in nodes.items():
        if name not in neurons:
            raise CompileError(
                f"convention {name}.{next(iter(items), '')}: "
                + (f"node {name!r} is no neuron" if name in there else f"the graph has no node {name!r}")
                + f"; its neurons are {_named(neurons)}",
                node=name,
            )
        if wrong := sorted(map(str, items.keys() - PER_NODE)):
            raise CompileError(
                f"convention {name}.{wrong[0]}: single nodes have the items {', '.join(sorted(PER_NODE))}",
                node=name,
            )
    plain = {**stated, **({"v_min": None} if stated.get("v_min") == "none" else {})}
    if nodes:
        plain["nodes"] = {
            name: {k: None if (k, v) == ("v_min", "none") else v for k, v in items.items()}
            for name, items in nodes.items()
        }
    _contract({"dt": 1.0, **plain})  # invalid values are reported before missing ones
    return plain


def _named(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "none"


def _needed(node: Any) -> tuple[str, ...]:
    items = NEEDED.get(type(node).__name__, getattr(node, "needs", ()))
    return tuple(items)


def _of_nodes(from_file: Mapping[str, Any], found: Detection | None, stated: Mapping[str, Any]) -> Any:
    """Return the items of single nodes; what is stated for every node holds for them as well."""
    nodes = from_file.get("nodes", {})
    if not isinstance(nodes, Mapping):
        return nodes  # the contract refuses it by name
    merged = {**nodes, **(found.values.get("nodes", {}) if found else {})}
    plain = {name: {k: v for k, v in items.items() if k not in stated} for name, items in merged.items()}
    for name, items in stated.get("nodes", {}).items():
        plain[name] = {**plain.get(name, {}), **items}
    return {name: items for name, items in plain.items() if items}


def _missing(graph: Any, values: Mapping[str, Any]) -> list[str]:
    """Return the items that a node needs and that have no value, for every node or for that one."""
    nodes = values.get("nodes") or {}
    return [
        item
        for item in ITEMS
        if item not in values
        and any(item in _needed(node) and item not in nodes.get(name, {}) for name, node in walk(graph))
    ]


def _undecided(found: Detection) -> AmbiguousConvention:
    assert found.candidates
    names = "|".join(found.candidates)
    ways = "; ".join(
        f"{name}: "
        + ", ".join(f"{k} {v}" for k, v in other.values.items() if k not in ("nodes", *found.values))
        for name, other in found.candidates.items()
    )
    return AmbiguousConvention(
        f"the graph was {found.describe()}, whose files look alike and mean different networks ({ways}). "
        f"State --convention maker={names}, or maker=none and every item",
        missing={"maker": tuple(found.candidates)},
        detection=found,
    )


def _unheld(found: Detection) -> AmbiguousConvention:
    text = "; ".join(item.question() for item in found.unheld)
    missing: dict[str, tuple[Any, ...]] = {}
    for item in found.unheld:
        words = ("none",) if item.item in DROPPED else item.words
        missing[item.item] = tuple(dict.fromkeys((*missing.get(item.item, ()), *words)))
    return AmbiguousConvention(
        f"the graph was {found.describe()}. The file does not state: {text}. Without --strict the "
        f"defaults of {found.exporter} are assumed and listed",
        missing=missing,
        detection=found,
    )


def _open(graph: Any, missing: list[str]) -> AmbiguousConvention:
    lines = "; ".join(f"{item} ({MEANING[item]})" for item in missing)
    flags = " ".join(f"--convention {item}=..." for item in missing)
    fits = fitting(graph)
    known = f"--convention maker={'|'.join(fits or EXPORTERS)}"
    maker = f"; its numbers would fit files of {' and '.join(fits)}: {known}" if fits else ""
    if not fits:
        maker = f", or name the exporter that wrote the file with {known}"
    return AmbiguousConvention(
        f"the graph does not state: {lines}. Set it with {flags}{maker}",
        missing={item: CHOICES.get(item, ("a number",)) for item in missing},
    )


def _contract(values: dict[str, Any]) -> Contract:
    try:
        return Contract(**_typed(values))
    except (TypeError, ValueError, AttributeError) as error:
        raise CompileError(f"contract: {error}") from error


def _detected(found: Detection) -> dict[str, str]:
    decided = {item: f"detected ({found.exporter})" for item in found.values}
    if found.evidence == ("stated",):
        decided = {item: f"exporter stated ({found.exporter})" for item in found.values}
    return decided | {u.item: f"default of {found.exporter}" for u in found.unheld if u.item not in DROPPED}


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
    shown = typed.get("presented_steps")
    if shown == "none" or isinstance(shown, float):
        typed["presented_steps"] = None if shown == "none" else int(shown) if shown % 1 == 0 else shown
    return typed


def _from_metadata(graph: Any, stated: Mapping[str, Any], exporter: bool) -> dict[str, Any]:
    """Return the items in a graph's metadata; a stated exporter settles those that its numbers depend on."""
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
        open_items = set() if exporter else PARAMETRIC - stated.keys()
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
