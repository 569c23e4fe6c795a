"""Converters of traced linear, convolution, pooling and normalisation layers to nodes of a GraphBuilder."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch

from snn_compile.compiler.frontends.nir_extensions import MaxPool
from snn_compile.targets.errors import ExportError
from snn_compile.train.export.maps import affine_node, mapped_node
from snn_compile.train.export.nodes import convolution_node, linear_node, numbers
from snn_compile.train.export.traced import LAYERS, GraphBuilder, Source
from snn_compile.train.tracing.values import Value


def _add(builder: GraphBuilder, node: Any, kind: str, value: Value, inner: Value, t: int) -> list[Source]:
    """Add a node that reads the value `inner`, and return it."""
    found = builder.sources(inner, t)
    if not found:
        raise ExportError(f"{value.path}: nothing but zeros reaches it; leave it out", node=value.path)
    name = builder.name(value.path, kind)
    builder.nodes[name] = node
    builder.connect(found, name)
    return [(name, 0)]


def _linear(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    if len(inner.shape) != 2:
        raise ExportError(
            f"{value.path}: gets signals of shape {inner.shape[1:]}, not vectors; put nn.Flatten before it",
            node=value.path,
        )
    node = linear_node(value.attrs["weight"], value.attrs["bias"], value.path)
    return _add(builder, node, "linear", value, inner, t)


def _convolution(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    attrs = value.attrs
    node = convolution_node(attrs["weight"], attrs["bias"], inner.shape[1:], attrs, value.path)
    return _add(builder, node, "conv", value, inner, t)


def _normalisation(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    factor, offset = value.attrs["factor"], value.attrs["offset"]
    if inner.op in ("linear", "conv"):
        weight, bias = inner.attrs["weight"].double(), inner.attrs["bias"]
        weight = weight * factor.reshape(-1, *([1] * (weight.ndim - 1)))
        bias = offset if bias is None else offset + factor * bias.double()
        attrs = {**inner.attrs, "weight": weight, "bias": bias}
        folded = Value(inner.op, inner.args, inner.shape, inner.path, attrs)
        return LAYERS[inner.op](builder, folded, t)
    if len(inner.shape) == 2:
        return _add(builder, linear_node(torch.diag(factor), offset, value.path), "norm", value, inner, t)
    dimensions = len(inner.shape) - 2
    settings = {"stride": (1,) * dimensions, "padding": (0,) * dimensions, "dilation": (1,) * dimensions}
    kernel = factor.reshape(-1, 1, *([1] * dimensions))
    node = convolution_node(kernel, offset, inner.shape[1:], {**settings, "groups": len(factor)}, value.path)
    return _add(builder, node, "norm", value, inner, t)


def _average(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    attrs = value.attrs
    if len(attrs["kernel"]) == 2:
        node = nir.AvgPool2d(*(np.array(attrs[key]) for key in ("kernel", "stride", "padding")))
        return _add(builder, node, "avgpool", value, inner, t)
    return _add(builder, _window(value, 1.0 / attrs["kernel"][0]), "avgpool", value, inner, t)


def _window(value: Value, weight: float) -> Any:
    """Return the depthwise convolution that sums each window times `weight`."""
    shape, attrs = value.args[0].shape[1:], value.attrs
    kernel = torch.full((shape[0], 1, *attrs["kernel"]), weight, dtype=torch.float64)
    return convolution_node(kernel, None, shape, {**attrs, "groups": shape[0]}, value.path)


def _maximum(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    attrs = value.attrs
    if not builder.binary(inner) or attrs.get("ceil_mode"):
        return _add(builder, _winners(value), "maxpool", value, inner, t)
    plain = len(attrs["kernel"]) == 2 and attrs["dilation"] == (1, 1)
    node = (
        nir.SumPool2d(*(np.array(attrs[key]) for key in ("kernel", "stride", "padding")))
        if plain
        else _window(value, 1.0)
    )
    ((pool, _),) = _add(builder, node, "maxpool", value, inner, t)
    name = builder.name(f"{pool}_any", "any")
    builder.nodes[name] = nir.Threshold(threshold=np.full(value.shape[1:], 0.5))
    builder.connect([(pool, 0)], name)
    return [(name, 0)]


def _winners(value: Value) -> MaxPool:
    """Return the node that pools numbers."""
    shape, attrs = value.args[0].shape[1:], value.attrs
    settings = {
        f"{key}_size" if key == "kernel" else key: np.array(attrs[key])
        for key in ("kernel", "stride", "padding", "dilation")
    }
    return MaxPool(np.array(shape), **settings, ceil_mode=np.array([int(attrs.get("ceil_mode", False))]))


def _flatten(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    before, after = inner.shape[1:], value.shape[1:]
    joined = len(before) - len(after) + 1
    starts = [
        i
        for i in range(len(after))
        if (*before[:i], int(np.prod(before[i : i + joined])), *before[i + joined :]) == after
    ]
    if joined < 2 or not starts:
        index = np.arange(int(np.prod(before)))
        node = affine_node(index, index, np.ones(index.size), np.zeros(index.size), before, after)
        return _add(builder, node, "reshape", value, inner, t)
    node = nir.Flatten({"input": np.array(before)}, start_dim=starts[0], end_dim=starts[0] + joined - 1)
    return _add(builder, node, "flatten", value, inner, t)


def _scale(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    factor = value.attrs["factor"]
    factor = factor[0] if factor.ndim == len(inner.shape) and len(factor) == 1 else factor
    if factor.ndim >= len(inner.shape):
        raise ExportError(f"{value.path}: scales the samples of a batch differently", node=value.path)
    scale = np.array(np.broadcast_to(numbers(factor.double(), value.path, "factor"), inner.shape[1:]))
    return _add(builder, nir.Scale(scale=scale), "scale", value, inner, t)


def _concatenation(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    """Put each part in its place along its axis; constants among them are a bias of the first part."""
    shape, after = value.shape[1:], value.shape[1:]
    places = torch.arange(int(np.prod(shape))).reshape(shape)
    bias, begin, parts, axis = np.zeros(places.numel()), 0, [], value.attrs["axis"]
    for part in value.args:
        own = places.narrow(axis - 1, begin, part.shape[axis]).reshape(-1).numpy()
        begin += part.shape[axis]
        if part.op == "const":
            constant = part.attrs["tensor"].double().expand(1, *part.shape[1:])
            bias[own] = numbers(constant.reshape(-1), value.path, "constant")
        else:
            parts.append((part, own))
    result = []
    for part, own in parts:
        columns = np.arange(own.size)
        node = affine_node(own, columns, np.ones(own.size), bias, part.shape[1:], after)
        result += _add(builder, node, "concat", value, part, t)
        bias = np.zeros(bias.size)
    return result


def _map(builder: GraphBuilder, value: Value, t: int) -> list[Source]:
    (inner,) = value.args
    node = mapped_node(value, tuple(inner.shape[1:]))
    return _add(builder, node, str(value.attrs["function"]), value, inner, t)


LAYERS |= {
    "linear": _linear,
    "conv": _convolution,
    "batchnorm": _normalisation,
    "avgpool": _average,
    "maxpool": _maximum,
    "reshape": _flatten,
    "scale": _scale,
    "concat": _concatenation,
    "map": _map,
}
