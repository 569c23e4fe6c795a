"""Delays and start steps that differ from the network's: which projection, or which population."""

from __future__ import annotations

from typing import Any

from snn_compile.runtime.divergence.pair import Edge, Pair
from snn_compile.targets.errors import SnnCompileError


def delay_causes(side: Pair) -> list[dict[str, Any]]:
    """Return the causes (as fields of `Cause`) of logical delays that differ from the network's.

    A population that starts s steps too late changes all its delays: those to it lose s steps, those from it
    gain s. Of two explanations relative to `retime`, start steps and device delays or single projections, the
    one with fewer changes is reported.
    """
    late = {e.name: e.program_delay - e.network_delay for e in side.edges.values()}
    late = {name: steps for name, steps in late.items() if steps}
    if not late:
        return []
    relaxed, latency, delays = _retimed(side)
    found = [
        _edge(side.edges[name], steps, "relaxed timing")
        for name, steps in late.items()
        if relaxed.get(name) == steps
    ]
    late = {name: steps for name, steps in late.items() if relaxed.get(name) != steps}
    moved = {
        n: side.program.start_step(n) - latency[n]
        for n in latency
        if any(n in (side.edges[e].source, side.edges[e].target) for e in late)
    }
    moved = {n: steps for n, steps in moved.items() if steps}
    changed = [e for e in late if delays.get(e) != getattr(side.edges[e].made, "delay_steps", None)]
    if moved and len(moved) + len(changed) <= len(late):
        for name, steps in moved.items():
            found.append(_node(side, name, steps, late))
        late = {name: late[name] for name in changed}
    return found + [_edge(side.edges[name], steps, "wrong delay") for name, steps in late.items()]


def _retimed(side: Pair) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Return what the compiler would choose: relaxed steps, latencies and device delays."""
    from snn_compile.compiler.lowering.retime import retime

    try:
        made = retime(side.network, None, True, side.program.period)
    except SnnCompileError:
        return {}, {}, {}
    return dict(made.relaxed), dict(made.latency), dict(made.delay_steps)


def _edge(edge: Edge, steps: int, kind: str) -> dict[str, Any]:
    text = f"{edge.network_delay} steps in the network, {edge.program_delay} in the program"
    effects = {("delay", edge.name): True}
    return {
        "kind": kind,
        "place": edge.name,
        "effects": effects,
        "detail": text,
        "size": float(steps),
        "values": 1,
    }


def _node(side: Pair, name: str, steps: int, late: dict[str, int]) -> dict[str, Any]:
    edges = [e for e in late if name in (side.edges[e].source, side.edges[e].target)]
    text = f"starts {abs(steps)} step(s) too {'late' if steps > 0 else 'early'} for its projections"
    effects = {("delay", e): True for e in edges}
    return {
        "kind": "misaligned start",
        "place": name,
        "effects": effects,
        "detail": text,
        "size": float(steps),
        "values": 1,
    }
