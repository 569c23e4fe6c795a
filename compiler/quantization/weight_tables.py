"""Integer weight tables of a projection: one table, several by sign or by target, or two that add up.

    one         per-tensor: a table with one exponent
    sign        sign-split: positive and negative weights apart, one bit finer each, the same synops
    group       row-grouped: targets (rows) of similar magnitude share an exponent; the same synops and nearly
                the same memory
    residual    a coarse table and one of its residual: about twice the bits, memory and synops

The range of a table is chosen by error, not by the largest weight: a smaller exponent clips a few weights and
makes all others finer.
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
"""Exponents that are tried per table: that of its largest weight, and smaller ones, which clip."""

GROUPS = 4
"""Most groups of targets per projection."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TableFormat:
    """Format of a projection's weights: bits per table (1 to 8), and the kind of split."""

    bits: int = 8
    tables: str = "one"


@dataclass(frozen=True, eq=False)
class SplitWeights:
    """Tables that add up to a projection's weights.

    `holds`: mask of the values that a part holds, None for a coarse part that stays as it is. `lsb`: distance
    to the nearest other sum that can be held, per value.
    """

    parts: tuple[RoundedWeights, ...]
    holds: tuple[Mask | None, ...]
    lsb: Float

    def values(self) -> Float:
        """Return the weights that the tables add up to."""
        return np.asarray(np.sum([part.values() for part in self.parts], axis=0), np.float64)

    def limits(self) -> tuple[Float, Float]:
        """Return the smallest and the largest sum that the tables can hold, per value."""
        low, high = np.zeros_like(self.lsb), np.zeros_like(self.lsb)
        for part, holds in zip(self.parts, self.holds, strict=True):
            bottom, top = (
                np.float64(x * 2.0**part.exponent) for x in weight_range(part.bits, part.sign_mode)
            )
            low = low + (part.values() if holds is None else np.where(holds, bottom, 0.0))
            high = high + (part.values() if holds is None else np.where(holds, top, 0.0))
        return low, high

    def moved(self, values: Float) -> SplitWeights:
        """Return tables that add up to `values`: whole steps from the present ones, within limits."""
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
        """Return the number of weights more than half an LSB beyond the limits."""
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
    """Round weights, in units of the chip's synaptic input, to tables of the format `how`.

    `importance` weights the squared error of each value (default: all equal); `rows` is the target of each
    value (default: the first axis). `graded`: messages are numbers, so that steps below 1 matter. A split
    with nothing to split gives one table.
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
    """Return one table per mask."""
    parts = [_least_error(np.where(mask, exact, 0.0), bits, exponents, importance) for mask in masks]
    lsb = np.sum([np.where(mask, part.step, 0.0) for mask, part in zip(masks, parts, strict=True)], axis=0)
    return SplitWeights(tuple(parts), tuple(masks), np.asarray(lsb, np.float64))


def _least_error(
    exact: Float, bits: int, exponents: tuple[int, int], importance: Float | None
) -> RoundedWeights:
    """Round to one table, clipping where that reduces the squared error."""
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
    """Return masks of targets whose largest weights need the same exponent."""
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
    """Return the table of a coarse table's residual; None if the chip's sums are not that fine.

    With spikes a step below 1 is lost when the table's sum is shifted right.
    """
    finest = exponents[0] if graded else max(exponents[0], ceil(-log2(weight_step(bits, "mixed"))))
    fine = round_weights(left, bits, (finest, exponents[1]))
    return fine if fine.weights.any() else None
