"""The group Lasso, solved to a stated duality gap: read-out weights of few neurons, out of many candidates.

    minimise over V, v0    1/2 || C V + 1 v0' - Y ||^2 + beta sum_i || V_i ||

C (samples, columns) holds what each candidate neuron does for each sample, Y (samples, outputs) the targets,
V_i the row of a column; the intercept v0 is free, or absent. For one output it is the Lasso. The dual is to
maximise <Z, Y> - 1/2 ||Z||^2 under || Z' c_i || <= beta (and, with an intercept, columns of Z that sum
to 0), so a multiple of the residual bounds the optimum from below, and the difference to the objective is a
certificate, whatever the way to the solution was.

The way is block coordinate descent on the Gram matrix of a working set, extrapolated by Anderson's method
every few sweeps (Bertrand & Massias 2021), and columns that violate the dual's constraints join the working
set until none does. scikit-learn's MultiTaskLasso solves the same problem without extrapolation: on columns
as alike as the spike counts of random neurons it takes several times as many sweeps, each of them dearer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from snn_compile.compiler.network import Float
from snn_compile.targets.errors import SnnCompileError

TOLERANCE = 1e-7
"""The duality gap, as a share of the objective, at which a solution counts as one."""

SWEEPS = 100_000
MEMORY = 5
"""Sweeps that an extrapolation looks back on."""

CHECKED = 5
"""Extrapolations between two looks at the gap."""

JOINING = 64
"""Columns that join the working set at once, at least; never more than there are in it already."""

CHUNK = 1 << 22
"""Values of C that are in float64 at once."""

ROUNDING = 1e-14
"""A gap below this share of the targets' square is lost in the rounding of objectives."""

INNER = 0.3
"""Share of the gap still allowed that a working set is solved to."""


@dataclass(frozen=True, eq=False)
class GroupLasso:
    """A solution and its certificate.

    `weights` (columns, outputs), `intercept` (outputs,), `residual` (samples, outputs) is Y - C V - v0.
    `objective` - `gap` is a lower bound of the optimum. `active`: columns whose weights are not all 0.
    """

    weights: Float
    intercept: Float
    residual: Float
    objective: float
    gap: float
    sweeps: int

    @property
    def active(self) -> npt.NDArray[np.intp]:
        """Return the columns with a weight."""
        return np.flatnonzero(np.any(self.weights != 0, axis=1))

    @property
    def relative_gap(self) -> float:
        """Return the gap as a share of the objective."""
        return self.gap / self.objective if self.objective > 0 else 0.0


def group_lasso(
    columns: npt.NDArray[np.generic],
    targets: Float,
    beta: float,
    *,
    intercept: bool = True,
    tolerance: float = TOLERANCE,
    start: Float | None = None,
    sweeps: int = SWEEPS,
) -> GroupLasso:
    """Return the solution for `columns` C (samples, columns) and `targets` Y (samples, outputs).

    `tolerance` is the gap as a share of the objective; `start` weights to begin with. Raises SnnCompileError
    where numbers are not finite or shapes do not fit, and where the gap is not reached in so many `sweeps`.
    """
    targets = np.asarray(targets, np.float64)
    _check(columns, targets, beta)
    problem = _Problem.of(columns, targets, intercept)
    square = float(np.square(problem.centred).sum())
    weights = np.zeros((columns.shape[1], targets.shape[1])) if start is None else start.copy()
    chosen = np.flatnonzero(np.any(weights != 0, axis=1))
    gram, done = problem.gram(chosen, chosen), 0
    while True:
        residual = problem.residual(weights, chosen)
        slope = problem.against(residual)
        objective, gap = _gap(problem.centred, residual, slope, weights, beta)
        if gap <= max(tolerance * objective, ROUNDING * square):
            return _solution(problem, weights, residual, objective, gap, done)
        if done >= sweeps:
            raise SnnCompileError(
                f"group Lasso: the duality gap is {gap:.3g}, {gap / objective:.3g} of the objective, after "
                f"{done} sweeps, and {tolerance:g} of it was asked for; take a larger beta than {beta:g}, or "
                "allow a larger gap",
                gap=gap,
                objective=objective,
            )
        joining = _joining(slope, chosen, beta)
        gram = problem.grown(gram, chosen, joining)
        chosen = np.concatenate([chosen, joining])
        weights[chosen], taken = _solve(
            gram,
            slope[chosen] + gram @ weights[chosen],
            weights[chosen],
            beta,
            square,
            INNER * gap,
            sweeps - done,
        )
        done += taken


