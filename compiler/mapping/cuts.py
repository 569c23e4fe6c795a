"""Cuts: the fewest blocks of a population that each take at most a share of a core, and of a step's time.

Large blocks repeat least, small ones fill cores evenly and balance their times; `search.py` tries several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, inf, prod

from snn_compile.compiler.mapping.blocks import Block, axes, even, grid
from snn_compile.compiler.mapping.core_memory import CoreMemory
from snn_compile.compiler.mapping.work import Work

DIVISIBLE = ("neurons", "synapse_words", "words", "out_axons")
"""Resources that smaller blocks take less of, but for the rows of shared kernels."""

TRIES = 400
"""Grids tried per image."""


@dataclass(frozen=True)
class Size:
    """What a block may take: `share` of a core's divisible resources, and of a step's time."""

    share: float = 1.0
    ns: float = inf


def cut(
    name: str, shape: tuple[int, ...], memory: CoreMemory, work: Work, most: dict[str, int], size: Size
) -> list[Block]:
    """Return the fewest blocks of a size that one grid gives, [] if no grid of an image was found.

    A single neuron may exceed the size, not a core.
    """
    whole = axes(shape)
    shared = memory.kernel(name) is not None

    def fits(block: Block) -> bool:
        use = memory.alone(block)
        if any(use[key] > limit for key, limit in most.items()):
            return False
        if prod(stop - start for start, stop in block.ranges) == 1:
            return True
        divisible = [key for key in DIVISIBLE if not (shared and "words" in key)]
        return work.block_ns(block) <= size.ns and all(
            use[key] <= max(most[key] * size.share, 1) for key in divisible
        )

    at_least = 1
    every = Block(name, whole, tuple((0, n) for n in whole))
    at_least = max(at_least, ceil(work.block_ns(every) / size.ns))
    at_least = max(at_least, ceil(every.size / max(most["neurons"] * size.share, 1)))
    if len(whole) == 1:
        return _cut_vector(name, shape, whole[0], at_least, fits)
    return _cut_image(name, shape, at_least, fits)


def _cut_vector(
    name: str, shape: tuple[int, ...], length: int, at_least: int, fits: Callable[[Block], bool]
) -> list[Block]:
    def blocks(parts: int) -> list[Block]:
        return grid(name, shape, [even(length, parts)])

    low, high = min(at_least, length) - 1, min(at_least, length)
    while high < length and not all(map(fits, blocks(high))):
        low, high = high, min(2 * high, length)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if all(map(fits, blocks(middle))) else (middle, high)
    return blocks(high)


def _cut_image(
    name: str, shape: tuple[int, ...], at_least: int, fits: Callable[[Block], bool]
) -> list[Block]:
    count, tried = at_least, 0
    while count < prod(shape) and tried < TRIES:
        for steps in sorted(_grids(shape, count), key=lambda steps: _border(shape, steps)):
            tried += 1
            blocks = grid(name, shape, steps)
            if all(map(fits, blocks)):
                return blocks
        count += max(count // 8, 1)
    return []


def _grids(shape: tuple[int, ...], count: int) -> Iterator[tuple[int, int, int]]:
    """Yield the steps along the axes that cut an image into about so many blocks, and not more."""
    channels, height, width = shape
    for c in range(1, min(channels, count) + 1):
        for h in range(1, min(height, count // c) + 1):
            w = min(count // (c * h), width)
            steps = (even(channels, c), even(height, h), even(width, w))
            if prod(ceil(n / step) for n, step in zip(shape, steps, strict=True)) >= 0.9 * count:
                yield steps


def _border(shape: tuple[int, ...], steps: tuple[int, int, int]) -> int:
    """Return the neurons along the edges of the blocks, and all of them once more per cut of the channels."""
    c, h, w = (ceil(n / step) for n, step in zip(shape, steps, strict=True))
    return shape[0] * ((h - 1) * shape[2] + (w - 1) * shape[1]) + (c - 1) * prod(shape)
