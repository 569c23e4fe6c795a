"""Slopes of error curves in log-log, with intervals from resampling."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

RESAMPLES = 999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Slope:
    """A slope with the ends of its 95 % interval; NaN where errors of 0 leave them undefined."""

    slope: float
    low: float
    high: float

    def json(self) -> dict[str, float | None]:
        """Return the three as plain values, None for NaN."""
        return {key: None if isnan(value) else value for key, value in asdict(self).items()}

    def text(self) -> str:
        """Return the slope with its interval, for a table."""
        if isnan(self.slope):
            return "-"
        return f"{self.slope:.2f}" + ("" if isnan(self.low) else f" ({self.low:.2f} to {self.high:.2f})")


def log_slope(steps: npt.ArrayLike, errors: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Any:
    """Return the least-squares slope of log(errors) (..., levels) over log(steps) (levels,).

    `weights` (levels,) are proportional to the inverse variance of log(errors); None is equal ones. NaN
    where an error is 0.
    """
    x = np.log(np.asarray(steps, np.float64))
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    x = x - (w * x).sum() / w.sum()
    with np.errstate(divide="ignore"):
        y = np.log(np.asarray(errors, np.float64))
    y = np.where(np.isinf(y), np.nan, y)
    return (w * x * y).sum(-1) / (w * x * x).sum()


def bootstrap_slope(
    steps: Float,
    totals: Float,
    counts: Float,
    curve: Callable[[Any], Any],
    weights: Float | None = None,
    seed: int = 0,
) -> Slope:
    """Return the slope of curve(mean) over `steps`, the mean being sum(totals) / sum(counts) over units.

    `totals` and `counts` are (units, levels); units (blocks of paths, samples) are drawn with replacement,
    the same ones for all levels, and the interval is between percentiles of the slopes (scipy's bootstrap).
    It is undefined with one unit, and where so few units err that some draw has none that does.
    """
    from scipy.stats import bootstrap

    def slope(chosen: Any, axis: int = -1) -> Any:
        axes = np.moveaxis(chosen, axis, 0)
        mean = totals[axes].sum(0) / np.maximum(counts[axes].sum(0), 1e-300)
        return log_slope(steps, curve(mean), weights)

    units = np.arange(len(totals))
    whole = float(slope(units))
    if not np.isfinite(whole) or len(units) < 2:
        return Slope(whole, nan, nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's remark on slopes that are undefined
        drawn = bootstrap(
            (units,),
            slope,
            n_resamples=RESAMPLES,
            vectorized=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    interval = drawn.confidence_interval
    return Slope(whole, float(interval.low), float(interval.high))
