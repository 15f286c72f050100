"""Intervals of membership inference's statistics: against naive twins, SciPy, and their own coverage."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from metrics_samples import SAMPLES, labels, wins
from smplora.statistics.intervals import Interval, auc_deviation, auc_interval, clopper_pearson
from verdicts import scores_of


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("scores", "member"), SAMPLES)
def test_auc_interval_agrees_with_its_definition(
    scores: NDArray[np.float64], member: NDArray[np.bool_], level: float
) -> None:
    """All pairs, and a scan of all AUCs for those that the score test does not reject."""
    beats = wins(scores, member)
    m, n = beats.shape
    area = beats.mean()
    variance = sum((beats[i].mean() - area) ** 2 for i in range(m)) / (m - 1) / m
    variance += sum((beats[:, j].mean() - area) ** 2 for j in range(n)) / (n - 1) / n
    t = np.append(np.linspace(0, 1, 100_001), area)
    mean = (m + n) / 2
    v = t * (1 - t) * (1 + (mean - 1) * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)
    ratio = variance / v[-1]
    if ratio < 1:
        wrong = min(area, 1 - area) * min(m, n)
        ratio **= wrong / (wrong + 4)
    inside = t[(area - t) ** 2 <= norm.ppf((1 + level) / 2) ** 2 * ratio * v]

    interval = auc_interval(scores, member, level)
    assert interval.method == "score, Newcombe and DeLong"
    assert interval.value == pytest.approx(area, abs=1e-14)
    assert (interval.low, interval.high) == pytest.approx((inside.min(), inside.max()), abs=2e-5)


@pytest.mark.parametrize("kind", ["normal", "wide", "exponential", "exposed"])
@pytest.mark.parametrize(
    ("n", "area"), [(50, 0.5), (50, 0.8), (50, 0.95), (50, 0.99), (100, 0.65), (100, 0.99), (500, 0.9), (500, 0.99)]
)
def test_auc_interval_covers_the_true_auc(kind: str, n: int, area: float) -> None:
    """Near AUC 1 an interval by DeLong's variance alone, or by the bootstrap, holds too seldom."""
    runs, member = 500, labels(n, n)
    scores = scores_of(kind, area, (runs, n), np.random.default_rng([n, round(100 * area)]))
    intervals = [auc_interval(sample, member) for sample in scores]
    inside = np.mean([i.low <= area <= i.high for i in intervals])
    assert inside >= 0.95 - 0.02 - 0.005  # two standard errors of what covers 0.95


@pytest.mark.parametrize(("m", "n", "area"), [(12, 40, 0.97), (8, 8, 0.97), (30, 60, 0.95)])
def test_auc_interval_covers_in_small_and_unequal_cells(m: int, n: int, area: float) -> None:
    rng, member = np.random.default_rng(8), labels(m, n)
    all_scores = rng.normal(size=(1000, m + n)) + math.sqrt(2) * norm.ppf(area) * member
    intervals = [auc_interval(scores, member) for scores in all_scores]
    assert np.mean([i.low <= area <= i.high for i in intervals]) >= 0.935


@pytest.mark.parametrize(("m", "n"), [(50, 50), (7, 90), (1, 30), (2, 2), (1, 1)])
def test_bound_at_auc_one_is_exact_or_conservative(m: int, n: int) -> None:
    scores = np.concatenate([np.full(m, 2.0) + np.arange(m), -np.arange(n)])
    perfect = auc_interval(scores, labels(m, n))
    assert (perfect.value, perfect.high, perfect.method) == (1.0, 1.0, "Clopper-Pearson")
    assert perfect.low == pytest.approx(0.025 ** (1 / min(m, n)), rel=1e-9)
    inverted = auc_interval(-scores, labels(m, n))
    assert (inverted.value, inverted.low) == (0.0, 0.0)
    assert inverted.high == pytest.approx(1 - perfect.low, rel=1e-9)


def test_bound_at_auc_one_holds_in_the_worst_case() -> None:
    """A member beats all non-members or none: no shape makes AUC = 1 likelier, and the bound is just wide enough."""
    m, n, runs = 12, 40, 3000
    scores, member = np.r_[np.ones(m), np.zeros(n)], labels(m, n)
    area = auc_interval(scores, member).low - 1e-6
    rng = np.random.default_rng(0)
    wrong = 0
    for won in rng.random((runs, m)) < area:
        scores[:m] = np.where(won, 1, -1)
        wrong += auc_interval(scores, member).low > area
    assert 0.017 < wrong / runs < 0.033


def test_equal_scores_give_half_and_a_wide_interval() -> None:
    interval = auc_interval(np.full(41, 0.1), labels(21, 20))
    expected = binomtest(10, 20).proportion_ci(method="exact")
    assert interval.value == 0.5
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    odd = auc_interval(np.full(42, 0.1), labels(21, 21))  # rounds outwards: 10 and 11 of 21
    assert odd.low == pytest.approx(binomtest(10, 21).proportion_ci().low, abs=1e-9)
    assert odd.high == pytest.approx(binomtest(11, 21).proportion_ci().high, abs=1e-9)


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
