"""Delays per synapse: a NIR Delay node that holds a matrix in the shape of its Linear neighbour's weight.

NIR's Delay has one value per element of what it receives. A matrix (target, source) beside a Linear or Affine
of that shape cannot be meant so, since one side of the weight is all that it receives: it is the delay of
each synapse, y_i(t) = sum over j of W_ij x_j(t - D_ij).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import nir
import numpy as np

from snn_compile.compiler.linear_maps import LinearMap
from snn_compile.compiler.lowering.nodes import Linear, Neuron
from snn_compile.compiler.network import Float
from snn_compile.targets.errors import CompileError


def join_synaptic_delays(
    nodes: Mapping[str, Any], sources: Mapping[str, Sequence[str]], lowered: dict[str, Neuron | Linear]
) -> None:
    """Move matrices of delays into the weights beside them; raises CompileError if two could be meant."""
    for name, node in nodes.items():
        shape = np.shape(node.delay) if isinstance(node, nir.Delay) else ()
        if len(shape) != 2 or 1 in shape:
            continue
        targets = [target for target, given in sources.items() if name in given]
        after = targets[0] if len(targets) == 1 else ""
        before = sources[name][0] if len(sources[name]) == 1 else ""
        if sum(before in given for given in sources.values()) != 1:
            before = ""  # others read what it sends without these delays
        found = [other for other in (before, after) if _weight_shape(nodes.get(other)) == shape]
        if len(found) == 2:
            raise CompileError(
                f"node {name!r}: its delays of shape {shape} fit the synapses of {found[0]!r} and of "
                f"{found[1]!r}; put an elementwise Delay or a neuron between",
                node=name,
            )
        if found:
            delay, weight = lowered[name], lowered[found[0]]
            assert not isinstance(delay, Neuron) and not isinstance(weight, Neuron)
            steps = delay(shape).delays
            assert steps is not None
            lowered[found[0]] = _delayed(weight, steps.reshape(shape))
            lowered[name] = LinearMap


def _weight_shape(node: Any) -> tuple[int, ...]:
    return np.shape(node.weight) if isinstance(node, (nir.Linear, nir.Affine)) else ()


def _delayed(weight: Linear, steps: Float) -> Linear:
    return lambda shape: replace(weight(shape), delays=steps)
