"""Detect which exporter wrote a NIR file, and which contract items that settles.

Released exporters leave the step, the reset and the gain out of their files, but each keeps relations between
the numbers of a node: r = tau/dt, tau in steps, r = (tau/dt) exp(-dt/tau). `detect` checks every node against
the relations of every exporter in `exporters.py`: one node that an exporter cannot have written excludes it.
An exporter is named where its relations hold, are more than chance, and no other exporter's hold as well with
another meaning; if one does, both stay open, and differ in the item `maker`. Otherwise the result is None.

`maker` is no item of the contract: it states the exporter, and its convention then holds whatever the numbers
say; where they say otherwise, the detection holds warnings. With `maker=none` nothing is detected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_compile.compiler.contract.exporters import EXPORTERS
from snn_compile.compiler.contract.fingerprints import SPIKING, Traits, flat, kind, traits, walk
from snn_compile.compiler.contract.readings import Check, Reading
from snn_compile.compiler.contract.unheld import DROPPED, Unheld
from snn_compile.targets.errors import CompileError

WARNINGS_MAX = 4

LEAKY = ("LIF", "CubaLIF", "LI", "CubaLI")


@dataclass(frozen=True)
class Detection:
    """A detected exporter: the `values` of the contract that it settles (and `nodes`, by node).

    `evidence`: the reasons, in words. `unheld`: items that the file does not hold and nobody stated; the
    values are the exporter's defaults. `candidates`: exporters whose files look alike and differ in meaning,
    by name; then `values` holds what they agree on. `warnings`: numbers that contradict a stated exporter.
    """

    exporter: str
    values: Mapping[str, Any]
    evidence: tuple[str, ...]
    unheld: tuple[Unheld, ...] = ()
    candidates: Mapping[str, Detection] | None = None
    warnings: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return in one line the exporter and the evidence."""
        return f"written by {self.exporter}" + (f" ({'; '.join(self.evidence)})" if self.evidence else "")


def detect(graph: Any, stated: Mapping[str, Any] | None = None) -> Detection | None:
    """Return the exporter of a NIR graph and the items that it settles, or None.

    `stated` are the user's items: a stated item is no longer open, its consequences are among the values, and
    {"maker": name} settles the exporter. Raises CompileError if the stated exporter is unknown.
    """
    stated = dict(stated or {})
    wanted = stated.pop("maker", None)
    if wanted == "none":
        return None
    seen = traits(graph)
    if wanted is not None:
        if wanted not in EXPORTERS:
            names = ", ".join((*EXPORTERS, "none"))
            raise CompileError(f"unknown exporter {wanted!r} (maker); known are {names}", maker=wanted)
        return _as_written_by(wanted, graph, seen, stated)
    checks = _checks(seen)
    if seen is None or not any(check.sure for check in checks.values()):
        return None
    # Ports may have been renamed, unless other names show that they were not.
    fits = {name: c for name, c in checks.items() if c.likely and (c.named or not seen.telling)}
    found = {name: _detection(name, check.evidence, seen, stated) for name, check in fits.items()}
    first, *rest = found.values()
    meaning = _meaning(seen, first.values)
    if all(_meaning(seen, other.values) == meaning for other in rest):
        return first if not rest else _joined(found)
    return _undecided(found)


def fitting(graph: Any) -> tuple[str, ...]:
    """Return the exporters whose relations the numbers of a graph keep, if only by chance."""
    return tuple(_checks(traits(graph)))


def _checks(seen: Traits | None) -> dict[str, Check]:
    """Return the checks of the exporters that every node fits."""
    if seen is None:
        return {}
    with np.errstate(all="ignore"):
        checks = {name: exporter.check(seen) for name, exporter in EXPORTERS.items()}
    return {name: check for name, check in checks.items() if not check.objections}


def _as_written_by(name: str, graph: Any, seen: Traits | None, stated: Mapping[str, Any]) -> Detection:
    if seen is None:  # no neurons, or numbers that lowering refuses by name
        return _detection(name, ("stated",), Traits(dict(walk(graph))), stated)
    with np.errstate(all="ignore"):
        objections = EXPORTERS[name].check(seen).objections
    warnings = [f"maker={name} is stated, but {text}" for text in objections[:WARNINGS_MAX]]
    if len(objections) > WARNINGS_MAX:
        more = len(objections) - WARNINGS_MAX
        warnings.append(f"maker={name} is stated, but {more} more nodes or numbers contradict it")
    found = _detection(name, ("stated",), seen, stated)
    return Detection(name, found.values, found.evidence, found.unheld, warnings=tuple(warnings))


