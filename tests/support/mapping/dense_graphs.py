"""Dense layers of leaky neurons as NIR graphs whose contract is attached."""

from __future__ import annotations

from collections.abc import Sequence

import nir
import numpy as np

from snn_compile.compiler.contract.contract import Contract, attach


def dense_graph(sizes: Sequence[int], seed: int, gain: float = 2.0) -> nir.NIRGraph:
    """Return layers fc1, lif1, ... of `sizes`, the first of which is the input's; the output is `out`."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(sizes[:1])})}
    names = ["input"]
    for number, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False), 1):
        weight = rng.normal(0.2, 1.0, (after, before)) * gain / np.sqrt(before)
        neurons = "out" if number == len(sizes) - 1 else f"lif{number}"
        tau, one = np.full(after, 4.0), np.ones(after)
        nodes[f"fc{number}"] = nir.Linear(weight)
        nodes[neurons] = nir.LIF(tau=tau, r=tau, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
        names += [f"fc{number}", neurons]
    nodes["output"] = nir.Output({"output": np.array(sizes[-1:])})
    names.append("output")
    graph = nir.NIRGraph(nodes, list(zip(names, names[1:], strict=False)))
    attach(graph, Contract(dt=1.0, time_unit="step", reset="subtract"))
    return graph
