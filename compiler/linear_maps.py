"""Linear NIR nodes as matrices over flattened (channels, height, width) arrays.

Convolutions are correlations, as in NIR and PyTorch; 'same' pads as PyTorch does, the odd one at the end.
Everything is a sparse (target, source) matrix, so that maps compose by multiplication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array

from snn_compile.compiler.network import Float, Weight
from snn_compile.targets.errors import CompileError

MATRIX_MAX = 1 << 26
"""Most connections of one map: three times the 8-bit synapses of a Loihi 2."""

WINDOW_MAX = 1 << 16
"""Positions of a kernel or window."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """y = weight @ x + bias for x of one shape; weight None is the identity.

    `delays`: steps by element, or with a weight by synapse (target, source).
    """

    shape: tuple[int, ...]
    weight: Weight | None = None
    bias: Float | None = None
    delays: Float | None = None


def pair(value: Any, name: str, what: str) -> tuple[int, int]:
    """Return one or two integers as a pair; raises CompileError on anything else."""
    values = np.atleast_1d(np.asarray(value))
    if values.dtype.kind not in "iuf" or values.size not in (1, 2) or (values != np.rint(values)).any():
        raise CompileError(f"node {name!r}: {what} {value!r}; expected one or two integers", node=name)
    numbers = [int(v) for v in values.reshape(-1)]
    return (numbers[0], numbers[-1])


def scale_map(scale: Float, shape: tuple[int, ...], name: str) -> LinearMap:
    """Multiply elementwise by `scale`, a number or an array of the shape."""
    size = int(np.prod(shape))
    flat = np.asarray(scale, np.float64).reshape(-1)
    if flat.size not in (1, size):
        raise CompileError(f"node {name!r} scales {flat.size} values and receives {size}", node=name)
    return LinearMap(shape, csr_array(diags_array(np.broadcast_to(flat, (size,)))))


def convolution_size(
    plane: Sequence[int],
    window: Sequence[int],
    stride: tuple[int, int],
    padding: Any,
    dilation: tuple[int, int],
    name: str,
) -> tuple[int, int]:
    """Return the height and width of a correlation's output, below 1 if the kernel does not fit."""
    zeros = _padding(padding, tuple(window), stride, dilation, name)
    rows, columns = (
        (plane[i] + sum(zeros[i]) - dilation[i] * (window[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    )
    return rows, columns


def convolution_map(
    kernel: Float,
    shape: tuple[int, ...],
    stride: tuple[int, int],
    padding: Any,
    dilation: tuple[int, int],
    groups: int,
    bias: Float | None,
    name: str,
) -> LinearMap:
    """Return a two-dimensional correlation of `shape` (channels, height, width).

    `kernel`: (out channels, in channels / groups, height, width). `padding`: numbers, 'same' or 'valid'.
    """
    _check_convolution(kernel, shape, stride, dilation, groups, name)
    channels_out, per_group = kernel.shape[:2]
    before = _padding(padding, kernel.shape[2:], stride, dilation, name)
    out = convolution_size(shape[1:], kernel.shape[2:], stride, padding, dilation, name)
    if min(out) < 1:
        raise CompileError(f"node {name!r}: its kernel does not fit into an input of {shape}", node=name)
    if (count := channels_out * out[0] * out[1] * kernel[0].size) > MATRIX_MAX:
        raise CompileError(
            f"node {name!r}: its map of {shape} has {count:,} connections; at most {MATRIX_MAX:,} are "
            "possible",
            node=name,
        )
    y, x = np.meshgrid(np.arange(out[0]), np.arange(out[1]), indexing="ij")
    planes = np.arange(channels_out)[:, None, None]
    first = np.arange(channels_out) // (channels_out // groups) * per_group
    inputs = (first[:, None] + np.arange(per_group))[:, :, None]
    targets: list[Any] = []
    sources: list[Any] = []
    values: list[Any] = []
    for ky in range(kernel.shape[2]):
        for kx in range(kernel.shape[3]):
            row = y * stride[0] + ky * dilation[0] - before[0][0]
            column = x * stride[1] + kx * dilation[1] - before[1][0]
            inside = (row >= 0) & (row < shape[1]) & (column >= 0) & (column < shape[2])
            at, place = (y * out[1] + x)[inside], (row * shape[2] + column)[inside]
            both = (channels_out, per_group, at.size)
            for found, index in (
                (targets, planes * (out[0] * out[1]) + at),
                (sources, inputs * (shape[1] * shape[2]) + place),
            ):
                found.append(np.broadcast_to(index, both).astype(np.int32).reshape(-1))
            values.append(np.broadcast_to(kernel[:, :, ky, kx, None], both).reshape(-1))
    weight = _assemble(targets, sources, values, (channels_out * out[0] * out[1], int(np.prod(shape))))
    spread = None if bias is None else np.repeat(np.asarray(bias, np.float64).reshape(-1), out[0] * out[1])
    if spread is not None and spread.size != weight.shape[0]:
        given = spread.size // (out[0] * out[1])
        raise CompileError(f"node {name!r}: {given} biases for {channels_out} channels", node=name)
    return LinearMap((channels_out, *out), weight, spread)


def pool_map(
    shape: tuple[int, ...],
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    value: float,
    name: str,
) -> LinearMap:
    """Return a pool that sums windows of each channel and multiplies by `value`."""
    if len(shape) != 3:
        raise CompileError(f"node {name!r} pools (channels, height, width) and receives {shape}", node=name)
    if size[0] * size[1] > WINDOW_MAX:
        raise CompileError(
            f"node {name!r}: a window of {size}; at most {WINDOW_MAX} positions are possible", node=name
        )
    kernel = np.full((shape[0], 1, *size), value)
    return convolution_map(kernel, shape, stride, padding, (1, 1), shape[0], None, name)


def _assemble(
    targets: Sequence[Any], sources: Sequence[Any], values: Sequence[Any], shape: tuple[int, int]
) -> csr_array:
    data = np.concatenate(values) if values else np.zeros(0)
    where = (np.concatenate(targets), np.concatenate(sources)) if values else (np.zeros(0, int),) * 2
    return csr_array((data, where), shape=shape)


def _check_convolution(
    kernel: Float, shape: tuple[int, ...], stride: Any, dilation: Any, groups: int, name: str
) -> None:
    if kernel.ndim != 4 or len(shape) != 3:
        raise CompileError(
            f"node {name!r}: a kernel of shape {kernel.shape} on an input of shape {shape}; expected "
            "(out, in, height, width) on (channels, height, width)",
            node=name,
        )
    if kernel.shape[2] * kernel.shape[3] > WINDOW_MAX or not kernel.size:
        raise CompileError(
            f"node {name!r}: a kernel of shape {kernel.shape}; 1 to {WINDOW_MAX} positions are possible",
            node=name,
        )
    fits = groups >= 1 and kernel.shape[0] % groups == 0 and shape[0] == kernel.shape[1] * groups
    if not fits or min(*stride, *dilation) < 1:
        raise CompileError(
            f"node {name!r}: kernel {kernel.shape}, {groups} group(s), stride {stride} and dilation "
            f"{dilation} do not fit an input of {shape[0]} channels",
            node=name,
        )


def _padding(
    padding: Any, kernel: tuple[int, ...], stride: Any, dilation: Any, name: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the zeros before and after, by axis."""
    if isinstance(padding, bytes):
        padding = padding.decode()
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same" or max(stride) > 1:
            raise CompileError(
                f"node {name!r}: padding {padding!r} with stride {stride}; 'same' needs stride 1", node=name
            )
        total = [dilation[i] * (kernel[i] - 1) for i in range(2)]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    rows, columns = pair(padding, name, "padding")
    if min(rows, columns) < 0:
        raise CompileError(f"node {name!r}: padding {padding!r} is negative", node=name)
    return (rows, rows), (columns, columns)
