"""Makers of the small graphs of the conformance suite, in binary fractions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

STEPS, SAMPLES = 12, 2

Edges = list[tuple[str, str]]


@dataclass(eq=False)
class Net:
    """A graph in the making; nodes are added with the names of what they hear."""

    nodes: dict[str, Any] = field(default_factory=dict)
    edges: Edges = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)

    def input(self, *shape: int, real: bool = False, name: str = "in", steps: int = STEPS) -> Net:
        """Add an input with spikes, or with numbers in quarters."""
        seed = 3 + len(self.inputs) + sum(shape)
        draw = np.random.default_rng(seed).integers
        size = (SAMPLES, steps, *shape)
        self.inputs[name] = draw(-4, 7, size) / 4 if real else draw(0, 2, size).astype(float)
        self.nodes[name] = nir.Input(np.array(shape))
        return self

    def add(self, name: str, node: Any, *sources: str) -> Net:
        """Add a node behind sources; behind the node added last if none is named."""
        sources = sources or (list(self.nodes)[-1],)
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return self

    def output(self, *shape: int, source: str = "", name: str = "out") -> Net:
        """Add an output."""
        return self.add(name, nir.Output(np.array(shape)), *([source] if source else []))

    def graph(self) -> nir.NIRGraph:
        """Return the graph."""
        return nir.NIRGraph(self.nodes, self.edges, type_check=False)


def eighths(seed: int, *shape: int, low: int = -3, high: int = 8) -> Any:
    """Return weights in eighths."""
    return np.random.default_rng(seed).integers(low, high + 1, shape) / 8


def spread(size: int | tuple[int, ...], **values: float | list[float]) -> dict[str, Any]:
    return {key: np.zeros(size) + value for key, value in values.items()}


def lif(size: Any = 3, **values: Any) -> nir.LIF:
    """A LIF that loses half of its membrane a step of 1 and takes in all that arrives."""
    given = {"tau": 2.0, "r": 2.0, "v_leak": 0.0, "v_threshold": 0.75, "v_reset": 0.0}
    return nir.LIF(**spread(size, **{**given, **values}))


def cuba(size: Any = 3, kind: type = nir.CubaLIF, **values: Any) -> Any:
    """Current and membrane lose half a step."""
    given = {"tau_syn": 2.0, "tau_mem": 2.0, "r": 2.0, "v_leak": 0.0, "w_in": 2.0}
    given |= {"v_threshold": 0.75, "v_reset": 0.0} if kind is nir.CubaLIF else {}
    return kind(**spread(size, **{**given, **values}))


def if_(size: Any = 3, **values: Any) -> nir.IF:
    return nir.IF(**spread(size, **{"r": 1.0, "v_threshold": 1.5, "v_reset": 0.0, **values}))


def plain(node: Any, size: int = 3, real: bool = False, weights: Any = None) -> Net:
    """Return input, Linear, a neuron node, output."""
    weight = nir.Linear(eighths(1, size, 3) if weights is None else weights)
    return Net().input(3, real=real).add("fc", weight).add("cell", node).output(size)


def few(net: Net) -> Net:
    """Return a net with fewer steps of input: two more binary digits a step run out of 24 bits sooner."""
    return Net(net.nodes, net.edges, {name: data[:, :7] for name, data in net.inputs.items()})
