"""State of the walk over an ONNX graph, and the errors of operators that do not convert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.network import Float
from snn_compile.compiler.onnx.file import Node
from snn_compile.compiler.onnx.relu_network import VALUES_MAX, Affine, Rectifiers, source
from snn_compile.targets.errors import CompileError

Array: TypeAlias = npt.NDArray[Any]
Value: TypeAlias = Affine | Array
"""The value of a name in the graph: an expression, or a constant."""

MAX_POOL = ("refuse", "rectify", "average")


@dataclass(eq=False)
class Walk:
    """The state of the walk while nodes are visited in order.

    `pairs` counts pairs of QuantizeLinear and DequantizeLinear around activations, `clipped` those whose
    range bounds neurons.
    """

    opset: int
    max_pool: str
    output_name: str
    layers: list[Rectifiers] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    bounds: list[tuple[Affine, float]] = field(default_factory=list)
    """Expressions of quantized activations with their largest value, which a rectifier behind them takes."""
    pairs: int = 0
    clipped: int = 0

    def rectify(self, name: str, x: Affine, ceiling: float = inf) -> Affine:
        """Add a layer that sends clip(x, 0, ceiling) and return its output."""
        for known, highest in self.bounds:
            if known is x:
                self.clipped += 1
                ceiling = min(ceiling, highest)
        if not x.terms:
            return Affine(x.shape, {}, np.clip(x.bias, 0.0, ceiling))
        plain = name.strip("/").replace("/", ".") or "rectifier"
        unique, count = plain, 1
        while unique in self.names:
            count += 1
            unique = f"{plain}.{count}"
        self.names.add(unique)
        self.layers.append(Rectifiers(unique, x, ceiling))
        return source(unique, x.shape)


def refuse(node: Node, why: str) -> CompileError:
    """Return the error of a node that is used in a way that is not converted."""
    return CompileError(f"node {node.name!r}: {node.kind} {why}", node=node.name, type=node.kind)


def expression(node: Node, x: Value | None, what: str = "input") -> Affine:
    """Return a value as an expression of the model's input; raises CompileError on a constant."""
    if not isinstance(x, Affine):
        raise refuse(node, f"has a constant as its {what}; expected what depends on the model's input")
    return x


def constant(node: Node, x: Value | None, what: str) -> Float:
    """Return a constant as float64; raises CompileError if it depends on the model's input."""
    if not isinstance(x, np.ndarray):
        raise refuse(node, f"needs a constant {what}; products of two activations are not linear")
    return np.asarray(x, np.float64)


def batched(node: Node, shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape whose first axis is a batch of one; raises CompileError on others."""
    if len(shape) < 1 or shape[0] != 1:
        raise refuse(
            node, f"gives the shape {list(shape)} for one sample; the first axis has to stay the batch"
        )
    if prod(shape) > VALUES_MAX:
        raise refuse(node, f"gives {prod(shape):,} values, more than {VALUES_MAX:,}")
    return tuple(shape)


def present(node: Node, x: Value | None) -> Value:
    """Return a required input."""
    if x is None:
        raise refuse(node, "lacks an input")
    return x
