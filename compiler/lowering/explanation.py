"""How a graph's items were decided, with what lowering adds: binary fractions restored from float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.lowering.binary_fractions import restorations
from snn_compile.compiler.lowering.flatten import flatten_graph
from snn_compile.compiler.lowering.nodes import Neuron, lower_node
from snn_compile.targets.errors import CompileError


def explained(graph: Any, contract: Contract, decided: Mapping[str, str]) -> Mapping[str, str]:
    """Return how a graph's items were decided, with the binary fractions that `lower` restores."""
    lowered = {}
    for name, node in flatten_graph(graph)[0].items():
        if any(hasattr(node, key) for key in ("tau", "tau_mem", "r")):
            try:
                lowered[name] = lower_node(node, name, contract.of(name))
            except CompileError:
                return decided  # what cannot be lowered says so when it is
    return with_fractions(lowered, decided)


def with_fractions(lowered: Mapping[str, Any], decided: Mapping[str, str]) -> Mapping[str, str]:
    """Return how items were decided, with the fractions restored in nodes that are lowered already."""
    restored = {name: item.restored for name, item in lowered.items() if isinstance(item, Neuron)}
    if not (lines := restorations(restored)):
        return decided
    return {**decided, "rule": "; ".join([decided.get("rule", ""), *lines])}
