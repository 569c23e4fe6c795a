"""Fingerprints of exporters in a NIR graph: the traits of a graph, and relations of the numbers of its nodes.

There are two ways of naming nodes. nirtorch's `extract_nir_graph`, which norse, rockpool, sinabs and snnTorch
use, calls the ports `input` and `output`. Its tracer on torch.fx, which spikingjelly uses, calls the input as
the argument of `forward`, never `input`, and writes a Sequential's `0` as `_0`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

ARGUMENTS = frozenset("input_1 x xs x_seq inputs inp data spikes img image images frame".split())
"""Names that are taken for the first argument of a `forward`; a graph by hand mostly has `input`."""

NEURONS = ("LIF", "CubaLIF", "IF", "LI", "CubaLI", "I")
SPIKING = ("LIF", "CubaLIF", "IF")
PARAMETERS = ("tau", "tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold", "v_reset")
RANKS = {"Affine": 1, "Linear": 1, "Conv1d": 2, "Conv2d": 3, "SumPool2d": 3, "AvgPool2d": 3}
"""Dimensions of the input that a linear node takes."""

LINEAR = frozenset({*RANKS, "Input", "Output", "Scale", "Flatten", "Delay"})
"""Nodes that are no neurons: a contract has no items for them alone."""

NOISE = 1e-5
"""Relative difference up to which numbers are equal: files hold float32."""


@dataclass(frozen=True, eq=False)
class Traits:
    """Traits that the exporters' rules check: nodes by full name ("outer.inner"), shapes and names."""

    nodes: Mapping[str, Any]
    edges: frozenset[tuple[str, str]] = frozenset()
    neurons: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inner(self) -> dict[str, Any]:
        """All nodes but the ports."""
        return {n: node for n, node in self.nodes.items() if kind(node) not in ("Input", "Output")}

    @property
    def inputs(self) -> list[str]:
        """Names of the outermost Input nodes."""
        return [n for n, node in self.nodes.items() if kind(node) == "Input" and "." not in n]

    @property
    def outputs(self) -> list[str]:
        """Names of the outermost Output nodes."""
        return [n for n, node in self.nodes.items() if kind(node) == "Output" and "." not in n]

    @property
    def extracted(self) -> bool:
        """Whether the ports are named as `extract_nir_graph` names them."""
        return self.inputs == ["input"] and self.outputs == ["output"]

    @property
    def traced(self) -> bool:
        """Whether all names may be those of the tracer on torch.fx."""
        named = all(name.isidentifier() for name in self.nodes)
        return named and self.outputs == ["output"] and len(self.inputs) == 1 and self.inputs[0] in ARGUMENTS

    @property
    def mangled(self) -> bool:
        """Whether names are what the tracer on torch.fx makes of a Sequential's numbers."""
        return self.traced and any(name[:1] == "_" and name[1:].isdigit() for name in self.inner)

    @property
    def telling(self) -> bool:
        """Whether there is a name that only one of the two ways gives: `0` or `net.0`, or `_0`."""
        return self.mangled or (self.extracted and not all(name.isidentifier() for name in self.inner))

    @property
    def numbered(self) -> bool:
        """Whether the nodes carry the numbers of a torch Sequential."""
        return bool(self.inner) and all(n.split(".")[0].isdigit() for n in self.inner)

    @property
    def sequential(self) -> bool:
        """Whether the nodes are a chain in the order of a Sequential's numbers, without a gap."""
        names = [str(index) for index in range(len(self.inner))]
        chain = [*self.inputs, *names, *self.outputs]
        return bool(names) and self.edges == frozenset(zip(chain, chain[1:], strict=False))

    @property
    def leading(self) -> bool:
        """Whether an Input has more dimensions than the linear node behind it takes (batch or time)."""
        for source, target in self.edges:
            node: Any = self.nodes.get(target)
            if source in self.inputs and (rank := RANKS.get(kind(node))):
                shape = np.atleast_1d(self.nodes[source].input_type["input"])
                if len(shape) > rank and (rank > 1 or int(shape[-1]) == np.shape(node.weight)[-1]):
                    return True
        return False

    def of(self, *kinds: str) -> dict[str, Any]:
        """Neuron nodes of some kinds, by name."""
        return {n: node for n, node in self.neurons.items() if kind(node) in kinds}

    def recurrent(self, name: str) -> bool:
        """Whether a neuron projects to itself through one node."""
        after = {b for a, b in self.edges if a == name}
        return any(b == name for a, b in self.edges if a in after)


def kind(node: Any) -> str:
    """The name of a node's type."""
    return type(node).__name__


def flat(node: Any, key: str) -> Float:
    """A parameter of a node as float64 vector, empty if the node has none."""
    value = getattr(node, key, None)
    return np.zeros(0) if value is None else np.asarray(value, np.float64).reshape(-1)


def common(values: Float) -> float | None:
    """Return the one number that all values equal up to float32 rounding, or None."""
    if values.size == 0 or not np.isfinite(values).all():
        return None
    middle = float(np.median(values))
    nearest = float(f"{middle:.5g}")  # 1e-4 and not 9.99999747e-05, where rounding allows it
    return next((n for n in (nearest, middle) if np.isclose(values, n, rtol=NOISE, atol=0).all()), None)


def unequal(name: str, what: str, values: Float, wanted: float | Float, says: str) -> list[str]:
    """Return, in a list, by how much values differ from what they should be; an empty list if they agree."""
    if not values.size:
        return []
    wanted = np.broadcast_to(np.asarray(wanted, np.float64), values.shape)
    off = np.abs(values - wanted) > NOISE * np.abs(wanted)
    if not off.any():
        return []
    first = int(np.argmax(off))
    text = f"{what} is {values[first]:.6g}; {says} is {wanted[first]:.6g}"
    count = f" ({int(off.sum())} of {values.size} values)" if values.size > 1 else ""
    return [f"node {name!r}: {text}{count}"]


def foreign(traits: Traits, kinds: str, who: str) -> list[str]:
    """Return objections to nodes that an exporter does not write."""
    known = set(kinds.split())
    return [
        f"node {n!r} is of type {kind(node)}, which {who} does not write"
        for n, node in traits.inner.items()
        if kind(node) not in known
    ]


def walk(graph: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the nodes of a graph and of the graphs in it, by full name."""
    for name, node in graph.nodes.items():
        if kind(node) == "NIRGraph":
            yield from walk(node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", node


def _edges(graph: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    yield from ((f"{prefix}{a}", f"{prefix}{b}") for a, b in graph.edges)
    for name, node in graph.nodes.items():
        if kind(node) == "NIRGraph":
            yield from _edges(node, f"{prefix}{name}.")


def _usable(node: Any) -> bool:
    """Whether a neuron's parameters are finite, of one size (or single), and positive where they divide."""
    if any(getattr(node, key, 0.0) is None for key in PARAMETERS[:-1]):
        return False
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
        nodes = dict(walk(graph))
        neurons = {n: node for n, node in nodes.items() if kind(node) in NEURONS}
        if not all(_usable(node) for node in neurons.values()):
            return None
        edges = frozenset(_edges(graph))
    except (TypeError, ValueError, AttributeError, RecursionError):
        return None  # lowering reports what is wrong with the graph
    return Traits(nodes, edges, neurons) if neurons else None
