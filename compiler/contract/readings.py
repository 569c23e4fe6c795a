"""Checks and readings of exporters: their types, and the parts that exporters share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_compile.compiler.contract.fingerprints import Float, Traits, flat, unequal
from snn_compile.compiler.contract.unheld import Unheld


@dataclass(frozen=True)
class Check:
    """Relations of an exporter's files that a graph breaks, and what speaks for it.

    `likely`: whether the relations hold for more than a constant that was fitted to them. `named`: whether
    the ports are called as the exporter calls them. `sure`: whether all that is enough to name the exporter,
    if no other is likely.
    """

    objections: tuple[str, ...]
    evidence: tuple[str, ...] = ()
    likely: bool = True
    named: bool = False
    sure: bool = False


@dataclass(frozen=True)
class Reading:
    """What a graph means as an exporter's file: items of the contract, by node where they differ."""

    values: Mapping[str, Any]
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unheld: tuple[Unheld, ...] = ()


Stated = Mapping[str, Any]
"""Items that the user states; under `nodes` by node."""


@dataclass(frozen=True)
class Exporter:
    """An exporter: its name, a check of whether it wrote a graph, and a reading of it as if it had."""

    name: str
    check: Callable[[Traits], Check]
    read: Callable[[Traits, Stated], Reading]


def stated_of(stated: Stated, node: str, item: str, default: Any) -> Any:
    """Return what is stated of an item, for the node or for all of them."""
    own = stated.get("nodes", {}).get(node, {})
    return own.get(item, stated.get(item, default))


def same_step(comparison: str, reset: str, **more: Any) -> dict[str, Any]:
    """Return items on spikes as most exporters mean them: one at most, reset in its step."""
    values = {"comparison": comparison, "reset": reset, "reset_timing": "same_step", "v_init": 0.0}
    settled = {"update_order": "synapse_first", "current_decay": "before", "spikes_per_step": "one"}
    return {**values, **settled, **more}


def open_by_node(
    item: str, nodes: Mapping[str, Any], others: Mapping[Any, str], alone: bool = False
) -> tuple[Unheld, ...]:
    """Return the item, open of nodes with a default each; nothing if there are none."""
    values = list(nodes.values())
    return (Unheld(item, max(values, key=values.count), others, dict(nodes), alone),) if values else ()


def constant(traits: Traits, value: float, *keys: str) -> list[str]:
    """Return objections to parameters that are not `value`, as the exporter writes them."""
    return [
        line
        for name, node in traits.neurons.items()
        for key in keys
        for line in unequal(name, key, flat(node, key), value, "what its exporter writes")
    ]


def tau_of(node: Any) -> Float:
    """The membrane's time constants, empty if the node has none."""
    return flat(node, "tau") if hasattr(node, "tau") else flat(node, "tau_mem")


def paired(a: Float, b: Float) -> tuple[Float, Float]:
    """Return two parameters, values for a layer repeated."""
    first, second = np.broadcast_arrays(a, b)
    return first, second
