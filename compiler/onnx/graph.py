"""Convert an ONNX graph to a ReLU network: a walk over the nodes that folds everything linear.

    read_onnx("model.onnx")     the RectifierNetwork in a file

`operators.py` defines the operators, `file.py` reads files. Every shape is compared with the one that onnx
inferred.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from snn_compile.compiler.onnx import quantized
from snn_compile.compiler.onnx.context import MAX_POOL, Value, Walk, refuse
from snn_compile.compiler.onnx.file import Node, OnnxModel, read_model
from snn_compile.compiler.onnx.operators import OPERATORS
from snn_compile.compiler.onnx.relu_network import VALUES_MAX, Affine, RectifierNetwork, pruned, source
from snn_compile.targets.errors import CompileError, UnsupportedNode, one_line

RESHAPING = ("Reshape", "Squeeze", "Unsqueeze")
FOLDED = (
    "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Neg", "Reshape", "Shape", "Slice", "Sqrt",
    "Squeeze", "Sub", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators that are evaluated when all their inputs are constant; none of them can grow without bound."""

CONSTANT = {"DequantizeLinear": quantized.dequantized, "QuantizeLinear": quantized.quantized}
"""Operators of constants that are computed here, since a model may hold what onnx's evaluator mistakes."""


def read_onnx(path: str | os.PathLike[str], max_pool: str = "refuse") -> RectifierNetwork:
    """Return the ReLU network of an `.onnx` file.

    `max_pool`: "refuse", "rectify" (max(a, b) = b + relu(a - b)) or "average" (another network). Raises
    CompileError, naming file and node, if it is damaged or cannot be converted.
    """
    if max_pool not in MAX_POOL:
        raise CompileError(f"max_pool {max_pool!r}; use one of {', '.join(MAX_POOL)}")
    model = read_model(path)
    try:
        return _network(model, max_pool)
    except CompileError as error:
        raise type(error)(f"{path}: {error}", **error.facts) from error


def _network(model: OnnxModel, max_pool: str) -> RectifierNetwork:
    walk = Walk(model.opset, max_pool, model.output_name)
    input_name = model.input_name.strip("/").replace("/", ".") or "input"
    walk.names.add(input_name)
    values: dict[str, Value] = {**model.constants, model.input_name: source(input_name, model.input_shape)}
    for node in model.nodes:
        args = _arguments(node, values)
        if args is None:
            continue  # an integer that onnx's inference has followed already
        value = _value(walk, node, args, model)
        if value is None:
            continue
        known = model.shapes.get(node.outputs[0])
        if isinstance(value, Affine) and known is not None and known != value.shape:
            raise refuse(node, f"gives {list(value.shape)} here and {list(known)} by onnx's shape inference")
        values[node.outputs[0]] = value
    walk.notes += quantized.note(walk)
    output = values.get(model.output_name)
    if not isinstance(output, Affine) or not output.terms:
        raise CompileError(
            f"output {model.output_name!r} does not depend on the input", node=model.output_name
        )
    if isinstance(output, quantized.Quantized):
        raise CompileError(
            f"output {model.output_name!r} is of quantized activations; put DequantizeLinear before it",
            node=model.output_name,
        )
    return RectifierNetwork(
        model.name, input_name, model.input_shape[1:], pruned(walk.layers, output), output,
        tuple(walk.notes), model.data, model.digest,
    )  # fmt: skip


def _arguments(node: Node, values: Mapping[str, Value]) -> list[Value | None] | None:
    """Return a node's inputs, None for one that is left out; None for all if a shape is among them."""
    found: list[Value | None] = []
    for name in node.inputs:
        if name and name not in values and node.kind not in RESHAPING:
            return None
        found.append(values.get(name) if name else None)
    return found


