from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import bootstrap

from snn_compile.runtime.reports.accuracy import detectable_drop, mcnemar, paired_interval, score
from snn_compile.targets.errors import WrongInput


@pytest.mark.parametrize(
    ("table", "low", "high", "digits"),
    [
        # Altman et al. 2000, Statistics with Confidence, table 6.2.
        ((14, 5, 0, 22), 0.011, 0.226, 3),
        # Bentur et al. 2009, in Fagerland et al. 2014, Statistics in Medicine 33: square-and-add.
        ((1, 1, 7, 12), -0.507, -0.026, 3),
        # Cavo et al. 2012, in the R package contingencytables: square-and-add.
        ((59, 6, 16, 80), -0.1186, -0.0046, 4),
    ],
)
def test_interval_equals_published_ones(
    table: tuple[int, int, int, int], low: float, high: float, digits: int
) -> None:
    assert paired_interval(*table) == (
        pytest.approx(low, abs=0.5 * 10**-digits),
        pytest.approx(high, abs=0.5 * 10**-digits),
    )


def test_interval_by_hand_without_discordant_pairs() -> None:
    # 50 right of 50 twice: Wilson gives 1 / (1 + z^2 / n) to 1, and phi is 0.
    z2 = 1.959963984540054**2
    width = 1 - 1 / (1 + z2 / 50)
    assert paired_interval(50, 0, 0, 0) == (pytest.approx(-width), pytest.approx(width))


@pytest.mark.parametrize("table", [(90, 5, 2, 3), (0, 10, 0, 0), (0, 0, 7, 0), (1, 0, 0, 1)])
def test_interval_turns_around_with_the_pair_and_stays_in_range(table: tuple[int, int, int, int]) -> None:
    both, first, second, neither = table
    low, high = paired_interval(*table)
    low_turned, high_turned = paired_interval(both, second, first, neither)
    assert (low, high) == (pytest.approx(-high_turned), pytest.approx(-low_turned))
    assert -1 <= low <= (first - second) / sum(table) <= high <= 1


@pytest.mark.parametrize(
    ("samples", "shares"),
    [(100, (0.90, 0.05, 0.02, 0.03)), (360, (0.97, 0.010, 0.005, 0.015)), (360, (0.60, 0.10, 0.10, 0.20))],
)
def test_interval_covers_the_true_difference(samples: int, shares: tuple[float, float, float, float]) -> None:
    interval = cache(paired_interval)
    rng = np.random.default_rng(1998)
    truth = shares[1] - shares[2]
    draws = rng.multinomial(samples, shares, size=2000)
    covered = 0
    for table in draws:
        low, high = interval(*(int(n) for n in table))
        covered += low <= truth <= high
    # Nominal 0.95; the standard error of 2000 draws is 0.005. Newcombe reports some excess.
    assert 0.935 < covered / len(draws) < 0.99


def test_score_counts_who_is_right_alone() -> None:
    labels = np.array([0, 1, 2, 3])
    result = score(np.array([0, 1, 0, 0]), labels, np.array([0, 1, 2, 0]))
    assert (result.reference, result.deployed, result.drop) == (0.75, 0.5, 25.0)
    assert (result.only_reference, result.only_deployed, result.lost) == (1, 0, 1)
    assert result.interval is not None and result.interval[0] < 25 < result.interval[1]
    assert result.verdict().startswith("no difference detectable with 4 samples, which would show no drop")


def test_verdict_names_the_direction() -> None:
    labels = np.zeros(100, int)
    bad = np.arange(100) % 2
    assert "worse by 50.00 points" in score(bad, labels, labels).verdict()
    assert "better by 50.00 points" in score(labels, labels, bad).verdict()


def test_predictions_a_step_have_no_interval() -> None:
    labels = np.zeros((5, 3), int)
    result = score(labels, labels, labels)
    assert (result.samples, result.drop, result.interval) == (15, 0.0, None)
    assert (result.p_value, result.detectable, result.classes) == (None, None, ())


def test_mcnemar_equals_published_ones() -> None:
    # Approval ratings of Agresti 1990, Categorical Data Analysis, as in R's exact2x2: 86 against 150.
    assert mcnemar(86, 150) == pytest.approx(3.716e-5, rel=1e-3)
    # By hand: 2 (1 + 7 + 21) / 2**7, 1, and 2 / 2**5.
    assert mcnemar(2, 5) == pytest.approx(58 / 128)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(5, 0) == mcnemar(0, 5) == pytest.approx(2 / 32)


def test_interval_is_near_the_paired_bootstrap() -> None:
    """SciPy's percentile bootstrap of the mean difference resamples pairs; 500 of them are many."""
    rng = np.random.default_rng(7)
    for shares in ((0.80, 0.08, 0.04, 0.08), (0.60, 0.15, 0.05, 0.20), (0.90, 0.03, 0.03, 0.04)):
        table = rng.multinomial(500, shares)
        difference = np.repeat([0, 1, -1, 0], table)
        low, high = paired_interval(*(int(n) for n in table))
        found = bootstrap(
            (difference,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert (low, high) == (pytest.approx(found.low, abs=0.006), pytest.approx(found.high, abs=0.006))


def test_the_smallest_detectable_drop_is_one_that_shows() -> None:
    for samples, gained, neither in ((360, 0, 4), (360, 3, 4), (140, 2, 10), (50, 0, 0)):
        drop = detectable_drop(samples, gained, neither)
        assert drop is not None
        lost = round(drop * samples / 100) + gained
        both = samples - lost - gained - neither
        assert paired_interval(both, lost, gained, neither)[0] > 0
        assert paired_interval(both + 1, lost - 1, gained, neither)[0] <= 0
    assert detectable_drop(3, 0, 0) is None or detectable_drop(3, 0, 0) == 100.0
    assert detectable_drop(2, 1, 0) is None
    smaller = [detectable_drop(n, 0, 0) for n in (100, 1000, 10000)]
    assert smaller == sorted(smaller, reverse=True) and smaller[-1] < 0.1


def test_classes_add_up() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200) * 2
    ideal, made = (np.where(rng.random(200) < share, labels, 9) for share in (0.9, 0.8))
    result = score(made, labels, ideal)
    assert [c.label for c in result.classes] == [0, 2, 4, 6, 8]
    assert sum(c.samples for c in result.classes) == result.samples == 200
    weighted = sum(c.drop * c.samples for c in result.classes) / 200
    assert weighted == pytest.approx(result.drop)
    for c in result.classes:
        own = labels == c.label
        alone = score(made[own], labels[own], ideal[own])
        assert (c.reference, c.deployed, c.drop) == (alone.reference, alone.deployed, alone.drop)
        assert c.interval == alone.interval and c.interval[0] <= c.drop <= c.interval[1]


def test_shapes_must_match() -> None:
    with pytest.raises(WrongInput, match=r"labels have shape \(3,\)"):
        score(np.zeros(4, int), np.zeros(3, int))
    with pytest.raises(WrongInput, match="reference predictions"):
        score(np.zeros(4, int), np.zeros(4, int), np.zeros((4, 2), int))
