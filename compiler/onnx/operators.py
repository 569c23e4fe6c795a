"""ONNX operators on affine expressions: one function each, in the table `OPERATORS`.

Semantics are those of the ONNX operator documentation (versions from opset 7 on), tested
against onnxruntime. Expressions keep the batch axis, of size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_array, eye_array, kron

from snn_compile.compiler.network import Float
from snn_compile.compiler.onnx.context import Value, Walk, batched, constant, expression, present, refuse
from snn_compile.compiler.onnx.evaluated import evaluated
from snn_compile.compiler.onnx.file import Node
from snn_compile.compiler.onnx.quantized import dequantize, quantize
from snn_compile.compiler.onnx.relu_network import ENTRIES_MAX, Affine, places
from snn_compile.compiler.onnx.spatial import (
    average_pool,
    convolution,
    global_average_pool,
    global_max_pool,
    max_pool,
    reduce_mean,
    reduce_sum,
    transposed_convolution,
)


def relu(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Relu: a layer."""
    return walk.rectify(node.name, expression(node, args[0]))


def clip(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Clip to [low, high]: low + a layer with a ceiling; without low, high - a layer of high - x."""
    x = expression(node, args[0])
    if walk.opset < 11:
        low, high = float(node.attributes.get("min", -inf)), float(node.attributes.get("max", inf))
    else:
        ends = [-inf, inf]
        for i, arg in enumerate(args[1:3]):
            if arg is not None:
                ends[i] = float(constant(node, arg, "bound").reshape(-1)[0])
        low, high = ends
    # An exporter may write the largest float32 for no bound.
    low, high = (-inf if low < -3e38 else low), (inf if high > 3e38 else high)
    if low >= high:
        raise refuse(node, f"has bounds {low:g} and {high:g}")
    if low == -inf and high == inf:
        return x
    if low == -inf:
        return (
            walk.rectify(node.name, x.scaled(-1.0, node.name).shifted(high))
            .scaled(-1.0, node.name)
            .shifted(high)
        )
    sent = walk.rectify(node.name, x.shifted(-low) if low else x, high - low)
    return sent.shifted(low) if low else sent


def gemm(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Gemm: alpha A B + beta C, A (1, K) the activations."""
    x, weight = expression(node, args[0], "A"), constant(node, args[1], "B")
    if node.attributes.get("transA", 0):
        raise refuse(node, "with transA mixes the samples of a batch")
    if node.attributes.get("transB", 0):
        weight = weight.T
    weight = weight * float(node.attributes.get("alpha", 1.0))
    if len(x.shape) != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise refuse(node, f"multiplies {list(x.shape)} by {list(weight.shape)}")
    y = x.mapped(csr_array(weight.T), (1, weight.shape[1]), node.name)
    beta = float(node.attributes.get("beta", 1.0))
    if len(args) < 3 or args[2] is None or beta == 0:
        return y
    c = args[2]
    return _sum(node, y, c.scaled(beta, node.name) if isinstance(c, Affine) else np.asarray(c * beta))


def matmul(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """MatMul with a constant matrix on either side."""
    left, right = args[0], args[1]
    if isinstance(left, Affine):
        weight = constant(node, right, "matrix")
        if weight.ndim != 2 or left.shape[-1] != weight.shape[0] or len(left.shape) < 2:
            raise refuse(node, f"multiplies {list(left.shape)} by {list(weight.shape)}")
        shape = (*left.shape[:-1], weight.shape[1])
        matrix = _kron(node, eye_array(prod(left.shape[:-1])), weight.T)
        return left.mapped(matrix, shape, node.name)
    x, weight = expression(node, right), constant(node, left, "matrix")
    if len(x.shape) != 3 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise refuse(node, f"multiplies {list(weight.shape)} by {list(x.shape)}")
    return x.mapped(_kron(node, weight, eye_array(x.shape[2])), (1, weight.shape[0], x.shape[2]), node.name)


def _kron(node: Node, a: Any, b: Any) -> csr_array:
    entries = (a.shape[0] if not isinstance(a, np.ndarray) else a.size) * (
        b.shape[0] if not isinstance(b, np.ndarray) else b.size
    )
    if entries > ENTRIES_MAX:
        raise refuse(node, f"has {entries:,} connections, more than {ENTRIES_MAX:,}")
    return csr_array(kron(csr_array(a), csr_array(b)))


def _sum(node: Node, a: Value, b: Value, sign: float = 1.0) -> Value:
    """Return a + sign b, broadcast as NumPy does."""
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise refuse(node, f"of shapes {list(a.shape)} and {list(b.shape)} that do not fit") from None
    shape = batched(node, shape)

    def wide(x: Value) -> Affine:
        if isinstance(x, np.ndarray):
            return Affine(shape, {}, np.broadcast_to(np.asarray(x, np.float64), shape).reshape(-1))
        if x.shape == shape:
            return x
        index = np.broadcast_to(places(x.shape), shape)
        return x.taken(np.ascontiguousarray(index), node.name)

    return wide(a).plus(wide(b), sign)


def add(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Add: a bias, or a residual connection."""
    return _sum(node, present(node, args[0]), present(node, args[1]))


def subtract(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Sub."""
    return _sum(node, present(node, args[0]), present(node, args[1]), -1.0)


def total(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Sum of any number of values."""
    value = present(node, args[0])
    for other in args[1:]:
        value = _sum(node, value, present(node, other))
    return value


def _scaled(node: Node, x: Affine, factor: Float) -> Value:
    shape = batched(node, np.broadcast_shapes(x.shape, factor.shape))
    wide = x if x.shape == shape else x.taken(
        np.ascontiguousarray(np.broadcast_to(places(x.shape), shape)), node.name
    )  # fmt: skip
    return wide.scaled(factor, node.name)


def multiply(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Mul by a constant."""
    a, b = args[0], args[1]
    if isinstance(a, Affine):
        return _scaled(node, a, constant(node, b, "factor"))
    return _scaled(node, expression(node, b), constant(node, a, "factor"))


def divide(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Div by a constant."""
    divisor = constant(node, args[1], "divisor")
    if not divisor.all():
        raise refuse(node, "divides by 0")
    return _scaled(node, expression(node, args[0]), 1.0 / divisor)


def negate(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Neg."""
    return expression(node, args[0]).scaled(-1.0, node.name)


def batch_normalization(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """BatchNormalization with its running statistics."""
    x = expression(node, args[0])
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1):
        raise refuse(node, "in training mode depends on the batch; export the model for inference")
    scale, bias, mean, variance = (constant(node, a, "parameter").reshape(-1) for a in args[1:5])
    if len(x.shape) < 2 or any(p.size != x.shape[1] for p in (scale, bias, mean, variance)):
        raise refuse(node, f"has {scale.size} scales for an input of shape {list(x.shape)}")
    spread = variance + float(node.attributes.get("epsilon", 1e-5))
    if (spread <= 0).any():
        raise refuse(node, f"has a variance of {variance.min():g}")
    gain = scale / np.sqrt(spread)
    wide = (slice(None), *(None,) * (len(x.shape) - 2))
    return x.scaled(gain[wide], node.name).shifted((bias - mean * gain)[wide])


def flatten(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Flatten from axis 1."""
    x = expression(node, args[0])
    axis = int(node.attributes.get("axis", 1)) % (len(x.shape) + 1)
    if axis == 0:
        raise refuse(node, "from axis 0 mixes the samples of a batch")
    return x.reshaped(batched(node, (prod(x.shape[:axis]), prod(x.shape[axis:]))))


def identity(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Identity, Dropout in inference, a cast of activations."""
    if (
        node.kind == "Dropout"
        and len(args) > 2
        and args[2] is not None
        and constant(node, args[2], "mode").any()
    ):
        raise refuse(node, "in training mode is random; export the model for inference")
    return present(node, args[0])


def cast(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Cast of activations from one floating type to another."""
    if int(node.attributes.get("to", 0)) not in (1, 10, 11):
        raise refuse(node, "turns activations into integers")
    return expression(node, args[0])


def transpose(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Transpose of axes other than the batch."""
    x = expression(node, args[0])
    order = [int(a) for a in node.attributes.get("perm", range(len(x.shape))[::-1])]
    if order[0] != 0:
        raise refuse(node, "moves the batch axis")
    return x.taken(np.ascontiguousarray(places(x.shape).transpose(order)), node.name)


def concatenate(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Concat along an axis other than the batch."""
    parts = [
        x if isinstance(x, Affine) else Affine(x.shape, {}, np.asarray(x, np.float64).reshape(-1))
        for x in (present(node, arg) for arg in args)
    ]
    axis = int(node.attributes["axis"]) % len(parts[0].shape)
    if axis == 0:
        raise refuse(node, "joins along the batch axis")
    offsets = np.cumsum([0, *(p.size for p in parts)])
    index = np.concatenate([places(p.shape) + o for p, o in zip(parts, offsets, strict=False)], axis)
    rows = []
    names = {name for p in parts for name in p.terms}
    terms = {}
    for name in sorted(names):
        columns = next(p.terms[name].shape[1] for p in parts if name in p.terms)
        rows = [p.terms.get(name, csr_array((p.size, columns))) for p in parts]
        terms[name] = csr_array(_stacked(rows))
    whole = Affine((int(offsets[-1]),), terms, np.concatenate([p.bias for p in parts]))
    return whole.taken(index, node.name)


def _stacked(rows: Sequence[Any]) -> Any:
    from scipy.sparse import vstack

    return vstack(rows, format="csr")


def pad(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Pad with a constant."""
    x = expression(node, args[0])
    if node.attributes.get("mode", "constant") != "constant":
        return evaluated(walk, node, args)
    if len(args) > 3 and args[3] is not None:
        raise refuse(node, "with named axes is not converted")
    given = (
        node.attributes.get("pads")
        if walk.opset < 11
        else constant(node, args[1], "pads").astype(int).tolist()
    )
    value = float(node.attributes.get("value", 0.0))
    if walk.opset >= 11 and len(args) > 2 and args[2] is not None:
        value = float(constant(node, args[2], "value").reshape(-1)[0])
    n = len(x.shape)
    if given is None or len(given) != 2 * n or min(given) < 0 or given[0] or given[n]:
        raise refuse(node, f"with pads {given}")
    batched(node, [size + given[a] + given[a + n] for a, size in enumerate(x.shape)])
    index = np.pad(places(x.shape), list(zip(given[:n], given[n:], strict=True)), constant_values=-1)
    return x.taken(index, node.name).shifted(np.where(index < 0, value, 0.0))


def softmax(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Softmax or LogSoftmax over the classes at the end: dropped, since it keeps their order."""
    x = expression(node, args[0])
    axis = int(node.attributes.get("axis", 1 if walk.opset < 13 else -1)) % len(x.shape)
    whole = prod(x.shape[axis:]) if walk.opset < 13 else x.shape[axis]
    if node.outputs[0] != walk.output_name or whole != x.size:
        raise refuse(node, "is dropped only at the end, over all outputs")
    walk.notes.append(f"{node.name}: {node.kind} at the end dropped; it keeps the order of the classes")
    return x


Rule: TypeAlias = Callable[[Walk, Node, Sequence[Value | None]], Value]

OPERATORS: dict[str, Rule] = {
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Clip": clip,
    "Concat": concatenate,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "DepthToSpace": evaluated,
    "DequantizeLinear": dequantize,
    "Div": divide,
    "Dropout": identity,
    "Flatten": flatten,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "Identity": identity,
    "LogSoftmax": softmax,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": multiply,
    "Neg": negate,
    "Pad": pad,
    "QuantizeLinear": quantize,
    "Resize": evaluated,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
    "Relu": relu,
    "Softmax": softmax,
    "SpaceToDepth": evaluated,
    "Sub": subtract,
    "Sum": total,
    "Transpose": transpose,
}
"""Operators on activations; Reshape, Squeeze and Unsqueeze take their shape from onnx (`graph.py`)."""
