"""Blocks: the part of a population that one core holds, a range along each axis of its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

import numpy as np
import numpy.typing as npt

Slice = tuple[str, int, int]
"""Population, first neuron, and the one after the last, in flattened C order."""

Range = tuple[int, int]


@dataclass(frozen=True)
class Block:
    """Neurons of a population: `ranges` (start, stop) along the axes of `shape`.

    A population that is not (channels, height, width) has one axis, its neurons.
    """

    population: str
    shape: tuple[int, ...]
    ranges: tuple[Range, ...]

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(stop - start for start, stop in self.ranges)

    @property
    def positions(self) -> int:
        """Number of positions of an image, or of neurons of a vector."""
        return prod(stop - start for start, stop in self.ranges[1:]) if len(self.shape) == 3 else self.size

    @property
    def channels(self) -> Range:
        """Range of the first axis."""
        return self.ranges[0]

    def joined(self, other: Block) -> Block | None:
        """Return the block of both, if they are of one population and it is one block."""
        if self.population != other.population:
            return None
        apart = [i for i, (a, b) in enumerate(zip(self.ranges, other.ranges, strict=True)) if a != b]
        if len(apart) != 1:
            return None
        (first, last), (start, stop) = sorted((self.ranges[apart[0]], other.ranges[apart[0]]))
        if last != start:
            return None
        ranges = (*self.ranges[: apart[0]], (first, stop), *self.ranges[apart[0] + 1 :])
        return Block(self.population, self.shape, ranges)

    def indices(self) -> npt.NDArray[np.int64]:
        """Return the flattened indices of the neurons, ascending."""
        found: npt.NDArray[np.int64] = np.ravel_multi_index(
            np.ix_(*(np.arange(*bounds) for bounds in self.ranges)), self.shape
        ).reshape(-1)
        return found

    def slices(self) -> list[Slice]:
        """Return the neurons as contiguous slices."""
        index = self.indices()
        cuts = np.flatnonzero(np.diff(index) != 1) + 1
        first, last = np.concatenate([[0], cuts]), np.concatenate([cuts, [index.size]]) - 1
        return [(self.population, int(index[a]), int(index[b]) + 1) for a, b in zip(first, last, strict=True)]


def axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that blocks are cut from: an image's own, or one axis of all neurons."""
    return shape if len(shape) == 3 else (prod(shape),)


def grid(name: str, shape: tuple[int, ...], steps: Sequence[int]) -> list[Block]:
    """Return a population cut into blocks of at most `steps` along each axis."""
    whole = axes(shape)
    bounds = [
        [(start, min(start + step, length)) for start in range(0, length, step)]
        for length, step in zip(whole, steps, strict=True)
    ]
    return [Block(name, whole, ranges) for ranges in product(*bounds)]


def even(length: int, parts: int) -> int:
    """Return the step that cuts a length into `parts`, or as few more as the last one needs."""
    return ceil(length / max(min(parts, length), 1))
