"""Intervals of membership inference's statistics: against naive twins, SciPy, and their own coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from metrics_samples import SAMPLES, draw, labels, wins
from smplora.statistics.curves import auc
from smplora.statistics.intervals import Interval, auc_deviation, bootstrap_interval, clopper_pearson, delong_interval


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("scores", "member"), SAMPLES)
def test_delong_agrees_with_placement_values(
    scores: NDArray[np.float64], member: NDArray[np.bool_], level: float
) -> None:
    beats = wins(scores, member)
    m, n = beats.shape
    area = beats.mean()
    variance_in = sum((beats[i].mean() - area) ** 2 for i in range(m)) / (m - 1)
    variance_out = sum((beats[:, j].mean() - area) ** 2 for j in range(n)) / (n - 1)
    error = math.sqrt(variance_in / m + variance_out / n)
    half = norm.ppf((1 + level) / 2) * error / (area * (1 - area))

    interval = delong_interval(scores, member, level)
    assert interval.method == "DeLong"
    assert interval.value == pytest.approx(area, abs=1e-14)
    assert interval.low == pytest.approx(expit(logit(area) - half), abs=1e-12)
    assert interval.high == pytest.approx(expit(logit(area) + half), abs=1e-12)


def coverage(m: int, n: int, area: float, runs: int, seed: int) -> tuple[float, float, float]:
    """Shares of normal samples whose interval holds the true AUC, lies below it and lies above it."""
    rng = np.random.default_rng(seed)
    member = labels(m, n)
    all_scores = rng.normal(size=(runs, m + n)) + math.sqrt(2) * norm.ppf(area) * member
    intervals = [delong_interval(scores, member) for scores in all_scores]
    below = float(np.mean([i.high < area for i in intervals]))
    above = float(np.mean([i.low > area for i in intervals]))
    return 1 - below - above, below, above


@pytest.mark.parametrize(("m", "n", "area"), [(50, 50, 0.5), (50, 50, 0.8), (30, 60, 0.95), (150, 150, 0.65)])
def test_delong_covers_the_true_auc(m: int, n: int, area: float) -> None:
    inside, below, above = coverage(m, n, area, runs=1200, seed=7)
    assert 0.93 <= inside <= 0.975
    assert max(below, above) <= 0.045  # and misses on both sides alike


@pytest.mark.parametrize(("m", "n", "area"), [(50, 50, 0.985), (50, 50, 0.999), (12, 40, 0.97), (8, 8, 0.97)])
def test_interval_covers_where_the_auc_is_often_one(m: int, n: int, area: float) -> None:
    inside, _, _ = coverage(m, n, area, runs=1200, seed=8)
    assert inside >= 0.91


@pytest.mark.parametrize(("m", "n"), [(50, 50), (7, 90), (1, 30), (2, 2), (1, 1)])
def test_bound_at_auc_one_is_exact_or_conservative(m: int, n: int) -> None:
    scores = np.concatenate([np.full(m, 2.0) + np.arange(m), -np.arange(n)])
    perfect = delong_interval(scores, labels(m, n))
    assert (perfect.value, perfect.high, perfect.method) == (1.0, 1.0, "Clopper-Pearson")
    assert perfect.low == pytest.approx(0.025 ** (1 / min(m, n)), rel=1e-9)
    inverted = delong_interval(-scores, labels(m, n))
    assert (inverted.value, inverted.low) == (0.0, 0.0)
    assert inverted.high == pytest.approx(1 - perfect.low, rel=1e-9)


def test_bound_at_auc_one_holds_in_the_worst_case() -> None:
    """A member beats all non-members or none: no shape makes AUC = 1 likelier, and the bound is just wide enough."""
    m, n, runs = 12, 40, 3000
    scores, member = np.r_[np.ones(m), np.zeros(n)], labels(m, n)
    area = delong_interval(scores, member).low - 1e-6
    rng = np.random.default_rng(0)
    wrong = 0
    for won in rng.random((runs, m)) < area:
        scores[:m] = np.where(won, 1, -1)
        wrong += delong_interval(scores, member).low > area
    assert 0.017 < wrong / runs < 0.033


def test_equal_scores_give_half_and_a_wide_interval() -> None:
    interval = delong_interval(np.full(41, 0.1), labels(21, 20))
    expected = binomtest(10, 20).proportion_ci(method="exact")
    assert interval.value == 0.5
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    odd = delong_interval(np.full(42, 0.1), labels(21, 21))  # rounds outwards: 10 and 11 of 21
    assert odd.low == pytest.approx(binomtest(10, 21).proportion_ci().low, abs=1e-9)
    assert odd.high == pytest.approx(binomtest(11, 21).proportion_ci().high, abs=1e-9)


def test_bootstrap_agrees_with_naive_resampling_and_delong() -> None:
    scores, member = draw(3, m=60, n=80, tied=True)
    interval = bootstrap_interval(scores, member, np.random.default_rng(0), resamples=3000)
    rng, beats = np.random.default_rng(1), wins(scores, member)
    naive = [beats[rng.integers(60, size=60)][:, rng.integers(80, size=80)].mean() for _ in range(3000)]
    assert interval.value == auc(scores, member)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.008)
    delong = delong_interval(scores, member)
    assert (interval.low, interval.high) == pytest.approx((delong.low, delong.high), abs=0.02)
    narrow = bootstrap_interval(scores, member, np.random.default_rng(0), level=0.5, resamples=500)
    assert interval.low < narrow.low < interval.value < narrow.high < interval.high


def test_bootstrap_depends_on_its_generator_alone() -> None:
    scores, member = draw(4)
    first, again, other = (
        bootstrap_interval(scores, member, np.random.default_rng(seed), resamples=200) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_clopper_pearson_known_answers() -> None:
    few, more = clopper_pearson(2, 200), clopper_pearson(10, 1000)
    assert (few.value, round(few.low, 4), round(few.high, 4)) == (0.01, 0.0012, 0.0357)
    assert (more.value, round(more.low, 4), round(more.high, 4)) == (0.01, 0.0048, 0.0183)
    assert few.method == "Clopper-Pearson"


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 50), (49, 50), (300, 777)])
def test_clopper_pearson_agrees_with_scipy(successes: int, trials: int, level: float) -> None:
    interval = clopper_pearson(successes, trials, level)
    expected = binomtest(successes, trials).proportion_ci(level, method="exact")
    assert interval.value == successes / trials
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_interval_as_dict() -> None:
    assert Interval(0.5, 0.25, 0.75, "DeLong").as_dict() == {
        "value": 0.5,
        "low": 0.25,
        "high": 0.75,
        "method": "DeLong",
    }


@pytest.mark.parametrize(
    ("area", "deviation"),
    [
        ((0.75, 0.625, 0.875), (0.5, 0.25, 0.75)),
        ((0.25, 0.125, 0.375), (0.5, 0.25, 0.75)),
        ((0.625, 0.375, 0.75), (0.25, 0.0, 0.5)),
        ((0.5, 0.125, 0.75), (0.0, 0.0, 0.75)),
        ((0.75, 0.5, 1.0), (0.5, 0.0, 1.0)),
        ((0.0, 0.0, 0.25), (1.0, 0.5, 1.0)),
    ],
)
def test_auc_deviation(area: tuple[float, float, float], deviation: tuple[float, float, float]) -> None:
    assert auc_deviation(Interval(*area, method="m")) == Interval(*deviation, method="m")