def _check(columns: npt.NDArray[np.generic], targets: Float, beta: float) -> None:
    if columns.ndim != 2 or targets.ndim != 2 or len(columns) != len(targets):
        raise SnnCompileError(
            f"group Lasso: columns {columns.shape} and targets {targets.shape}; they must be (samples, "
            "columns) and (samples, outputs)"
        )
    if not (np.isfinite(beta) and beta > 0):
        raise SnnCompileError(f"group Lasso: beta is {beta}; it must be a positive number")
    if not (np.isfinite(columns).all() and np.isfinite(targets).all()):
        raise SnnCompileError("group Lasso: a column or target is not finite")


@dataclass(frozen=True, eq=False)
class _Problem:
    """Columns and targets; with an intercept both are taken about their means (columns as they are read)."""

    columns: npt.NDArray[np.generic]
    means: Float
    centred: Float
    target_means: Float

    @classmethod
    def of(cls, columns: npt.NDArray[np.generic], targets: Float, intercept: bool) -> _Problem:
        if not intercept:
            return cls(columns, np.zeros(columns.shape[1]), targets, np.zeros(targets.shape[1]))
        means = targets.mean(axis=0)
        return cls(columns, columns.mean(axis=0, dtype=np.float64), targets - means, means)

    def _blocks(self) -> range:
        return range(0, len(self.columns), max(1, CHUNK // max(1, self.columns.shape[1])))

    def _block(self, first: int, which: npt.NDArray[np.intp] | slice) -> Float:
        part = self.columns[first : first + self._blocks().step]
        return part[:, which].astype(np.float64) - self.means[which]

    def gram(self, left: npt.NDArray[np.intp], right: npt.NDArray[np.intp]) -> Float:
        """Return the scalar products of two sets of columns."""
        found = np.zeros((len(left), len(right)))
        for first in self._blocks():
            a = self._block(first, left)
            found += a.T @ (a if right is left else self._block(first, right))
        return found

    def grown(self, gram: Float, chosen: npt.NDArray[np.intp], joining: npt.NDArray[np.intp]) -> Float:
        """Return the Gram matrix with further columns behind the chosen ones."""
        if not len(joining):
            return gram
        side = self.gram(chosen, joining)
        return np.block([[gram, side], [side.T, self.gram(joining, joining)]])

    def against(self, residual: Float) -> Float:
        """Return C' R (columns, outputs)."""
        found = np.zeros((self.columns.shape[1], residual.shape[1]))
        for first in self._blocks():
            part = self._block(first, slice(None))
            found += part.T @ residual[first : first + len(part)]
        return found

    def residual(self, weights: Float, chosen: npt.NDArray[np.intp]) -> Float:
        """Return Y - C V about the means, for weights that are 0 outside the chosen columns."""
        found = self.centred.copy()
        if len(chosen):
            for first in self._blocks():
                part = self._block(first, chosen)
                found[first : first + len(part)] -= part @ weights[chosen]
        return found


def _gap(targets: Float, residual: Float, slope: Float, weights: Float, beta: float) -> tuple[float, float]:
    """Return the objective and its distance from the dual's best multiple of the residual."""
    square, inner = float(np.square(residual).sum()), float((targets * residual).sum())
    objective = 0.5 * square + beta * float(np.linalg.norm(weights, axis=1).sum())
    return objective, objective - _dual(
        square, inner, float(np.linalg.norm(slope, axis=1).max(initial=0)), beta
    )


def _dual(square: float, inner: float, steepest: float, beta: float) -> float:
    """Return the dual at the best feasible multiple of a residual R, of ||R||^2 and <Y, R>."""
    most = beta / steepest if steepest > beta else 1.0
    share = min(max(inner / square, 0.0), most) if square > 0 else 0.0
    return share * inner - 0.5 * share**2 * square


def _joining(slope: Float, chosen: npt.NDArray[np.intp], beta: float) -> npt.NDArray[np.intp]:
    """Return the columns that violate the dual's constraints most, of those that are not chosen yet."""
    size = np.linalg.norm(slope, axis=1)
    size[chosen] = 0.0
    found = np.flatnonzero(size > beta)
    order = np.argsort(-size[found], kind="stable")
    return found[order[: max(JOINING, len(chosen))]]


def _solution(
    problem: _Problem, weights: Float, residual: Float, objective: float, gap: float, sweeps: int
) -> GroupLasso:
    intercept = problem.target_means - problem.means @ weights
    return GroupLasso(weights, intercept, residual, objective, max(gap, 0.0), sweeps)


def _solve(
    gram: Float, products: Float, weights: Float, beta: float, square: float, goal: float, sweeps: int
) -> tuple[Float, int]:
    """Return the weights of a working set, from its Gram matrix and C' Y, and the sweeps they took.

    `goal`: the gap to stop at; `square`: ||Y||^2, with which objective and gap follow from products alone.
    """
    slope, taken = products - gram @ weights, 0
    while taken < sweeps:
        for _ in range(CHECKED):
            weights, slope = _extrapolated(gram, products, weights, slope, beta)
        taken += CHECKED * MEMORY
        slope = products - gram @ weights
        inner = square - float((weights * products).sum())
        rest = max(inner - float((weights * slope).sum()), 0.0)
        objective = 0.5 * rest + beta * float(np.linalg.norm(weights, axis=1).sum())
        if objective - _dual(rest, inner, float(np.linalg.norm(slope, axis=1).max()), beta) <= max(
            goal, ROUNDING * square
        ):
            break
    return weights, taken


def _extrapolated(
    gram: Float, products: Float, weights: Float, slope: Float, beta: float
) -> tuple[Float, Float]:
    """Return weights and slopes after some sweeps and, where it is lower still, an extrapolation of them.

    Slopes are affine in the weights, so the extrapolated ones cost no product with the Gram matrix.
    """
    seen = [(weights, slope)]
    for _ in range(MEMORY):
        weights, slope = weights.copy(), slope.copy()
        _sweep(gram, weights, slope, beta)
        seen.append((weights, slope))
    moves = np.stack([(b[0] - a[0]).reshape(-1) for a, b in zip(seen, seen[1:], strict=False)])
    products_of = moves @ moves.T
    scale = float(np.trace(products_of))
    if scale == 0.0:
        return weights, slope
    shares = np.linalg.lstsq(products_of + 1e-12 * scale * np.eye(MEMORY), np.ones(MEMORY), rcond=None)[0]
    total = float(shares.sum())
    if not np.isfinite(total) or total == 0.0:
        return weights, slope
    shares /= total
    further = sum(share * w for share, (w, _) in zip(shares, seen[1:], strict=True))
    steeper = sum(share * s for share, (_, s) in zip(shares, seen[1:], strict=True))
    if _cost(further, steeper, products, beta) < _cost(weights, slope, products, beta):
        return further, steeper
    return weights, slope


def _cost(weights: Float, slope: Float, products: Float, beta: float) -> float:
    """Return the objective up to a constant."""
    return float(beta * np.linalg.norm(weights, axis=1).sum() - 0.5 * (weights * (products + slope)).sum())


@njit(cache=True)
def _sweep(gram: Float, weights: Float, slope: Float, beta: float) -> None:
    """Minimise over each row of the weights in turn; `slope` is C' (Y - C V) and follows."""
    size, outputs = weights.shape
    new = np.empty(outputs)
    for i in range(size):
        own = gram[i, i]
        if own <= 0.0:
            continue
        square = 0.0
        for k in range(outputs):
            new[k] = slope[i, k] + own * weights[i, k]
            square += new[k] * new[k]
        norm = np.sqrt(square)
        keep = (1.0 - beta / norm) / own if norm > beta else 0.0
        changed = False
        for k in range(outputs):
            new[k] = keep * new[k] - weights[i, k]
            if new[k] != 0.0:
                changed = True
                weights[i, k] += new[k]
        if changed:
            for j in range(size):
                for k in range(outputs):
                    slope[j, k] -= gram[i, j] * new[k]
