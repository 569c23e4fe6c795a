"""Detect which exporter wrote a NIR file, and which contract items that settles.

Released exporters leave the step, the reset and the gain out of their files, but each leaves fingerprints:
r = tau/dt, tau in steps, names of nodes. `detect` compares a graph with the fingerprints of every exporter in
`exporters.py`. One match gives the items of the contract that this exporter's files mean, and the items that
the file does not hold (snnTorch's reset, for example), which stay open until they are stated. Two matches
stay open as well: they differ in the item `maker`. No match is None.

`maker` is no item of the contract: it may be stated to choose between matches, and it takes the exporter's
defaults for what the file does not hold. With `maker=none` nothing is detected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from snn_compile.compiler.contract.exporters import EXPORTERS
from snn_compile.compiler.contract.fingerprints import Detection, Open, Traits, traits
from snn_compile.targets.errors import CompileError


def detect(graph: Any, stated: Mapping[str, Any] | None = None) -> Detection | None:
    """Return the exporter of a NIR graph and the items that it settles, or None.

    `stated` are the user's items: a stated item is no longer open, its consequences are among the values, and
    {"maker": name} takes that exporter's defaults for all open items. Raises CompileError if the stated
    exporter is unknown or the graph does not match its files.
    """
    stated = dict(stated or {})
    wanted = stated.pop("maker", None)
    if wanted == "none":
        return None
    if wanted is not None and wanted not in EXPORTERS:
        names = ", ".join((*EXPORTERS, "none"))
        raise CompileError(f"unknown exporter {wanted!r} (maker); known are {names}", maker=wanted)
    seen, matches = traits(graph), {}
    for name in EXPORTERS if wanted is None else (wanted,):
        found = _match(name, seen, stated)
        if found is not None and wanted is not None:
            usual = {o.item: o.usual for o in found.open if o.usual is not None}
            found = _match(name, seen, {**usual, **stated})
            found = replace(found, defaults=tuple(usual)) if found else None
        if found is not None:
            matches[name] = _for_every_node(found, stated)
    if wanted is not None and not matches:
        raise CompileError(f"the graph does not match the files that {wanted} writes", maker=wanted)
    if len(matches) < 2:
        return next(iter(matches.values()), None)
    return _undecided(matches)


def _match(name: str, seen: Traits | None, stated: Mapping[str, Any]) -> Detection | None:
    try:
        with np.errstate(all="ignore"):
            return None if seen is None else EXPORTERS[name](seen, stated)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None  # parameters of odd shapes: no exporter's, and lowering reports what is wrong


def _for_every_node(found: Detection, stated: Mapping[str, Any]) -> Detection:
    """Drop stated items from the values of single nodes: they hold for every node."""
    nodes = {
        name: kept
        for name, items in found.values.get("nodes", {}).items()
        if (kept := {key: value for key, value in items.items() if key not in stated})
    }
    values = {key: value for key, value in found.values.items() if key != "nodes"}
    return replace(found, values={**values, **({"nodes": nodes} if nodes else {})})


def _undecided(matches: Mapping[str, Detection]) -> Detection:
    """Return the items on which several exporters agree, with the exporter open."""
    first, *rest = matches.values()
    agreed = {
        item: value
        for item, value in first.values.items()
        if all(item in other.values and other.values[item] == value for other in rest)
    }
    interpretations = {
        name: ", ".join(f"{k} {v}" for k, v in found.values.items() if k not in agreed and k != "nodes")
        or "the same items, other open ones"
        for name, found in matches.items()
    }
    return Detection(
        " or ".join(matches),
        agreed,
        tuple(f"{name}: {'; '.join(found.evidence)}" for name, found in matches.items()),
        open=(Open("maker", interpretations),),
        candidates=tuple(matches.values()),
    )
