"""Convex reconstruction: patterns counted, optima against brute force, guarantees on converged solves."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.convex.group_lasso import group_lasso
from snn_compile.train.convex.patterns import arrangement, enumerate_patterns, widest_witness
from snn_compile.train.convex.reconstruction import reconstruct, reconstruct_exactly
from snn_compile.train.convex.witnesses import SpikingUnit, columns, random_witnesses

CLASS_A = SpikingUnit(decay=0.7, reset="none", readout="last")


def pattern_count(rows, rank):
    """Return how many patterns rows in general position have: Cover's count (1965)."""
    return 2 * sum(comb(rows - 1, k) for k in range(rank))


def objective_of(c, y, weights, beta):
    """Return the objective of weights with the intercept that is best for them."""
    residual = y - c @ weights
    residual = residual - residual.mean(axis=0)
    return 0.5 * np.square(residual).sum() + beta * np.linalg.norm(weights, axis=1).sum()


def largest_beta(c, y):
    """Return the least penalty for which every weight is 0."""
    return np.linalg.norm(c.T @ (y - y.mean(axis=0)), axis=1).max()


def objective_on(made, x, y):
    """Return the objective of a reconstruction's network, simulated."""
    loss = 0.5 * np.square(made.predict(x) - y).sum()
    return loss + made.beta * np.linalg.norm(made.readout, axis=0).sum()


@pytest.mark.parametrize(
    "rows, rank, count",
    [(6, 2, 12), (8, 3, 58), (10, 3, 92), (8, 4, 128), (12, 3, 134), (15, 3, 212), (7, 5, 114)],
)
def test_all_patterns_are_found(rows, rank, count):
    phi = np.random.default_rng(rows * rank).normal(size=(rows, rank))
    found = enumerate_patterns(phi)
    assert found.complete and len(found.signs) == count == pattern_count(rows, rank)
    assert len({tuple(signs) for signs in found.signs}) == count


@pytest.mark.parametrize("seed", range(4))
def test_patterns_of_steps_are_what_neurons_do_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 3, 2))
    rows = arrangement(x, 0.6)
    found = enumerate_patterns(rows)
    known = {tuple(signs) for signs in found.signs}
    for w in rng.normal(size=(300, 3)):
        u, spikes = np.zeros(4), []
        for t in range(3):
            u = 0.6 * u + x[:, t] @ w[:2]
            spikes.append(u > w[2])
        assert tuple(np.array(spikes).T.ravel()) in known
    for signs in found.signs:
        w, distance = widest_witness(rows, signs)
        assert distance > 0 and ((rows @ w > 0) == signs).all()


def test_rows_that_are_not_in_general_position_are_told():
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(6, 3))
    phi[5] = phi[0] + phi[1]
    assert not enumerate_patterns(phi).complete
    repeated = np.concatenate([phi[:4], 2 * phi[:2]])
    found = enumerate_patterns(repeated)
    assert found.complete and len(found.signs) == pattern_count(4, 3)
    assert (found.signs[:, :2] == found.signs[:, 4:]).all()
    with pytest.raises(SnnCompileError, match="0 or not finite"):
        enumerate_patterns(np.zeros((3, 2)))


def _problem(seed, samples=5, steps=3, size=2, outputs=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, steps, size)), rng.normal(size=(samples, outputs))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("readout", ["last", "mean", "leaky"])
@pytest.mark.parametrize("seed", range(3))
def test_the_convex_optimum_is_the_objective_of_the_simulated_network(seed, readout, outputs):
    x, y = _problem(seed, outputs=outputs)
    unit = SpikingUnit(decay=0.7, reset="none", readout=readout)
    made = reconstruct_exactly(x, y, unit, 0.1)
    assert made.certificate == "global" and made.gap <= 1e-9 and made.margin > 0
    assert made.objective == pytest.approx(objective_on(made, x, y), abs=1e-9)
    assert made.objective < 0.5 * np.square(y).sum()


@pytest.mark.parametrize("seed", range(3))
def test_no_choice_of_neurons_is_better_and_enough_of_them_are_as_good(seed):
    """Every set of m patterns, its own read-out optimal: never below; equal with as many as were used."""
    x, y = _problem(seed, samples=4, steps=2)
    beta, unit = 0.4, CLASS_A
    made = reconstruct_exactly(x, y, unit, beta)
    signs = enumerate_patterns(arrangement(x, unit.decay)).signs
    c = np.unique(signs.reshape(len(signs), 4, 2) @ unit.shares(2), axis=0).T
    used = len(made.active)
    assert 1 <= used <= 4
    for count in range(1, used + 1):
        best = min(
            group_lasso(c[:, list(chosen)], y, beta, intercept=False, tolerance=1e-12).objective
            for chosen in combinations(range(c.shape[1]), count)
        )
        assert best >= made.objective - 1e-9
    assert best == pytest.approx(made.objective, abs=1e-9)


