"""The probability of a mismatch as a function of the step: at least one of many rare events.

    P(dt) = 1 - exp(-c dt^p)

c and p are the most likely ones in a binomial model (its link is the complementary log-log), which takes
counts of 0 as they are. The order p is local: it is near 1 for small steps, and falls where the sensitive
neurons have all changed already.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, log

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

NEAREST = 3
"""Steps of the ladder that the model is fitted to."""


def event_rate(share: Float) -> Float:
    """Return -log(1 - share), a power of the step in the model; NaN where all cases differ."""
    return -np.log1p(-np.where(share < 1, share, np.nan))


@dataclass(frozen=True)
class MismatchModel:
    """P(dt) = 1 - exp(-exp(level) dt^order)."""

    level: float
    order: float

    def share(self, dt: float) -> float:
        """Return the predicted mismatch at a step."""
        return -expm1(-exp(min(self.level + self.order * log(dt), 30.0)))

    def step_for(self, share: float) -> float:
        """Return the step at which the predicted mismatch is `share`."""
        return exp(min(max((log(-np.log1p(-share)) - self.level) / self.order, -600.0), 600.0))


def fit_mismatch(steps: Float, differ: Float, cases: Float) -> MismatchModel:
    """Return the model that makes `differ` of `cases` at each of `steps` most likely.

    Without any mismatch the level is that of one more case that might have differed, and the order 1. The
    order is held between 0.25 and 4.
    """
    from scipy.optimize import minimize

    if not differ.any():
        return MismatchModel(log(1 / cases.max()) - log(steps.max()), 1.0)
    x = np.log(steps)
    middle = float(x.mean())

    def cost(at: Float) -> float:
        rate = np.exp(np.minimum(at[0] + at[1] * (x - middle), 30.0))
        hit = np.log(np.maximum(-np.expm1(-rate), 1e-300))
        return float(-(differ * hit - (cases - differ) * rate).sum() / cases.sum())

    share = float((differ.sum() + 0.5) / (cases.sum() + 1))
    start = np.array([log(-np.log1p(-min(share, 0.999))), 1.0])
    done = minimize(cost, start, method="L-BFGS-B", bounds=[(-60, 20), (0.25, 4.0)], tol=1e-14)
    level, order = (float(value) for value in done.x)
    return MismatchModel(level - order * middle, order)


def fit_nearest(steps: Float, differ: Float, cases: Float, limit: float) -> MismatchModel:
    """Return the model of the steps whose mismatch is nearest the limit, of all if there is none."""
    if not differ.any():
        return fit_mismatch(steps, differ, cases)
    far = np.abs(np.log((differ + 0.5) / (cases + 1) / limit))
    first = min(max(int(far.argmin()) - NEAREST // 2, 0), max(len(steps) - NEAREST, 0))
    while not differ[first : first + NEAREST].any():
        first += 1
    there = slice(first, first + NEAREST)
    return fit_mismatch(steps[there], differ[there], cases[there])
