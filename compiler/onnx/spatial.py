"""ONNX operators over space: convolutions, pools and reductions, for the table `operators.OPERATORS`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from scipy.sparse import csr_array

from snn_compile.compiler.linear_maps import convolution_map
from snn_compile.compiler.onnx.context import Value, Walk, batched, constant, expression, refuse
from snn_compile.compiler.onnx.file import Node
from snn_compile.compiler.onnx.relu_network import Affine, places
from snn_compile.compiler.onnx.windows import Windows, windows
from snn_compile.targets.errors import UnsupportedNode


def convolution(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """Conv over one or two spatial axes."""
    x, kernel = expression(node, args[0]), constant(node, args[1], "kernel")
    bias = None if len(args) < 3 or args[2] is None else constant(node, args[2], "bias")
    if kernel.ndim != len(x.shape) or not 3 <= kernel.ndim <= 4:
        raise refuse(
            node,
            f"with a kernel {list(kernel.shape)} on {list(x.shape)}; one or two spatial axes are converted",
        )
    over = windows(node, x.shape, kernel.shape[2:])
    padded = x.taken(over.padded, node.name)
    image = (x.shape[1], *over.image) if kernel.ndim == 4 else (x.shape[1], 1, *over.image)
    kernel = kernel if kernel.ndim == 4 else kernel[:, :, None]
    stride, dilation = _two(over.strides), _two(over.dilations)
    convolution = convolution_map(
        kernel, image, stride, (0, 0), dilation, int(node.attributes.get("group", 1)), bias, node.name
    )
    y = padded.mapped(convolution.weight, batched(node, (1, kernel.shape[0], *over.out)), node.name)
    return y if convolution.bias is None else y.shifted(convolution.bias.reshape(y.shape))


def transposed_convolution(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """ConvTranspose over one or two spatial axes: the adjoint of a convolution, cut by its padding."""
    x, kernel = expression(node, args[0]), constant(node, args[1], "kernel")
    axes, given = kernel.ndim - 2, node.attributes
    if kernel.ndim != len(x.shape) or axes not in (1, 2):
        raise refuse(
            node,
            f"with a kernel {list(kernel.shape)} on {list(x.shape)}; one or two spatial axes are converted",
        )
    if given.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in given:
        raise refuse(node, "with auto_pad or output_shape is not converted; state pads and output_padding")
    stride, dilation = ([int(n) for n in given.get(key, [1] * axes)] for key in ("strides", "dilations"))
    more = [int(n) for n in given.get("output_padding", [0] * axes)]
    pads, groups = [int(n) for n in given.get("pads", [0] * (2 * axes))], int(given.get("group", 1))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[2:], strict=True)]
    whole = [(n - 1) * s + r + m for n, s, r, m in zip(x.shape[2:], stride, reach, more, strict=True)]
    cut = [slice(pads[a], size - pads[a + axes]) for a, size in enumerate(whole)]
    channels = kernel.shape[1] * groups
    image = (channels, *whole) if axes == 2 else (channels, 1, *whole)
    plain = kernel if axes == 2 else kernel[:, :, None]
    forward = convolution_map(plain, image, _two(stride), (0, 0), _two(dilation), groups, None, node.name)
    made = x.mapped(csr_array(csr_array(forward.weight).T), batched(node, (1, channels, *whole)), node.name)
    y = made.taken(places(made.shape)[(slice(None), slice(None), *cut)], node.name)
    if len(args) < 3 or args[2] is None:
        return y
    return y.shifted(constant(node, args[2], "bias").reshape(1, -1, *[1] * axes))


def _two(values: Sequence[int]) -> tuple[int, int]:
    return (int(values[0]), int(values[1])) if len(values) == 2 else (1, int(values[0]))


def average_pool(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """AveragePool: folded into the next layer."""
    x = expression(node, args[0])
    return _average(node, x, windows(node, x.shape, _kernel(node)))


def _kernel(node: Node) -> tuple[int, ...]:
    kernel = tuple(int(k) for k in node.attributes.get("kernel_shape", ()))
    if not 1 <= len(kernel) <= 2 or min(kernel) < 1:
        raise refuse(node, f"has the kernel {list(kernel)}; one or two spatial axes are converted")
    return kernel


def _average(node: Node, x: Affine, over: Windows) -> Affine:
    inside = over.members >= 0
    counted = over.counted if node.attributes.get("count_include_pad", 0) else inside
    count = counted.sum(axis=0)
    rows = np.broadcast_to(np.arange(count.size).reshape(count.shape), over.members.shape)[inside]
    weights = np.broadcast_to(1.0 / np.maximum(count, 1), over.members.shape)[inside]
    matrix = csr_array((weights, (rows, over.members[inside])), shape=(count.size, x.size))
    return x.mapped(matrix, batched(node, (1, x.shape[1], *over.out)), node.name)


def max_pool(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """MaxPool: refused, or by max(a, b) = b + relu(a - b), or by the average of the window."""
    x = expression(node, args[0])
    if len([o for o in node.outputs if o]) > 1 or node.attributes.get("storage_order", 0):
        raise refuse(node, "gives its indices, which are not converted")
    over = windows(node, x.shape, _kernel(node))
    return _largest(walk, node, x, over)


def global_max_pool(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """GlobalMaxPool: as MaxPool over everything."""
    x = expression(node, args[0])
    flat = places(x.shape).reshape(x.shape[1], -1).T
    members = np.ascontiguousarray(flat[:, :, None])
    over = Windows((), (), (), (1,) * (len(x.shape) - 2), places(x.shape), members, members >= 0)
    return _largest(walk, node, x, over)


def _largest(walk: Walk, node: Node, x: Affine, over: Windows) -> Affine:
    shape = batched(node, (1, x.shape[1], *over.out))
    members = over.members.reshape(len(over.members), -1)
    if (members < 0).all(axis=0).any():
        raise refuse(node, "has a window that lies in the padding alone")
    if walk.max_pool == "refuse":
        raise UnsupportedNode(
            f"node {node.name!r}: {node.kind} has no counterpart in spikes: which rate is the largest is "
            "known only when all are counted. Train with AveragePool or stride, or ask for --max-pool "
            "rectify (exact in real numbers, for more neurons) or --max-pool average (another network)",
            node=node.name,
            type=node.kind,
        )
    if walk.max_pool == "average":
        walk.notes.append(f"{node.name}: {node.kind} replaced by the average of each window, on request")
        return _average(node, x, over)
    # A place in the padding counts as any other place of its window: the largest stays the same.
    first = np.take_along_axis(members, (members >= 0).argmax(axis=0)[None], axis=0)
    rivals = [x.taken(row.reshape(shape), node.name) for row in np.where(members < 0, first, members)]
    added = 0
    while len(rivals) > 1:
        paired = []
        for a, b in zip(rivals[::2], rivals[1::2], strict=False):
            paired.append(b.plus(walk.rectify(f"{node.name}.above", a.plus(b, -1.0))))
            added += b.size
        rivals = paired + (rivals[-1:] if len(rivals) % 2 else [])
    walk.notes.append(
        f"{node.name}: {node.kind} as max(a, b) = b + relu(a - b), {added} neurons more, on request"
    )
    return rivals[0]


def global_average_pool(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """GlobalAveragePool: the mean over all spatial axes."""
    x = expression(node, args[0])
    return _reduced(node, x, tuple(range(2, len(x.shape))), True, 1.0 / max(prod(x.shape[2:]), 1))


def reduce_mean(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """ReduceMean over axes other than the batch."""
    x, axes = _axes(node, args)
    share = 1.0 / prod(x.shape[a] for a in axes)
    return _reduced(node, x, axes, bool(node.attributes.get("keepdims", 1)), share)


def reduce_sum(walk: Walk, node: Node, args: Sequence[Value | None]) -> Value:
    """ReduceSum over axes other than the batch."""
    x, axes = _axes(node, args)
    return _reduced(node, x, axes, bool(node.attributes.get("keepdims", 1)), 1.0)


def _axes(node: Node, args: Sequence[Value | None]) -> tuple[Affine, tuple[int, ...]]:
    x = expression(node, args[0])
    given = node.attributes.get("axes")
    if len(args) > 1 and args[1] is not None:
        given = constant(node, args[1], "axes").astype(int).reshape(-1).tolist()
    axes = tuple(sorted({int(a) % len(x.shape) for a in given})) if given else tuple(range(len(x.shape)))
    if 0 in axes:
        raise refuse(node, "reduces the batch axis")
    return x, axes


def _reduced(node: Node, x: Affine, axes: tuple[int, ...], keep: bool, value: float) -> Affine:
    kept = [1 if a in axes else n for a, n in enumerate(x.shape)]
    rows = np.broadcast_to(places(tuple(kept)), x.shape).reshape(-1)
    matrix = csr_array((np.full(x.size, value), (rows, np.arange(x.size))), shape=(prod(kept), x.size))
    shape = kept if keep else [n for a, n in enumerate(x.shape) if a not in axes]
    return x.mapped(matrix, batched(node, shape), node.name)
