"""The windows of convolutions and pools in ONNX: strides, dilations, explicit and automatic padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.onnx.file import Node
from snn_compile.compiler.onnx.relu_network import ENTRIES_MAX, VALUES_MAX, places
from snn_compile.targets.errors import CompileError

AUTO_PAD = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Where a kernel lies on (1, channels, *image).

    `image` is the padded image; `padded` the flat place of each of its values in the input, -1 in the
    padding. `members` (kernel places, channels, windows): the flat place in the input, -1 outside of it;
    `counted`, of the same shape, holds where an average counts that includes the padding.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    image: tuple[int, ...]
    out: tuple[int, ...]
    padded: Index
    members: Index
    counted: npt.NDArray[np.bool_]


def windows(node: Node, shape: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Return the windows of a node with `kernel` on an input (1, channels, *image); raises CompileError."""
    axes = len(kernel)
    if len(shape) != axes + 2:
        raise _wrong(node, f"with a kernel {list(kernel)} on {list(shape)}")
    strides, dilations = _numbers(node, "strides", axes), _numbers(node, "dilations", axes)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    before, after = _padding(node, shape[2:], strides, reach)
    if any(p >= r for p, r in zip((*before, *after), reach * 2, strict=True)) and node.kind != "Conv":
        raise _wrong(node, f"pads {before} and {after}, as much as its kernel reaches")
    whole = [n + b + a for n, b, a in zip(shape[2:], before, after, strict=True)]
    if prod(whole) * shape[1] > VALUES_MAX:
        raise _wrong(node, f"pads to {whole}, more than {VALUES_MAX:,} values")
    if any(w < r for w, r in zip(whole, reach, strict=True)):
        raise _wrong(node, f"has a kernel that does not fit into {list(shape)}")
    out, tail = [], []
    for axis in range(axes):
        left = whole[axis] - reach[axis]
        count = left // strides[axis] + 1
        if node.attributes.get("ceil_mode", 0) and left % strides[axis]:
            # A further window, unless it would begin in the padding at the end.
            count += count * strides[axis] < shape[2 + axis] + before[axis]
        out.append(count)
        tail.append(max(0, (count - 1) * strides[axis] + reach[axis] - whole[axis]))
    if prod(out) * prod(kernel) * shape[1] > ENTRIES_MAX:
        raise _wrong(node, "has too many connections")
    border = [(0, 0), (0, 0), *zip(before, after, strict=True)]
    padded = np.pad(places(tuple(shape)), border, constant_values=-1)
    ends = [(0, 0), *((0, t) for t in tail)]
    reached = np.pad(padded[0], ends, constant_values=-1)
    real = np.pad(np.ones(padded[0].shape, bool), ends)
    members, counted = [], []
    for place in np.ndindex(*kernel):
        cut = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(place, dilations, out, strides, strict=True)
        )
        members.append(reached[(slice(None), *cut)].reshape(shape[1], -1))
        counted.append(real[(slice(None), *cut)].reshape(shape[1], -1))
    return Windows(strides, dilations, tuple(whole), tuple(out), padded, np.stack(members), np.stack(counted))


def _padding(
    node: Node, image: Sequence[int], strides: Sequence[int], reach: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the zeros before and after each axis."""
    axes = len(image)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode not in AUTO_PAD:
        raise _wrong(node, f"has auto_pad {mode!r}; known are {', '.join(AUTO_PAD)}")
    if mode == "NOTSET":
        pads = [int(p) for p in node.attributes.get("pads", [0] * (2 * axes))]
        if len(pads) != 2 * axes or min(pads) < 0:
            raise _wrong(node, f"has pads {pads}")
        return pads[:axes], pads[axes:]
    if mode == "VALID":
        return [0] * axes, [0] * axes
    total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(image, strides, reach, strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def _numbers(node: Node, name: str, axes: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in node.attributes.get(name, [1] * axes))
    if len(values) != axes or min(values) < 1:
        raise _wrong(node, f"has {name} {list(values)} for {axes} axes")
    return values


def _wrong(node: Node, why: str) -> CompileError:
    return CompileError(f"node {node.name!r}: {node.kind} {why}", node=node.name, type=node.kind)


Attributes = dict[str, Any]
