"""The contract: the discretisation of a NIR graph, which its equations leave open.

NIR states continuous-time equations. How a step of length dt discretises them, how and when a spike
resets, and the delay of an edge are up to the reader unless the file states them. This module defines the
vocabulary and stores a contract as one JSON string under the graph metadata key `snn_compile`, bound to the
graph's parameters by a digest. `resolve.py` reads it back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from snn_compile.targets.errors import CompileError
from snn_compile.targets.program.program import REDUCED
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES

METADATA_KEY = "snn_compile"
SCHEMA = "snn-compile-contract"
SCHEMA_VERSION = 1

CHOICES: dict[str, tuple[str, ...]] = {
    "time_unit": ("s", "step"),
    "rule": ("euler", "exponential"),
    "gain": ("as_written", "unit", "norm", "decayed"),
    **RULE_CHOICES,
    "signal": ("spikes", "membrane"),
    "readout": ("count", "mean", "last", "max", "per_step"),
    "task": ("classify", "regress"),
}
"""Allowed values of every item that is a choice."""

MEANING = {
    "dt": "length of a step, in the unit of the graph's time constants",
    "rule": "euler: decay 1 - dt/tau, gain dt/tau; exponential: decay exp(-dt/tau), gain 1 - decay",
    "comparison": "whether a membrane exactly at threshold spikes (>=) or not (>)",
    "reset": "value: v becomes v_reset; subtract: v loses the threshold; none: v goes on",
    "reset_timing": "same_step; next_before: next step, before integrating; next_after: after it; "
    "pending: snnTorch's reset_delay=False",
}
"""One line per item that the error of an open contract lists."""


@dataclass(frozen=True)
class Readout:
    """How one output node is read: its signal, the reduction over time, and the task.

    count, mean and max leave out the first `skip` steps.
    """

    signal: str = "spikes"
    readout: str = "count"
    task: str = "classify"
    skip: int = field(default=0, metadata={"later": True})

    def __post_init__(self) -> None:
        for item in ("signal", "readout", "task"):
            _check_choice(item, getattr(self, item))
        if type(self.skip) is not int or self.skip < 0 or (self.skip and self.readout not in REDUCED):
            raise CompileError(
                f"contract: skip is {self.skip!r}; it must be a number of steps, and 0 for the readout "
                f"{self.readout}",
                item="skip",
                value=self.skip,
            )

    def plain(self) -> dict[str, Any]:
        """Return the items as plain values, without a skip of 0."""
        return {key: value for key, value in asdict(self).items() if key != "skip" or value}


@dataclass(frozen=True)
class Contract:
    """The resolved discretisation of one graph (design, section 4).

    `delays` gives the logical delay in steps of edges (source node, target node) that are not 0; every
    cycle of the graph needs at least one. `nodes` overrides items for single neuron nodes. `v_init` is a
    number, "v_leak" or "v_reset". `v_reset` replaces the nodes' own, which some exporters drop. `integers`
    gives the units of nodes that were trained as a chip's integers:
    of a neuron node `scale` (threshold units of the chip per unit of the node) and `weight_bits` of its
    incoming weights, of an input node `scale` (messages), `message_bits` (0: spikes) and `signed`.
    `presented_steps`: a sample is one frame that the input shows for so many steps; None: samples have steps.
    """

    dt: float
    time_unit: str = "s"
    rule: str = "euler"
    gain: str = "as_written"
    spike_amplitude: float = 1.0
    comparison: str = ">"
    reset: str = "value"
    reset_timing: str = "same_step"
    update_order: str = "synapse_first"
    current_decay: str = "before"
    spikes_per_step: str = "one"
    v_min: float | None = None
    v_init: float | str = 0.0
    delays: Mapping[tuple[str, str], int] = field(default_factory=dict)
    readouts: Mapping[str, Readout] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    integers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    v_reset: float | None = field(default=None, metadata={"later": True})
    presented_steps: int | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        if not (np.isfinite(self.dt) and self.dt > 0):
            raise CompileError(f"contract: dt is {self.dt}; it must be a positive number", dt=self.dt)
        if not np.isfinite(self.spike_amplitude):
            raise CompileError(
                f"contract: spike_amplitude is {self.spike_amplitude}; it must be finite",
                value=self.spike_amplitude,
            )
        for item in sorted(CHOICES.keys() - {"signal", "readout", "task"}):
            _check_choice(item, getattr(self, item))
        for item in ("v_min", "v_init", "v_reset"):
            _check_level(item, getattr(self, item))
        shown = self.presented_steps
        if shown is not None and (type(shown) is not int or shown < 1):
            raise CompileError(
                f"contract: presented_steps is {shown!r}; it must be a number of steps, 1 or more, or none",
                item="presented_steps",
                value=shown,
            )
        for edge, steps in self.delays.items():
            if not isinstance(steps, (int, float, np.number)) or steps < 0 or steps % 1 != 0:
                raise CompileError(
                    f"contract: delay of edge {edge} is {steps}; it must be an integer "
                    "number of steps, 0 or more",
                    edge=edge,
                    steps=steps,
                )
        unknown = {key for items in self.nodes.values() for key in items} - PER_NODE
        if unknown:
            raise CompileError(f"contract: nodes may override {sorted(PER_NODE)}, not {sorted(unknown)}")
        for name, items in self.nodes.items():
            for item in items.keys() & CHOICES.keys():
                _check_choice(item, items[item], f"contract of node {name!r}")
            for item in items.keys() & {"v_min", "v_init", "v_reset"}:
                _check_level(item, items[item], f"contract of node {name!r}")
        for name, items in self.integers.items():
            _check_integers(name, items)

    def of(self, node: str) -> Contract:
        """Return the contract of one node, with its overrides applied."""
        overrides = self.nodes.get(node)
        return replace(self, nodes={}, **overrides) if overrides else self

    def rule_items(self) -> dict[str, str]:
        """Return the items of the neuron's rule (`targets.Rule`)."""
        return {item: getattr(self, item) for item in RULE_CHOICES}

    def to_json(self, parameters: str) -> str:
        """Return the metadata string, bound to `parameters`, the digest of the graph."""
        body = asdict(self)
        body["delays"] = [[a, b, int(n)] for (a, b), n in sorted(self.delays.items())]
        body["readouts"] = {name: read.plain() for name, read in self.readouts.items()}
        for item in ("nodes", "integers"):
            body[item] = {name: dict(items) for name, items in sorted(getattr(self, item).items())}
        for item in ("v_reset", "presented_steps"):  # items that came later stay out where they say nothing
            if body[item] is None:
                del body[item]
        head = {"schema": SCHEMA, "version": SCHEMA_VERSION, "parameters": parameters}
        return json.dumps({**head, **body}, sort_keys=True)


