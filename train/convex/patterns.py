"""What threshold units can do on given data: sign patterns of a hyperplane arrangement, all of them.

A unit without reset that leaks by a factor L has u[t] - theta = phi[t] . w + f[t] b - theta with the
filtered input phi[t] = sum over s <= t of L^(t-s) x[s] and f[t] that of a constant 1: linear in w, b, theta.
Its spikes over all samples and steps are the pattern 1{Phi w > 0} of the stacked rows Phi (samples x steps,
rank r), and N rows in general position have 2 sum_{k<r} C(N-1, k) patterns (Cover 1965).

Every cell of the arrangement has an edge on which r - 1 rows vanish. So for each subset of r - 1 rows, its
null vector, in both directions, is moved to all sides of those rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.signal import lfilter

from snn_compile.compiler.network import Float
from snn_compile.targets.errors import SnnCompileError

SUBSETS_MAX = 200_000
SINGULAR = 1e-9
"""A row, of length 1, that is closer than this to a subset's span, or edge, is taken to lie in it."""


@dataclass(frozen=True, eq=False)
class Patterns:
    """Patterns (patterns, rows), and whether they are all there are: rows in general position."""

    signs: npt.NDArray[np.bool_]
    complete: bool


def arrangement(inputs: Float, decay: float, *, current: bool = False) -> Float:
    """Return the rows Phi (samples * steps, features) of inputs (samples, steps, size).

    Features are the filtered inputs, the filtered constant of a bias `current` if there is one, and -1 for
    the threshold. Without decay, or with a single step, the last two are the same feature: then there is one.
    With both, rows of the same step are never in general position.
    """
    samples, steps, _ = inputs.shape
    phi = filtered(inputs, decay)
    if current and decay and steps > 1:
        constant = np.broadcast_to(filtered(np.ones((1, steps, 1)), decay), (samples, steps, 1))
        phi = np.concatenate([phi, constant], axis=2)
    return np.concatenate([phi, -np.ones((samples, steps, 1))], axis=2).reshape(samples * steps, -1)


def filtered(inputs: Float, decay: float) -> Float:
    """Return inputs (samples, steps, ...) through a leak without a gain: x[t] + decay x[t-1] + ..."""
    return np.asarray(lfilter([1.0], [1.0, -decay], inputs, axis=1))


def enumerate_patterns(rows: Float) -> Patterns:
    """Return the patterns of an arrangement (rows, features).

    Rows that are multiples of each other by a positive number count once. Where rows are not in general
    position the patterns found are patterns, but not all, and `complete` says so. Raises SnnCompileError for
    rows of 0 and for more than SUBSETS_MAX subsets.
    """
    length = np.linalg.norm(rows, axis=1)
    if not np.isfinite(rows).all() or not length.all():
        raise SnnCompileError("patterns: a row of the arrangement is 0 or not finite")
    _, first, back = np.unique(
        np.round(rows / length[:, None], 12), axis=0, return_index=True, return_inverse=True
    )
    distinct = (rows / length[:, None])[first]
    # In coordinates of the space they span: features may depend on each other.
    _, sizes, axes = np.linalg.svd(distinct, full_matrices=False)
    rank = int((sizes > SINGULAR * sizes[0]).sum())
    distinct = distinct @ axes[:rank].T
    if comb(len(distinct), rank - 1) > SUBSETS_MAX:
        raise SnnCompileError(
            f"patterns: {len(distinct)} rows of rank {rank} have {comb(len(distinct), rank - 1)} subsets, "
            f"more than {SUBSETS_MAX}; use a dictionary of witnesses instead",
            rows=len(distinct),
            rank=rank,
        )
    found, complete = _around_edges(distinct, rank)
    signs = np.unpackbits(np.array(sorted(found)), axis=1, count=len(distinct)).astype(bool)
    return Patterns(signs[:, back.reshape(-1)], complete)


def _around_edges(rows: Float, rank: int) -> tuple[set[tuple[int, ...]], bool]:
    """Return the packed patterns next to every edge, and whether all subsets were in general position."""
    sides = np.array(list(product((-1.0, 1.0), repeat=rank - 1))).reshape(2 ** (rank - 1), rank - 1)
    found: set[tuple[int, ...]] = set()
    complete = True
    for subset in combinations(range(len(rows)), rank - 1):
        own = rows[list(subset)]
        _, sizes, axes = np.linalg.svd(own)
        if sizes.min(initial=1.0) < SINGULAR:
            complete = False
            continue
        at = rows @ axes[-1]
        others = np.ones(len(rows), bool)
        others[list(subset)] = False
        margin = np.abs(at[others]).min(initial=1.0)
        if margin < SINGULAR:
            complete = False
            continue
        # Moved so that each row of the subset goes to a side, and no other row changes its own.
        moves = sides @ np.linalg.pinv(own).T @ rows.T
        small = 0.5 * margin / max(float(np.abs(moves).max(initial=0.0)), 1.0)
        for direction in (at, -at):
            there = direction + small * moves
            there[:, ~others] = sides
            found.update(map(tuple, np.packbits(there > 0, axis=1)))
    return found, complete


def widest_witness(rows: Float, pattern: npt.NDArray[np.bool_]) -> tuple[Float, float]:
    """Return w with 1{rows w > 0} = pattern and its margin, the largest there is.

    The margin is the least |row . w| / max |w|, by a linear program; at 0 no w has the pattern.
    """
    side = np.where(pattern, 1.0, -1.0)[:, None] * rows
    size = rows.shape[1]
    solved = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.column_stack([-side, np.ones(len(rows))]),
        b_ub=np.zeros(len(rows)),
        bounds=[(-1.0, 1.0)] * size + [(0.0, None)],
        method="highs",
    )
    if not solved.success:
        raise SnnCompileError(f"patterns: the linear program for a witness failed: {solved.message}")
    w = np.asarray(solved.x[:-1])
    return w, float((side @ w).min())