def _value(walk: Walk, node: Node, args: Sequence[Value | None], model: OnnxModel) -> Value | None:
    if not node.outputs:
        raise refuse(node, "has no output")
    if node.kind == "Constant":
        return _attribute(node)
    dynamic = any(isinstance(x, Affine) for x in args)
    if node.kind == "Shape" and dynamic:
        return None
    if not dynamic and node.kind in CONSTANT:
        return CONSTANT[node.kind](node, args)
    if not dynamic:
        return _folded(node, args, model) if node.kind in FOLDED else _unsupported(node)
    if any(isinstance(x, quantized.Quantized) for x in args):
        return _between(walk, node, args, model)
    return _applied(walk, node, args, model)


def _between(walk: Walk, node: Node, args: Sequence[Value | None], model: OnnxModel) -> Value:
    """Return the value of a node that receives quantized activations."""
    if node.kind == "DequantizeLinear":
        return _applied(walk, node, args, model)
    x = args[0]
    if node.kind not in quantized.PLACES or not isinstance(x, quantized.Quantized):
        raise UnsupportedNode(
            f"node {node.name!r}: {node.kind} of quantized activations is not converted; put "
            f"DequantizeLinear before it ({', '.join(quantized.PLACES)} may stand before that)",
            node=node.name,
            type=node.kind,
        )
    made = _applied(walk, node, [x.raw, *args[1:]], model)
    assert isinstance(made, Affine)
    return x.moved(made)


def _applied(walk: Walk, node: Node, args: Sequence[Value | None], model: OnnxModel) -> Value:
    if node.kind in RESHAPING:
        return _reshaped(node, args, model)
    rule = OPERATORS.get(node.kind)
    if rule is None:
        return _unsupported(node)
    if any(name for name in node.outputs[1:] if name) and node.kind not in ("Dropout", "MaxPool"):
        raise refuse(node, f"has {len(node.outputs)} outputs")
    try:
        return rule(walk, node, args)
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise refuse(node, f"cannot be read ({type(error).__name__}: {one_line(error)})") from error


def _unsupported(node: Node) -> Value:
    known = ", ".join(sorted({*OPERATORS, *RESHAPING}))
    raise UnsupportedNode(
        f"node {node.name!r}: operator {node.kind} is not converted; networks of rectifiers are: {known}",
        node=node.name,
        type=node.kind,
    )


def _reshaped(node: Node, args: Sequence[Value | None], model: OnnxModel) -> Value:
    """Return Reshape, Squeeze and Unsqueeze of activations; onnx has inferred the shape."""
    x, shape = args[0], model.shapes.get(node.outputs[0])
    if not isinstance(x, Affine) or shape is None:
        raise refuse(node, "has a shape that onnx cannot infer for one sample")
    if not shape or shape[0] != 1 or int(np.prod(shape)) != x.size:
        raise refuse(node, f"turns {list(x.shape)} into {list(shape)}; the first axis has to stay the batch")
    return x.reshaped(shape)


def _attribute(node: Node) -> Value:
    for key in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if key in node.attributes:
            return np.asarray(node.attributes[key])
    raise refuse(node, "holds no number")


def _folded(node: Node, args: Sequence[Value | None], model: OnnxModel) -> Value:
    """Compute a node of constants with onnx's reference evaluator."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    shape = model.shapes.get(node.outputs[0])
    feeds = {name: x for name, x in zip(node.inputs, args, strict=True) if name and isinstance(x, np.ndarray)}
    size = sum(x.size for x in feeds.values()) if shape is None else prod(shape)
    if size > 16 * VALUES_MAX:
        raise refuse(node, f"of constants has {size:,} values")
    info = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feeds.items()
    ]
    out = [onnx.helper.make_value_info(node.outputs[0], onnx.TypeProto())]
    graph = onnx.helper.make_graph([node.proto], "constant", info, out)
    single = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", model.opset)])
    try:
        result: Any = ReferenceEvaluator(single).run(None, feeds)
    except Exception as error:  # the evaluator raises whatever NumPy does
        raise refuse(node, f"of constants fails ({one_line(error)})") from error
    return np.asarray(result[0])
