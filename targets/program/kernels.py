"""Convolutions found in weight tables: one kernel that every position of the target shares.

A program stores a convolution as a sparse table over flattened (channels, height, width). `shared_kernel`
finds the kernel, stride and offset that the table repeats, whatever made it: a convolution, a pool, or a
product of several.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from snn_compile.targets.program import kernels_of_tables

TAPS_MAX = 8
"""Entries of a kernel per synapse beyond which a table is no convolution."""

SMALL = 8
"""Positions along an axis up to which other steps than the likeliest are tried."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A correlation: target (o, y, x) sums weights[o, i, ky, kx] * source (i, y * stride + ky + origin, ...).

    `weights`: (out channels, in channels, height, width), zero where there is no synapse. `origin`: row and
    column of the first tap from the target's (y * stride, x * stride), negative with padding.
    """

    weights: npt.NDArray[Any]
    stride: tuple[int, int]
    origin: tuple[int, int]

    @property
    def rows(self) -> int:
        """Number of (tap, in channel) pairs with a weight: the rows that synapse memory stores."""
        return int(np.count_nonzero(self.weights.any(axis=0)))


def shared_kernel(table: Any, target: tuple[int, ...], source: tuple[int, ...]) -> Kernel | None:
    """Return the kernel of a table (target, source) between two (channels, height, width) shapes.

    None if the shapes are not images, the target is a single position, the table is no convolution (two
    positions that disagree in a weight, or a synapse that is missing at one of them), or no weight is shared.
    """
    if len(target) != 3 or len(source) != 3 or target[1] * target[2] < 2:
        return None
    rows = csr_array(table)
    if not rows.data.all():
        rows = rows.copy()
        rows.eliminate_zeros()
    if not rows.nnz:
        return None
    starts, sources = rows.indptr.astype(np.int64), rows.indices.astype(np.int64)
    values = rows.data.astype(np.float64)
    best, least = None, values.size
    reached = kernels_of_tables.reached(starts, sources, target, source)
    for down, across in product(*(_strides(first, last) for first, last in (reached[:2], reached[2:]))):
        top, bottom, left, right = kernels_of_tables.extent(starts, sources, target, source, down, across)
        size = (target[0], source[0], bottom - top + 1, right - left + 1)
        if prod(size) > TAPS_MAX * values.size:
            continue
        taps = np.zeros(size)
        at = (down, across, top, left)
        if not kernels_of_tables.fill(starts, sources, values, target, source, at, taps):
            continue
        found = Kernel(taps.astype(rows.dtype), (down, across), (top, left))
        expected = np.count_nonzero(taps, axis=(0, 1)) * _positions(found, target, source)
        if int(expected.sum()) == values.size and np.count_nonzero(taps) < least:
            best, least = found, int(np.count_nonzero(taps))
    return best


def _strides(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> list[int]:
    """Return the steps of the source's coordinate per position that are possible, the likeliest first.

    `first` and `last`: the least and the largest coordinate that each position reaches, -1 where it reaches
    none. Padding hides the first or the last taps at the edges, so each pair of neighbours votes with the
    step of its first and of its last tap. Images of a few positions leave the step to trial.
    """
    positions = len(first)
    if positions < 2:
        return [1]
    seen = last >= 0
    steps = np.concatenate([np.diff(first)[seen[1:] & seen[:-1]], np.diff(last)[seen[1:] & seen[:-1]]])
    steps = steps[steps > 0]
    voted = [int(np.bincount(steps).argmax())] if steps.size else []
    return voted + [step for step in range(1, 5) if step not in voted and positions <= SMALL]


def _positions(kernel: Kernel, target: tuple[int, ...], source: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return, by tap, the number of target positions whose tap lies within the source."""
    counts = []
    for axis in range(2):
        places = np.arange(target[1 + axis]) * kernel.stride[axis] + kernel.origin[axis]
        taps = places[:, None] + np.arange(kernel.weights.shape[2 + axis])
        counts.append(((taps >= 0) & (taps < source[1 + axis])).sum(axis=0))
    return np.outer(counts[0], counts[1])
