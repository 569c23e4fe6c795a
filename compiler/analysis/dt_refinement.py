"""A graph's equations at another step length: which graphs allow it, and their Network and inputs.

NIR states continuous-time equations, so a contract's dt is one choice among many, as long as the numbers do
not depend on it. At dt / k an input is held for k steps, and a spike stays an input current of the same
charge, spike_amplitude * dt, now within one step of dt / k. A Delay node keeps its time. A contract's delays
keep their time as well, except for the one step of delay that computing a cycle requires: it is one step
of the finer run as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from fractions import Fraction
from typing import Any

import networkx as nx
import nir
import numpy as np

from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.lowering.flatten import flatten_graph
from snn_compile.compiler.lowering.lower import lower
from snn_compile.compiler.lowering.nodes import Neuron, lower_node
from snn_compile.compiler.network import Float, Network
from snn_compile.targets.errors import CompileError

SPIKING = (nir.LIF, nir.CubaLIF, nir.IF)
NEURONS = (*SPIKING, nir.LI, nir.CubaLI, nir.I)

UNIT = 1e-5
"""Relative distance to 1 from which on a gain is not the unit gain of an exporter; files hold float32."""


def tied_to_steps(graph: Any, contract: Contract) -> list[str]:
    """Return the reasons, one per line, why a graph is defined in discrete steps only."""
    found = []
    if contract.time_unit == "step":
        found.append("its time constants are counted in steps (time_unit step)")
    for name, node in flatten_graph(graph)[0].items():
        found += _of_node(name, node, contract.of(name))
    return found


def has_spikes(graph: Any) -> bool:
    """Return whether any node of a graph spikes."""
    return any(isinstance(node, SPIKING) for node in flatten_graph(graph)[0].values())


def _of_node(name: str, node: Any, contract: Contract) -> Iterator[str]:
    if isinstance(node, nir.Threshold):
        yield f"Threshold node {name!r} emits in every step above threshold: more steps, more spikes"
        return
    if isinstance(node, nir.NIRNode) and type(node).__module__.partition(".")[0] != "nir":
        yield f"node {name!r} is a {type(node).__name__}, which is no node of NIR and is defined by its step"
    if not isinstance(node, NEURONS):
        return
    spiking = isinstance(node, SPIKING)
    if contract.gain != "as_written":
        yield f"node {name!r} adds its input once per step, whatever the step's length (gain {contract.gain})"
    else:
        item = lower_node(node, name, contract)
        if isinstance(item, Neuron) and np.allclose(item.gain, 1, rtol=0, atol=UNIT):
            yield (
                f"node {name!r} has r = tau / dt: its input counts whole in each step, so it was exported "
                "from a recursion, and the step is part of its parameters"
            )
    if spiking and contract.reset == "none":
        yield f"node {name!r} is not reset and spikes in every step above its threshold"
    if spiking and contract.reset_timing in ("next_after", "pending"):
        yield (
            f"node {name!r} resets {contract.reset_timing}: a spike costs the input of one step, or depends "
            "on the previous step"
        )


def network_at(graph: Any, contract: Contract, ratio: Fraction) -> Network:
    """Return the graph's Network with steps of contract.dt * ratio, ratio being 1 / k or k.

    Raises CompileError where such steps are longer than a time constant, or do not divide a delay.
    """
    delays = dict(contract.delays)
    waits = _waits(graph, contract)
    for edge, steps in delays.items():
        late = Fraction(int(steps)) / ratio
        if edge in waits:
            late = Fraction(1)
        if late.denominator != 1:
            raise CompileError(f"the delay of edge {edge} is {float(late):g} steps of {float(ratio):g} dt")
        delays[edge] = int(late)
    there = replace(
        contract,
        dt=contract.dt * float(ratio),
        spike_amplitude=contract.spike_amplitude / float(ratio),
        delays=delays,
    )
    other = copy(graph)
    other.metadata = {}
    attach(other, there)
    return lower(other)


def _waits(graph: Any, contract: Contract) -> set[tuple[str, str]]:
    """Return the edges that close a cycle with the one step of delay that this requires."""
    _, edges = flatten_graph(graph)
    whole = nx.DiGraph(edges)
    part = {name: i for i, names in enumerate(nx.strongly_connected_components(whole)) for name in names}
    return {(a, b) for (a, b), n in contract.delays.items() if n == 1 and part.get(a, -1) == part.get(b, -2)}


def inputs_at(inputs: Mapping[str, Float], ratio: Fraction) -> dict[str, Float]:
    """Return inputs (batch, steps, size) as the currents of steps `ratio` times as long.

    Shorter steps hold a value, longer ones take the mean of theirs; steps at the end that do not fill a
    longer one are left out.
    """
    if ratio < 1:
        return {name: np.repeat(data, ratio.denominator, axis=1) for name, data in inputs.items()}
    many = int(ratio)
    return {
        name: data[:, : data.shape[1] // many * many].reshape(len(data), -1, many, data.shape[2]).mean(axis=2)
        for name, data in inputs.items()
    }
