"""Passes over the synapses of a table between two images, compiled: they see every synapse once.

`starts` and `sources`: the table's rows as in `scipy.sparse.csr_array`; shapes are (channels, height, width).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True)
def reached(
    starts: Any, sources: Any, target: tuple[int, int, int], source: tuple[int, int, int]
) -> tuple[Any, Any, Any, Any]:
    """Return the least and the largest source row per target row, and likewise columns; -1: none."""
    top, bottom = np.full(target[1], source[1]), np.full(target[1], -1)
    left, right = np.full(target[2], source[2]), np.full(target[2], -1)
    for row in range(len(starts) - 1):
        y, x = row // target[2] % target[1], row % target[2]
        for entry in range(starts[row], starts[row + 1]):
            down, across = sources[entry] // source[2] % source[1], sources[entry] % source[2]
            top[y], bottom[y] = min(top[y], down), max(bottom[y], down)
            left[x], right[x] = min(left[x], across), max(right[x], across)
    return top, bottom, left, right


@njit(cache=True)
def extent(
    starts: Any,
    sources: Any,
    target: tuple[int, int, int],
    source: tuple[int, int, int],
    down: int,
    across: int,
) -> tuple[int, int, int, int]:
    """Return the first and last row and column of taps, from (y * down, x * across) of the target."""
    top, left = source[1], source[2]
    bottom, right = -target[1] * down, -target[2] * across
    for row in range(len(starts) - 1):
        y, x = row // target[2] % target[1] * down, row % target[2] * across
        for entry in range(starts[row], starts[row + 1]):
            dy, dx = sources[entry] // source[2] % source[1] - y, sources[entry] % source[2] - x
            top, bottom, left, right = min(top, dy), max(bottom, dy), min(left, dx), max(right, dx)
    return top, bottom, left, right


@njit(cache=True)
def fill(
    starts: Any,
    sources: Any,
    values: Any,
    target: tuple[int, int, int],
    source: tuple[int, int, int],
    at: tuple[int, int, int, int],
    taps: Any,
) -> bool:
    """Write each synapse to its tap; return whether no two synapses of a tap differ.

    `at`: the stride and the origin (down, across, top, left); `taps`: zeros (out, in, height, width).
    """
    down, across, top, left = at
    for row in range(len(starts) - 1):
        out, y, x = row // (target[1] * target[2]), row // target[2] % target[1], row % target[2]
        for entry in range(starts[row], starts[row + 1]):
            place = sources[entry]
            channel, i, j = (
                place // (source[1] * source[2]),
                place // source[2] % source[1],
                place % source[2],
            )
            dy, dx = i - y * down - top, j - x * across - left
            before = taps[out, channel, dy, dx]
            if before == 0:
                taps[out, channel, dy, dx] = values[entry]
            elif before != values[entry]:
                return False
    return True
