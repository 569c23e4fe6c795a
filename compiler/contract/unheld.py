"""Items that an exporter's file does not hold: their defaults, and the options that state them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

NODES_SHOWN = 4

DROPPED = {
    "tau_syn": "a synaptic time constant",
    "bias": "a bias of neurons",
    "w_rec": "recurrent weights",
    "inhibition": "lateral inhibition",
    "state_quant": "quantized states",
}
"""Items that are no items of a contract: exporters drop them, and only `none` can be stated."""


@dataclass(frozen=True)
class Unheld:
    """An item that a file does not hold.

    `value`: the exporter's default. `others`: other values and, in words, the network that they are right
    for; a word in capitals stands for a number. `nodes`: the default of each node that the item is open of,
    empty if it holds for the file as a whole. `alone`: whether other nodes have a value of the item that is
    settled, so that stating it for every node would change them.
    """

    item: str
    value: Any
    others: Mapping[Any, str] = field(default_factory=dict)
    nodes: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False

    @property
    def assumed(self) -> Any:
        """The default: one value, or values by node where they differ."""
        different = any(value != self.value for value in self.nodes.values())
        return dict(self.nodes) if different else self.value

    def left(self, stated: Mapping[str, Any], by_node: Mapping[str, Mapping[str, Any]]) -> Unheld | None:
        """Return what of the item stays open once items are stated, for every node and for single nodes."""
        if self.item in stated:
            return None
        if not self.nodes:
            return self
        nodes = {name: v for name, v in self.nodes.items() if self.item not in by_node.get(name, {})}
        if not nodes:
            return None
        values = list(nodes.values())
        value = max(values, key=values.count)
        alone = self.alone or len(nodes) < len(self.nodes)
        return Unheld(self.item, value, self.others, nodes, alone)

    def flags(self, value: Any) -> str:
        """Return the options that state a value, by node where other nodes keep theirs."""
        if not self.alone:
            return f"--convention {quote(f'{self.item}={shown(value)}')}"
        names = list(self.nodes)
        flags = [
            f"--convention {quote(f'{name}.{self.item}={shown(value)}')}" for name in names[:NODES_SHOWN]
        ]
        return " ".join(flags) + (
            f" (and {len(names) - NODES_SHOWN} more)" if len(names) > NODES_SHOWN else ""
        )

    def line(self, exporter: str) -> str:
        """Return in one line what is assumed, and the options that change it."""
        found = self.assumed
        text = f"assumed {self.item}={shown(found)}" if not isinstance(found, dict) else ""
        if not text:
            parts = [f"{self.item}={shown(v)} of {_of(found, v)}" for v in dict.fromkeys(found.values())]
            text = "assumed " + " and ".join(parts)
        ways = "; ".join(f"{self.flags(value)} if {when}" for value, when in self.others.items())
        return f"{text} (the default of {exporter}; the file does not hold it): {ways}"

    def question(self) -> str:
        """Return the item, its values with their meaning, and the options that state it."""
        if self.item in DROPPED:
            return f"{self.item} ({DROPPED[self.item]}, dropped; {self.flags('none')} says there is none)"
        found = self.assumed
        if isinstance(found, dict):
            usual = " and ".join(f"{shown(v)} of {_of(found, v)}" for v in dict.fromkeys(found.values()))
        else:
            usual = shown(found)
        others = ", ".join(f"{shown(value)} if {when}" for value, when in self.others.items())
        words = "|".join(dict.fromkeys(map(shown, (*self.words, *self.others))))
        return f"{self.item} ({usual} by default, {others}: {self.flags(words)})"

    @property
    def words(self) -> tuple[Any, ...]:
        """The values that are defaults, then the others."""
        return tuple(dict.fromkeys((self.value, *self.nodes.values(), *self.others)))


def shown(value: Any) -> str:
    """Return a value as an option states it."""
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _of(found: Mapping[str, Any], value: Any) -> str:
    names = [name for name, own in found.items() if own == value]
    more = f" and {len(names) - NODES_SHOWN} more" if len(names) > NODES_SHOWN else ""
    return ", ".join(names[:NODES_SHOWN]) + more


@dataclass(frozen=True)
class Assumption:
    """An assumed item: its value (values by node where they differ), and a line with the option for it."""

    item: str
    value: Any
    text: str

    def json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {"item": self.item, "value": self.value, "text": self.text}


def assumptions_of(exporter: str, unheld: Sequence[Unheld]) -> tuple[Assumption, ...]:
    """Return what is assumed of an exporter; the items that it drops share one line."""
    lost = [item.item for item in unheld if item.item in DROPPED]
    text = (
        f"assumed {', '.join(f'{item}=none' for item in lost)}: {exporter} drops "
        f"{' and '.join(DROPPED[item] for item in lost)} without a word, and no option restores "
        f"{'them' if len(lost) > 1 else 'it'}"
    )
    return tuple(
        Assumption(u.item, u.assumed, text if u.item in DROPPED else u.line(exporter)) for u in unheld
    )


def lines_of(assumptions: Sequence[Assumption]) -> list[str]:
    """Return the lines that say what is assumed, each once."""
    return list(dict.fromkeys(item.text for item in assumptions))


def read_assumptions(text: str) -> tuple[Assumption, ...]:
    """Return the assumptions that a program's provenance holds; none of what is no list of them."""
    try:
        return tuple(Assumption(str(one["item"]), one["value"], str(one["text"])) for one in json.loads(text))
    except (ValueError, TypeError, KeyError):
        return ()


def assumed_items(assumptions: tuple[Assumption, ...]) -> dict[str, Any]:
    """Return what is assumed by item: a value, or values by node where they differ."""
    found: dict[str, Any] = {}
    for one in assumptions:
        both = one.item in found and isinstance(one.value, Mapping) and isinstance(found[one.item], Mapping)
        found[one.item] = {**found[one.item], **one.value} if both else one.value
    return found