def test_neurons_with_a_reset_are_not_enumerated():
    x, y = _problem(0)
    with pytest.raises(SnnCompileError, match="reset 'value' are not linear"):
        reconstruct_exactly(x, y, SpikingUnit(0.5, "value"), 0.1)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), outputs=st.integers(1, 3), share=st.floats(0.02, 0.9))
def test_the_gap_bounds_the_optimum(seed, outputs, share):
    rng = np.random.default_rng(seed)
    c, y = rng.random((30, 20)).round(), rng.normal(size=(30, outputs))
    beta = share * largest_beta(c, y)
    solved = group_lasso(c, y, beta, tolerance=1e-12)
    assert 0 <= solved.gap <= 1e-9 * max(1.0, solved.objective)
    centred = y - solved.intercept
    assert solved.objective == pytest.approx(objective_of(c, centred, solved.weights, beta), rel=1e-12)
    rough = group_lasso(c, y, beta, tolerance=0.05)
    assert solved.objective <= rough.objective + 1e-12 <= solved.objective + rough.gap + 1e-9
    if outputs == 1:
        other = Lasso(alpha=beta / 30, tol=1e-10, max_iter=100_000).fit(c, y[:, 0])
        assert np.abs(other.coef_ - solved.weights[:, 0]).max() < 1e-4


def test_above_the_largest_beta_nothing_is_left():
    rng = np.random.default_rng(0)
    c, y = rng.random((30, 8)), rng.normal(size=(30, 2))
    assert len(group_lasso(c, y, 1.0001 * largest_beta(c, y)).active) == 0
    assert len(group_lasso(c, y, 0.999 * largest_beta(c, y)).active) == 1


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), reset=st.sampled_from(["none", "value", "subtract"]))
def test_more_witnesses_are_never_worse_nor_is_a_network_that_is_given(seed, reset):
    """G4 and G5: on converged solves, over supersets, and against a network's own neurons and read-out."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(40, 4, 3)), rng.normal(size=(40, 2))
    unit, beta = SpikingUnit(0.8, reset, "mean"), 0.5
    few = random_witnesses(x, unit, 10, rng)
    own = rng.normal(size=(2, 10)) * 0.3
    hybrid = reconstruct(x, y, unit, beta, witnesses=few, fresh=0, rounds=1, intercept=False, tolerance=1e-12)
    given_net = objective_of(columns(x, few, unit), y, own.T, beta)
    assert hybrid.objective <= given_net + 1e-9
    more = reconstruct(x, y, unit, beta, witnesses=few, fresh=20, rounds=1, intercept=False, tolerance=1e-12)
    assert more.objective <= hybrid.objective + 1e-9
    grown = reconstruct(x, y, unit, beta, witnesses=few, fresh=0, rounds=3, climbs=8, tolerance=1e-12)
    assert all(b <= a + 1e-9 for a, b in zip(grown.objectives, grown.objectives[1:], strict=False))
    assert grown.certificate == "dictionary"
    assert grown.objective == pytest.approx(objective_on(grown, x, y), abs=1e-9)


def test_a_dictionary_is_never_below_the_global_optimum():
    for seed in range(4):
        x, y = _problem(seed)
        best = reconstruct_exactly(x, y, CLASS_A, 0.1)
        found = reconstruct(x, y, CLASS_A, 0.1, fresh=50, rounds=4, climbs=20, intercept=False, seed=seed)
        assert found.objective >= best.objective - 1e-9


def test_first_last_xor_is_learned():
    """Is the first of six spikes other than the last? A leak of 1/2 tells every sequence from any other."""
    bits = (np.arange(64)[:, None] >> np.arange(6)) & 1
    x, y = bits[:, :, None].astype(float), (bits[:, :1] ^ bits[:, -1:]) - 0.5
    unit = SpikingUnit(decay=0.5, reset="none", readout="last")
    made = reconstruct(x, y, unit, 0.01, fresh=400, rounds=5, climbs=64, seed=0)
    assert ((made.predict(x) > 0) == (y > 0)).all()


@pytest.mark.parametrize("base", [2])
def test_digits_are_added(base):
    """Two numbers of two digits, the lowest first: the last step knows the sum's digit with its carry."""
    low_a, low_b, a, b = (d.ravel() for d in np.meshgrid(*[np.arange(base)] * 4))
    x = np.stack([np.stack([low_a, a]), np.stack([low_b, b])]).transpose(2, 1, 0).astype(float) / base
    y = (a + b + (low_a + low_b >= base))[:, None].astype(float)
    unit = SpikingUnit(decay=0.5, reset="none", readout="last")
    made = reconstruct(x, y, unit, 0.02, fresh=600, rounds=5, climbs=64, seed=0, tolerance=1e-4)
    assert np.abs(made.predict(x) - y).max() < 0.5
