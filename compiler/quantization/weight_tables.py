"""Weights to the integer tables that stand for them: one, several by sign or by target, or two that add up.

    one         a table with one exponent
    sign        positive and negative weights apart: a bit finer each, the same synops
    group       targets (rows) of alike magnitude together, each group with its own exponent: the same
                synops and nearly the same memory
    residual    a coarse table, and one of what it leaves: about twice the bits, memory and synops

Where a table's range ends is chosen by error, not by the largest weight: a smaller exponent clips a few
weights and makes all others finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.network import Float
from snn_compile.targets.chips.rounding import RoundedWeights, round_weights
from snn_compile.targets.integer import weight_range, weight_step

KINDS = ("one", "sign", "group", "residual")
CLIPS = 4
"""A table's exponent may be so much smaller than its largest weight asks for."""

GROUPS = 4
"""Groups of targets a projection is cut into at most."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TableFormat:
    """How a projection's weights are held: bits of a table (1 to 8), and the kind of split."""

    bits: int = 8
    tables: str = "one"


@dataclass(frozen=True, eq=False)
class SplitWeights:
    """Tables that add up to a projection's weights.

    `holds` says which values a part holds, None for a coarse part that stays as it is. `lsb`: distance
    of the nearest other sum that can be held, per value.
    """

    parts: tuple[RoundedWeights, ...]
    holds: tuple[Mask | None, ...]
    lsb: Float

    def values(self) -> Float:
        """The weights that the tables add up to."""
        return np.asarray(np.sum([part.values() for part in self.parts], axis=0), np.float64)

    def limits(self) -> tuple[Float, Float]:
        """Return the least and the largest sum that can be held at the place of each value."""
        low, high = np.zeros_like(self.lsb), np.zeros_like(self.lsb)
        for part, holds in zip(self.parts, self.holds, strict=True):
            bottom, top = (
                np.float64(x * 2.0**part.exponent) for x in weight_range(part.bits, part.sign_mode)
            )
            low = low + (part.values() if holds is None else np.where(holds, bottom, 0.0))
            high = high + (part.values() if holds is None else np.where(holds, top, 0.0))
        return low, high

    def moved(self, values: Float) -> SplitWeights:
        """Return tables that add up to `values`, whole steps within the limits from those held now."""
        rest, parts = np.array(values), []
        for part, holds in zip(self.parts, self.holds, strict=True):
            if holds is None:
                rest = rest - part.values()
        for part, holds in zip(self.parts, self.holds, strict=True):
            if holds is not None:
                weights = np.rint(np.where(holds, rest, 0.0) / 2.0**part.exponent).astype(np.int64)
                part = replace(part, weights=weights)
            parts.append(part)
        return replace(self, parts=tuple(parts))

    def clipped(self, exact: Float) -> int:
        """Return how many weights lie more than half a last bit beyond the limits."""
        low, high = self.limits()
        slack = self.lsb * (0.5 + 1e-9)
        return int(np.count_nonzero((exact < low - slack) | (exact > high + slack)))


def split_weights(
    exact: Float,
    how: TableFormat,
    exponents: tuple[int, int],
    importance: Float | None = None,
    rows: npt.NDArray[np.int64] | None = None,
    graded: bool = False,
) -> SplitWeights:
    """Round weights, in units of the chip's synaptic input, to the tables that `how` asks for.

    `importance` weighs the squared error of each value (default: all alike); `rows` is the target of
    each (default: the first axis). `graded`: messages are numbers, so that steps below 1 count. A split
    that has nothing to split gives one table.
    """
    if how.tables == "sign" and np.min(exact, initial=0.0) < 0 < np.max(exact, initial=0.0):
        return _apart([exact >= 0, exact < 0], exact, how.bits, exponents, importance)
    if how.tables == "group" and exact.size:
        return _apart(_groups(exact, how.bits, exponents, rows), exact, how.bits, exponents, importance)
    if how.tables == "residual":
        coarse = round_weights(exact, how.bits, exponents)
        if (fine := _residual(exact - coarse.values(), how.bits, exponents, graded)) is not None:
            everywhere = np.ones(exact.shape, np.bool_)
            return SplitWeights((coarse, fine), (None, everywhere), np.full(exact.shape, fine.step))
    return _apart([np.ones(exact.shape, np.bool_)], exact, how.bits, exponents, importance)


def _apart(
    masks: Sequence[Mask], exact: Float, bits: int, exponents: tuple[int, int], importance: Float | None
) -> SplitWeights:
    """One table for each mask."""
    parts = [_least_error(np.where(mask, exact, 0.0), bits, exponents, importance) for mask in masks]
    lsb = np.sum([np.where(mask, part.step, 0.0) for mask, part in zip(masks, parts, strict=True)], axis=0)
    return SplitWeights(tuple(parts), tuple(masks), np.asarray(lsb, np.float64))


def _least_error(
    exact: Float, bits: int, exponents: tuple[int, int], importance: Float | None
) -> RoundedWeights:
    """Round to one table, clipping where that lessens the squared error."""
    best = round_weights(exact, bits, exponents)
    least = _error(best, exact, importance)
    for clip in range(1, CLIPS):
        if not least:
            break
        tried = round_weights(exact, bits, exponents, clip)
        if (error := _error(tried, exact, importance)) >= least:
            break
        best, least = tried, error
    return best


def _error(rounded: RoundedWeights, exact: Float, importance: Float | None) -> float:
    error = np.square(rounded.values() - exact)
    return float(error.sum() if importance is None else (error * importance).sum())


def _groups(
    exact: Float, bits: int, exponents: tuple[int, int], rows: npt.NDArray[np.int64] | None
) -> list[Mask]:
    """Return masks of targets whose largest weights ask for the same exponent."""
    if rows is None:
        rows = np.broadcast_to(np.arange(exact.shape[0])[:, None], exact.shape)
    largest = np.zeros(int(rows.max()) + 1)
    np.maximum.at(largest, rows.reshape(-1), np.abs(exact).reshape(-1))
    top = 256 - weight_step(bits, "mixed") / 2
    with np.errstate(divide="ignore"):
        need = np.ceil(np.log2(largest / top))
    need = np.clip(need, max(need.max() - GROUPS + 1, exponents[0]), exponents[1])
    return [need[rows] == exponent for exponent in np.unique(need)]


def _residual(left: Float, bits: int, exponents: tuple[int, int], graded: bool) -> RoundedWeights | None:
    """Return the table of what a coarse one left; None if the chip's sums are no finer than that.

    Of single spikes a step below 1 would be lost when the table's sum is shifted right.
    """
    finest = exponents[0] if graded else max(exponents[0], ceil(-log2(weight_step(bits, "mixed"))))
    fine = round_weights(left, bits, (finest, exponents[1]))
    return fine if fine.weights.any() else None
