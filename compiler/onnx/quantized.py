"""QuantizeLinear and DequantizeLinear: integer weights as numbers, ranges of activations as clips.

    q = saturate(round(x / scale) + zero)      y = (q - zero) scale

Weights and biases are constants, so their y is exact: integers of 8, 16 or 32 bits, per tensor or channel.
Activations become rates, which have levels of their own, so a pair around them means y = clip(x, low, high)
with low = (smallest q - zero) scale and high likewise; its rounding, of at most scale / 2, is left out. The
clip costs nothing behind a rectifier or before one, where low <= 0 <= high: it is an upper bound of the
neurons. With low = 0 the clip of a sum is a rectifier itself. Elsewhere (the model's input, its output, sums
that go on as sums) it is folded, that is left out: calibrated ranges hold nearly all values.

Source: ONNX operators QuantizeLinear and DequantizeLinear, opsets 10 to 23.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from snn_compile.compiler.network import Weight
from snn_compile.compiler.onnx.context import Array, Value, Walk, expression, refuse
from snn_compile.compiler.onnx.file import Node
from snn_compile.compiler.onnx.relu_network import Affine

WEIGHTS = ("int8", "uint8", "int16", "uint16", "int32")
ACTIVATIONS = WEIGHTS[:4]


@dataclass(frozen=True, eq=False)
class Quantized(Affine):
    """Activations between QuantizeLinear and DequantizeLinear, in real numbers; `raw` before the first."""

    scale: float = 1.0
    zero: int = 0
    dtype: str = "uint8"
    raw: Affine = field(default_factory=lambda: Affine((), {}, np.zeros(1)))

    def moved(self, made: Affine) -> Quantized:
        """Return the same values in other places."""
        return Quantized(made.shape, made.terms, made.bias, self.scale, self.zero, self.dtype, made)


PLACES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Identity")
"""Operators that may stand between the two."""


def _parameters(
    node: Node, args: Sequence[Value | None], shape: tuple[int, ...], dtype: str
) -> tuple[Array, Array]:
    """Return scale and zero point, broadcast to a tensor of `shape` and of integers of `dtype`."""
    if node.attributes.get("block_size", 0):
        raise refuse(node, "by blocks is not converted; per tensor and per channel is")
    scale = args[1] if len(args) > 1 else None
    zero = args[2] if len(args) > 2 else None
    if not isinstance(scale, np.ndarray) or not (zero is None or isinstance(zero, np.ndarray)):
        raise refuse(node, "needs a constant scale and zero point")
    if scale.dtype.kind != "f" or scale.ndim > 1 or not (scale > 0).all():
        raise refuse(node, f"has a scale of {_shown(scale)}; positive numbers are expected, one per channel")
    if zero is not None and zero.dtype.name != dtype:
        raise refuse(node, f"has a zero point of {zero.dtype.name} for values of {dtype}")
    if zero is not None and zero.shape != scale.shape and not zero.size == scale.size == 1:
        raise refuse(node, f"has zero points of shape {list(zero.shape)} and scales of {list(scale.shape)}")
    if zero is not None and dtype == "int32" and zero.any():
        raise refuse(node, f"has the zero point {zero.reshape(-1)[0]} for values of int32; 0 is expected")
    wide = np.zeros_like(scale) if zero is None else zero.reshape(scale.shape)
    if scale.size == 1 and scale.ndim == 0:
        return scale, wide
    axis = int(node.attributes.get("axis", 1))
    if scale.size == 1 and not (-len(shape) <= axis < len(shape) and shape[axis] == 1):
        return scale.reshape(()), wide.reshape(())
    if not -len(shape) <= axis < len(shape):
        raise refuse(node, f"names axis {axis} of values of shape {list(shape)}")
    if shape[axis] != scale.size:
        raise refuse(node, f"has {scale.size} scales for axis {axis} of values of shape {list(shape)}")
    there = [1] * len(shape)
    there[axis] = scale.size
    return scale.reshape(there), wide.reshape(there)


def _shown(values: Array) -> str:
    bad = values[~(values > 0)] if values.dtype.kind == "f" and values.ndim < 2 else values
    return f"{bad.reshape(-1)[0]:g}" if values.ndim < 2 and bad.size else f"shape {list(values.shape)}"


def dequantized(node: Node, args: Sequence[Value | None]) -> Array:
    """Return constant integers as float32 numbers, as a runtime computes them."""
    values = args[0]
    if not isinstance(values, np.ndarray) or values.dtype.name not in WEIGHTS:
        kind = values.dtype.name if isinstance(values, np.ndarray) else "nothing"
        raise refuse(node, f"of {kind} is not converted; {', '.join(WEIGHTS)} are")
    scale, zero = _parameters(node, args, values.shape, values.dtype.name)
    found: Array = (values.astype(np.int64) - zero.astype(np.int64)).astype(np.float32) * scale
    return found.astype(np.float32)


def quantized(node: Node, args: Sequence[Value | None]) -> Array:
    """Return constant numbers as integers."""
    values = args[0]
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise refuse(node, "of integers is not converted")
    dtype = _target(node, args)
    scale, zero = _parameters(node, args, values.shape, dtype)
    ends = np.iinfo(dtype)
    level = np.rint(values.astype(np.float32) / scale.astype(np.float32)) + zero.astype(np.float32)
    return np.asarray(np.clip(level, ends.min, ends.max), dtype)


def _target(node: Node, args: Sequence[Value | None]) -> str:
    """Return the type that QuantizeLinear writes: that of its zero point, or unsigned bytes."""
    zero = args[2] if len(args) > 2 else None
    dtype = zero.dtype.name if isinstance(zero, np.ndarray) else "uint8"
    if node.attributes.get("output_dtype", 0) and zero is None or dtype not in ACTIVATIONS:
        raise refuse(
            node, f"to {dtype}, or to a type of its own, is not converted; give a zero point of 8 bits"
        )
    return dtype


def quantize(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """QuantizeLinear of activations, per tensor: remembered for the DequantizeLinear behind it."""
    x, dtype = expression(node, args[0]), _target(node, args)
    if isinstance(x, Quantized):
        raise refuse(node, "quantizes what is quantized")
    scale, zero = _parameters(node, args, x.shape, dtype)
    if scale.size != 1:
        raise refuse(node, "of activations per channel is not converted; per tensor is")
    step, offset = float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
    return Quantized(x.shape, x.terms, x.bias, step, offset, dtype, x)


def dequantize(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """DequantizeLinear of activations: with the QuantizeLinear before it, a clip."""
    x = args[0]
    if not isinstance(x, Affine):
        raise refuse(node, "needs a constant scale and zero point")
    if not isinstance(x, Quantized):
        raise refuse(node, "of activations that no QuantizeLinear writes is not converted")
    scale, zero = _parameters(node, args, x.shape, x.dtype)
    if scale.size != 1 or float(scale.reshape(-1)[0]) != x.scale or int(zero.reshape(-1)[0]) != x.zero:
        other = f"scale {float(scale.reshape(-1)[0]):g} and zero point {int(zero.reshape(-1)[0])}"
        raise refuse(node, f"reads with {other} what was written with {x.scale:g} and {x.zero}")
    ends = np.iinfo(x.dtype)
    walk.pairs += 1
    return _clipped(walk, node, x.raw, (ends.min - x.zero) * x.scale, (ends.max - x.zero) * x.scale)


def _clipped(walk: Walk, node: Node, x: Affine, low: float, high: float) -> Affine:
    """Return clip(x, low, high), low <= 0 <= high, where that costs no neurons, or x with its range noted."""
    layer = next((layer for layer in walk.layers if x.terms.keys() == {layer.name}), None)
    if layer is not None and _picks(x.terms[layer.name]) and not x.bias.any():
        weight = x.terms[layer.name]
        walk.clipped += 1
        if high >= layer.ceiling:
            return x
        source = walk.rectify(layer.name, layer.value, high)
        return Affine(x.shape, {next(iter(source.terms)): weight}, x.bias)
    if low == 0 and not _nonnegative(x):
        walk.clipped += 1
        return walk.rectify(node.name, x, high)
    made = Affine(x.shape, x.terms, x.bias)
    walk.bounds.append((made, high))
    return made


def _nonnegative(x: Affine) -> bool:
    """Whether a value is a sum of its sources with no negative weight: of rectifiers it is not negative, and
    of the input it was not on the data from which a range that begins at 0 comes.
    """
    return not (x.bias < 0).any() and not any((weight.data < 0).any() for weight in x.terms.values())


def _picks(weight: Weight) -> bool:
    """Whether every value is one of the source's, as it is."""
    return bool((weight.data == 1).all() and (np.diff(weight.indptr) == 1).all())


def note(walk: Walk) -> list[str]:
    """Return what was left out of the pairs around activations."""
    if not walk.pairs:
        return []
    left = walk.pairs - walk.clipped
    return [
        f"{walk.pairs} QuantizeLinear with DequantizeLinear around activations: their rounding is left out, "
        f"since rates have levels of their own; {walk.clipped} ranges bound neurons, and {left} lie between "
        "sums, where they are left out too"
    ]
