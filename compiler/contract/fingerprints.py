"""Fingerprints of exporters in a NIR graph: the traits that rules look at, and what a match settles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Open:
    """An item that the file does not hold: its interpretations, and the exporter's default.

    `interpretations` maps each value to its effect on the network. `usual` is None where there is no default.
    """

    item: str
    interpretations: Mapping[Any, str]
    usual: Any = None
    hint: str = ""

    @property
    def flag(self) -> str:
        """The command line option that states the item."""
        return f"--convention {self.item}={'|'.join(str(value) for value in self.interpretations)}"


@dataclass(frozen=True)
class Detection:
    """A detected exporter: the `values` of the contract that it settles (and `nodes`, by node).

    `evidence`: the reasons, in words. `assumed`: the exporter's only or default behaviour, where the file
    could not show another. `open`: items that must be stated. `defaults`: items that were open and take the
    exporter's defaults, because the exporter was stated.
    """

    exporter: str
    values: Mapping[str, Any]
    evidence: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    open: tuple[Open, ...] = ()
    defaults: tuple[str, ...] = ()
    candidates: tuple[Detection, ...] = ()

    def describe(self) -> str:
        """Return in one line the exporter, the open items, and the options that state them."""
        text = f"written by {self.exporter} ({'; '.join(self.evidence)})"
        if not self.open:
            return text
        items = "; ".join(
            f"{o.item} ("
            + ", or ".join(f"{value}: {effect}" for value, effect in o.interpretations.items())
            + f": {o.flag}{', ' + o.hint if o.hint else ''})"
            for o in self.open
        )
        text += f". The file does not state: {items}"
        if not self.candidates and all(o.usual is not None for o in self.open):
            usual = ", ".join(f"{o.item}={o.usual}" for o in self.open)
            text += f". --convention maker={self.exporter} takes the defaults of {self.exporter} ({usual})"
        return text


@dataclass(frozen=True, eq=False)
class Traits:
    """Traits that the exporters' rules check: nodes by full name ("outer.inner"), shapes and names."""

    nodes: Mapping[str, Any]
    edges: frozenset[tuple[str, str]] = frozenset()
    neurons: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> set[str]:
        """Type names of all nodes but the ports."""
        return {type(node).__name__ for node in self.nodes.values()} - {"Input", "Output"}

    @property
    def inputs(self) -> list[str]:
        """Names of the outermost Input nodes."""
        return [n for n, node in self.nodes.items() if type(node).__name__ == "Input" and "." not in n]

    @property
    def leading(self) -> bool:
        """Whether an Input has more dimensions than the dense layer behind it takes (batch or time)."""
        for source, target in self.edges:
            if source in self.inputs and type(self.nodes.get(target)).__name__ in ("Affine", "Linear"):
                shape = np.atleast_1d(self.nodes[source].input_type["input"])
                if len(shape) > 1 and int(shape[-1]) == np.shape(self.nodes[target].weight)[-1]:
                    return True
        return False

    @property
    def numbered(self) -> bool:
        """Whether the nodes carry the numbers of a torch Sequential, as nirtorch writes them."""
        names = [n for n, node in self.nodes.items() if type(node).__name__ not in ("Input", "Output")]
        return bool(names) and all(n.split(".")[0].isdigit() for n in names)

    def of(self, *kinds: str) -> dict[str, Any]:
        """Neuron nodes of some kinds, by name."""
        return {n: node for n, node in self.neurons.items() if type(node).__name__ in kinds}

    def all(self, key: str, *kinds: str) -> Float:
        """One parameter of all neurons of some kinds (of any kind, if none is given) as one vector."""
        chosen = self.of(*kinds) if kinds else self.neurons
        parts = [flat(node, key) for node in chosen.values() if getattr(node, key, None) is not None]
        return np.concatenate([np.zeros(0), *parts])

    def recurrent(self, name: str) -> bool:
        """Whether a neuron projects to itself through one node."""
        after = {b for a, b in self.edges if a == name}
        return any(b == name for a, b in self.edges if a in after)


PARAMETERS = ("tau", "tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold", "v_reset")
NEURONS = ("LIF", "CubaLIF", "IF", "LI", "CubaLI", "I")


def flat(node: Any, key: str) -> Float:
    """A parameter of a node as float64 vector."""
    return np.asarray(getattr(node, key), np.float64).reshape(-1)


def same(values: Float, other: float | Float, rtol: float = 1e-5) -> bool:
    """Whether values are equal up to float32 rounding; False if there are none."""
    return values.size > 0 and bool(np.isclose(values, other, rtol=rtol, atol=0).all())


def common(values: Float) -> float | None:
    """Return the one number that all values equal up to float32 rounding, or None."""
    if values.size == 0 or not same(values, middle := float(np.median(values))):
        return None
    nearest = float(f"{middle:.5g}")  # 1e-4 and not 9.99999747e-05, where rounding allows it
    return nearest if same(values, nearest) else middle


def _walk(graph: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, node in graph.nodes.items():
        if type(node).__name__ == "NIRGraph":
            yield from _walk(node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", node


def _edges(graph: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    yield from ((f"{prefix}{a}", f"{prefix}{b}") for a, b in graph.edges)
    for name, node in graph.nodes.items():
        if type(node).__name__ == "NIRGraph":
            yield from _edges(node, f"{prefix}{name}.")


def _usable(node: Any) -> bool:
    """Whether a neuron's parameters are finite, of one size (or single), and positive where they divide."""
    given = {key: flat(node, key) for key in PARAMETERS if getattr(node, key, None) is not None}
    sizes = {values.size for values in given.values()} - {1}
    return (
        len(sizes) < 2
        and 0 not in sizes
        and all(np.isfinite(values).all() for values in given.values())
        and all((given[key] > 0).all() for key in PARAMETERS[:5] if key in given)
    )


def traits(graph: Any) -> Traits | None:
    """Return the traits of a graph, or None for one without neurons or with unusable numbers."""
    try:
        nodes = dict(_walk(graph))
        neurons = {n: node for n, node in nodes.items() if type(node).__name__ in NEURONS}
        if not all(_usable(node) for node in neurons.values()):
            return None
        edges = frozenset(_edges(graph))
    except (TypeError, ValueError, AttributeError, RecursionError):
        return None  # lowering reports what is wrong with the graph
    return Traits(nodes, edges, neurons) if neurons else None
