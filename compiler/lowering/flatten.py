"""Nested NIR graphs inlined into one."""

from __future__ import annotations

from typing import Any

import nir

from snn_compile.targets.errors import CompileError, UnsupportedNode


class Identity:
    """An Input or Output node inside a nested graph."""


def flatten_graph(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the nodes and edges of a graph with nested graphs inlined, named outer.inner."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    entry: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, node in graph.nodes.items():
        full = prefix + name
        if full in nodes:
            raise CompileError(f"two nodes are called {full!r} once nested graphs are inlined", node=full)
        if not isinstance(node, nir.NIRGraph):
            nodes[full] = Identity() if prefix and isinstance(node, (nir.Input, nir.Output)) else node
            continue
        inner, inside = flatten_graph(node, f"{full}.")
        ends = {
            kind: [n for n, item in node.nodes.items() if isinstance(item, kind)]
            for kind in (nir.Input, nir.Output)
        }
        for kind, found in ends.items():
            if len(found) != 1:
                raise UnsupportedNode(
                    f"nested graph {full!r} has {len(found)} {kind.__name__} nodes; one is supported",
                    node=full,
                    type="NIRGraph",
                )
        entry[full], leave[full] = f"{full}.{ends[nir.Input][0]}", f"{full}.{ends[nir.Output][0]}"
        if both := nodes.keys() & inner.keys():
            raise CompileError(
                f"two nodes are called {min(both)!r} once nested graphs are inlined", node=min(both)
            )
        nodes |= inner
        edges += inside
    for source, target in graph.edges:
        a, b = prefix + source, prefix + target
        edges.append((leave.get(a, a), entry.get(b, b)))
    return nodes, edges