PER_NODE = {
    "gain",
    "comparison",
    "reset",
    "reset_timing",
    "rule",
    "update_order",
    "current_decay",
    "spikes_per_step",
    "v_min",
    "v_init",
    "v_reset",
}
"""Items that single nodes may override."""


_INTEGERS: dict[str, tuple[type, ...]] = {
    "scale": (int, float),
    "weight_bits": (int,),
    "message_bits": (int,),
    "signed": (bool,),
}


def _check_integers(name: str, items: Mapping[str, Any]) -> None:
    known = isinstance(items, Mapping) and "scale" in items and items.keys() <= _INTEGERS.keys()
    typed = known and all(isinstance(value, _INTEGERS[item]) for item, value in items.items())
    if not typed or not (np.isfinite(items["scale"]) and items["scale"] > 0):
        raise CompileError(
            f"contract: integers of node {name!r} are {items!r}; expected a positive scale, and "
            "weight_bits, or message_bits and signed",
            node=name,
        )


def _check_choice(item: str, value: object, where: str = "contract") -> None:
    if value not in CHOICES[item]:
        raise CompileError(
            f"{where}: {item} is {value!r}; use one of {', '.join(CHOICES[item])}", item=item, value=value
        )


def _check_level(item: str, value: object, where: str = "contract") -> None:
    """Refuse a level of the membrane that is neither a number nor a word that the item takes."""
    words = {"v_init": ("v_leak", "v_reset")}.get(item, (None,))
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if value not in words and not (number and np.isfinite(float(str(value)))):
        known = ", ".join("none" if word is None else str(word) for word in words)
        raise CompileError(f"{where}: {item} is {value!r}; use a number or {known}", item=item, value=value)


def graph_digest(graph: Any) -> str:
    """Return the SHA-256 of a NIR graph's nodes, parameters and edges, metadata left out.

    Numbers are hashed as float64, so that writing and reading a file does not change the digest.
    """
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value, key=str):
                if key not in ("metadata", "input_type", "output_type"):
                    digest.update(f"{key}:".encode())
                    add(value[key])
        elif isinstance(value, (str, bytes, type(None))):
            digest.update(f"{value!r};".encode())
        else:
            array = np.asarray(value)
            if array.dtype.kind in "biuf":
                array = np.ascontiguousarray(array, dtype=np.float64)
                digest.update(str(array.shape).encode() + array.tobytes())
            else:
                digest.update(f"{array.tolist()!r};".encode())

    add({name: node.to_dict() for name, node in graph.nodes.items()})
    digest.update(repr(sorted((str(a), str(b)) for a, b in graph.edges)).encode())
    return digest.hexdigest()


def attach(graph: Any, contract: Contract) -> None:
    """Write `contract` into the graph's metadata, bound to its present parameters."""
    graph.metadata[METADATA_KEY] = contract.to_json(graph_digest(graph))
