"""ONNX operators that are affine in one input, as matrices: what onnx's reference makes of unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from snn_compile.compiler.onnx.context import Value, Walk, batched, expression, refuse
from snn_compile.compiler.onnx.file import Node
from snn_compile.compiler.onnx.relu_network import ENTRIES_MAX, Affine
from snn_compile.targets.errors import one_line

SIZE_MAX = 1 << 14
"""Most values of such an operator's input; the reference is written in Python."""


def evaluated(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Resize and others, whose result is affine in the first input."""
    x = expression(node, args[0])
    if x.size > SIZE_MAX:
        raise refuse(node, f"of {x.size:,} values; at most {SIZE_MAX:,} are converted")
    if any(isinstance(other, Affine) for other in args[1:]):
        raise refuse(node, "of two activations is not linear")
    run = _runner(walk, node, args)
    zero = run(np.zeros(x.shape))
    shape = batched(node, zero.shape)
    rows, columns, values = [], [], []
    for place in range(x.size):
        unit = np.zeros(x.size)
        unit[place] = 1.0
        made = (run(unit.reshape(x.shape)) - zero).reshape(-1)
        reached = np.flatnonzero(made)
        rows.append(reached)
        columns.append(np.full(reached.size, place))
        values.append(made[reached])
    if sum(map(len, rows)) > ENTRIES_MAX:
        raise refuse(node, "has too many connections")
    index = (np.concatenate(rows), np.concatenate(columns))
    matrix = csr_array((np.concatenate(values), index), shape=(prod(shape), x.size))
    return x.mapped(matrix, shape, node.name).shifted(zero)


def _runner(walk: Walk, node: Node, args: Sequence[Value | None]) -> Any:
    """Return a function that applies the node, alone in a model, to numbers."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    feeds = {name: np.asarray(x) for name, x in zip(node.inputs[1:], args[1:], strict=True) if name}
    feeds = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in feeds.items()}
    kinds = {node.inputs[0]: np.dtype(np.float64), **{name: x.dtype for name, x in feeds.items()}}
    given = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(kind), None)
        for name, kind in kinds.items()
    ]
    out = [onnx.helper.make_value_info(node.outputs[0], onnx.TypeProto())]
    graph = onnx.helper.make_graph([node.proto], "single", given, out)
    opset = onnx.helper.make_opsetid("", walk.opset)
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset]))

    def run(numbers: Any) -> Any:
        try:
            (found,) = evaluator.run(None, {node.inputs[0]: numbers, **feeds})
        except Exception as error:  # the evaluator raises whatever NumPy does
            raise refuse(node, f"fails ({one_line(error)})") from error
        return np.asarray(found, np.float64)

    return run