def _detection(name: str, evidence: tuple[str, ...], seen: Traits, stated: Mapping[str, Any]) -> Detection:
    with np.errstate(all="ignore"):
        reading = EXPORTERS[name].read(seen, stated)
    by_node = stated.get("nodes", {})
    left = (item.left(stated, by_node) for item in reading.unheld)
    values = _settled(reading, seen, stated)
    return Detection(name, values, evidence, tuple(item for item in left if item is not None))


def _settled(reading: Reading, seen: Traits, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items of a reading, with defaults for what is open and with what is stated."""
    values = dict(reading.values)
    nodes = {name: dict(reading.nodes.get(name, {})) for name in seen.neurons}
    for name, items in nodes.items():
        own = {u.item: u.nodes[name] for u in reading.unheld if name in u.nodes}
        nodes[name] = {**{key: values[key] for key in _of_nodes(reading) if key in values}, **items, **own}
    for item in reading.unheld:
        if item.item not in DROPPED and not item.nodes:
            values[item.item] = item.value
    for key in _of_nodes(reading):
        held = [items[key] for name, items in nodes.items() if key in items and _has(seen, name, key)]
        if held and held.count(values.get(key)) < max(map(held.count, held)):
            values[key] = max(held, key=held.count)
        values.setdefault(key, held[0] if held else None)
    values |= {key: value for key, value in stated.items() if key not in ("nodes", *DROPPED)}
    kept = {
        name: {k: v for k, v in items.items() if k not in stated and _has(seen, name, k) and v != values[k]}
        for name, items in nodes.items()
    }
    for name, items in stated.get("nodes", {}).items():
        kept[name] = {**kept.get(name, {}), **items}
    kept = {name: items for name, items in kept.items() if items}
    return {**values, **({"nodes": kept} if kept else {})}


def _of_nodes(reading: Reading) -> list[str]:
    """Items that a reading settles or leaves open by node."""
    items = [key for own in reading.nodes.values() for key in own]
    return list(dict.fromkeys([*items, *(u.item for u in reading.unheld if u.nodes)]))


def _has(seen: Traits, name: str, item: str) -> bool:
    """Whether an item means anything for a neuron."""
    what = kind(seen.neurons[name])
    if item in ("reset", "reset_timing", "comparison", "spikes_per_step", "v_min", "v_reset"):
        return what in SPIKING
    return what.startswith("Cuba") if item in ("current_decay", "update_order") else True


def _meaning(seen: Traits, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the items mean for every neuron, without the differences that change nothing."""
    found: dict[str, Any] = {"delays": values.get("delays", {})}
    for name, node in seen.neurons.items():
        own = {**values, **values.get("nodes", {}).get(name, {})}
        words = {
            k: v for k, v in own.items() if k not in ("nodes", "delays", "time_unit") and _has(seen, name, k)
        }
        if kind(node) not in LEAKY:
            gain = flat(node, "r") * own["dt"] if own["gain"] == "as_written" else np.ones(1)
            words |= {"dt": 0.0, "rule": "", "gain": tuple(np.unique(np.round(gain, 6)))}
        start = own["v_init"]
        words["v_init"] = tuple(flat(node, start) if isinstance(start, str) else np.array([start]))
        words["v_init"] = words["v_init"] if any(words["v_init"]) else ()
        found[name] = words
    return found


def _joined(found: Mapping[str, Detection]) -> Detection:
    """Return several exporters' detections that mean the same as one."""
    first = next(iter(found.values()))
    evidence = tuple(f"{name}: {'; '.join(item.evidence)}" for name, item in found.items())
    unheld = {(u.item, tuple(u.nodes)): u for item in found.values() for u in item.unheld}
    return Detection(" or ".join(found), first.values, evidence, tuple(unheld.values()))


def _undecided(found: Mapping[str, Detection]) -> Detection:
    """Return the items on which several exporters agree, with the exporter open."""
    first, *rest = found.values()
    agreed = {
        item: value
        for item, value in first.values.items()
        if all(item in other.values and other.values[item] == value for other in rest)
    }
    evidence = tuple(f"{name}: {'; '.join(item.evidence)}" for name, item in found.items())
    return Detection(" or ".join(found), agreed, evidence, candidates=dict(found))
