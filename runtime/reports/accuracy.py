"""Accuracy of a deployed program against its float reference: drop, interval, McNemar's test, classes.

Both classify the same samples, so the interval is for paired proportions: method 10 of Newcombe
1998 ("Improved confidence intervals for the difference between binomial proportions based on paired
data", Statistics in Medicine 17, 2635-2650). It combines the Wilson intervals of both proportions,

    lower = D - sqrt((p1 - l1)^2 - 2 phi (p1 - l1)(u2 - p2) + (u2 - p2)^2)
    upper = D + sqrt((u1 - p1)^2 - 2 phi (u1 - p1)(p2 - l2) + (p2 - l2)^2)

where D = p1 - p2 and phi is the correlation of the 2 x 2 table; a positive numerator ad - bc is
first lowered by n/2, not below 0. Neither SciPy nor statsmodels has it for pairs; the Wilson intervals are
SciPy's, and the tests compare the result with SciPy's paired bootstrap.

McNemar's exact test is the binomial test of the samples that one side alone gets right: if both were
equally good, each would be as likely to fall to either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.errors import WrongInput

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: shares of its samples that are right; `drop` and `interval` in percentage points."""

    label: int
    samples: int
    reference: float
    deployed: float
    drop: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """Shares of right predictions (0-1) over `samples`; `drop` and `interval` in percentage points.

    `reference` is the float network's accuracy; it, `drop` and `interval` are None where only the
    program ran. `only_reference` and `only_deployed` count the samples that one of them alone got
    right. With a prediction per step `samples` counts steps, which depend on each other: no interval, no test
    and no classes. `p_value` is of McNemar's exact test. `detectable`: the smallest drop that would have
    shown, its interval above 0, if as many samples were right deployed alone as now; None if none would.
    Every class has an interval of its own: of twenty classes, one leaves 0 by chance.
    """

    samples: int
    deployed: float
    reference: float | None = None
    drop: float | None = None
    interval: tuple[float, float] | None = None
    only_reference: int = 0
    only_deployed: int = 0
    p_value: float | None = None
    detectable: float | None = None
    classes: tuple[ClassAccuracy, ...] = ()

    @property
    def lost(self) -> int:
        """Samples lost, net: right in float alone minus right deployed alone."""
        return self.only_reference - self.only_deployed

    def verdict(self) -> str:
        """Return the conclusion that the interval allows, as one sentence."""
        if self.reference is None or self.drop is None:
            return f"{self.deployed:.2%} of {self.samples} right; nothing to compare with"
        if self.interval is None:
            return f"{self.lost:+d} of {self.samples} predictions lost; no interval for predictions per step"
        low, high = self.interval
        if low <= 0 <= high:
            least = "no drop" if self.detectable is None else f"no drop below {self.detectable:.2f} points"
            return f"no difference detectable with {self.samples} samples, which would show {least}"
        word = "worse" if self.drop > 0 else "better"
        return (
            f"deployed is {word} by {abs(self.drop):.2f} points "
            f"({CONFIDENCE:.0%} interval of the drop {low:.2f} to {high:.2f})"
        )


def score(
    predictions: npt.NDArray[np.generic],
    labels: npt.ArrayLike,
    reference: npt.NDArray[np.generic] | None = None,
) -> Accuracy:
    """Compare predictions (batch,) or (batch, steps), and those of the reference, with labels.

    Raises WrongInput when shapes differ.
    """
    truth = np.asarray(labels)
    for name, given in (("labels", truth), ("reference predictions", reference)):
        if given is not None and given.shape != predictions.shape:
            raise WrongInput(
                f"{name} have shape {given.shape} and the predictions "
                f"{predictions.shape}; give one for each prediction",
                shape=given.shape,
            )
    right = predictions == truth
    n = int(right.size)
    if reference is None:
        return Accuracy(n, float(right.mean()))
    ideal = reference == truth
    both, neither = int((ideal & right).sum()), int((~ideal & ~right).sum())
    only_reference, only_deployed = int((ideal & ~right).sum()), int((~ideal & right).sum())
    interval = p_value = detectable = None
    classes: tuple[ClassAccuracy, ...] = ()
    if predictions.ndim == 1:
        low, high = paired_interval(both, only_reference, only_deployed, neither)
        interval = (100 * low, 100 * high)
        p_value = mcnemar(only_reference, only_deployed)
        detectable = detectable_drop(n, only_deployed, neither)
        classes = tuple(_class_accuracy(int(c), truth == c, ideal, right) for c in np.unique(truth))
    return Accuracy(
        n,
        float(right.mean()),
        float(ideal.mean()),
        100 * (only_reference - only_deployed) / n,
        interval,
        only_reference,
        only_deployed,
        p_value,
        detectable,
        classes,
    )


def _class_accuracy(
    label: int, own: npt.NDArray[np.bool_], ideal: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]
) -> ClassAccuracy:
    a, b = ideal[own], right[own]
    first, second = int((a & ~b).sum()), int((~a & b).sum())
    low, high = paired_interval(int((a & b).sum()), first, second, int((~a & ~b).sum()))
    drop = 100 * (first - second) / int(own.sum())
    return ClassAccuracy(
        label, int(own.sum()), float(a.mean()), float(b.mean()), drop, (100 * low, 100 * high)
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of McNemar's exact test; 1 without discordant samples."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def detectable_drop(samples: int, only_deployed: int, neither: int) -> float | None:
    """Return the smallest drop in points whose interval lies above 0, or None.

    As many samples as given are right deployed alone, and as many as can be are wrong in both.
    """
    for lost in range(only_deployed + 1, samples - only_deployed + 1):
        wrong = min(neither, samples - lost - only_deployed)
        both = samples - lost - only_deployed - wrong
        if paired_interval(both, lost, only_deployed, wrong)[0] > 0:
            return 100 * (lost - only_deployed) / samples
    return None


def paired_interval(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return Newcombe's method 10 interval of first share - second share, within -1..1."""
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    p1, p2 = first / n, second / n
    low1, high1 = _wilson(first, n, confidence)
    low2, high2 = _wilson(second, n, confidence)
    covariance = float(both * neither - only_first * only_second)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    margins = first * (n - first) * second * (n - second)
    phi = covariance / sqrt(margins) if margins else 0.0

    def length(x: float, y: float) -> float:
        return sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    difference = p1 - p2
    return (
        max(difference - length(p1 - low1, high2 - p2), -1.0),
        min(difference + length(high1 - p1, p2 - low2), 1.0),
    )


def _wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval: Any = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
