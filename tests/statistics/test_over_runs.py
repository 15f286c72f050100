"""Estimates over seeds and Pareto fronts against closed forms and a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smplora.statistics.intervals import Interval
from smplora.statistics.over_runs import TWO_RUNS, mean_interval, over_seeds, pareto_front


def test_two_values_in_closed_form() -> None:
    """t with one degree of freedom is Cauchy: its 0.975 quantile is tan(0.475 pi); s / sqrt(2) is half the distance."""
    found = mean_interval([1.0, 3.0])
    half = np.tan(0.475 * np.pi)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))


def test_three_values_in_closed_form() -> None:
    """t with two degrees of freedom has the quantile (2p - 1) sqrt(2 / (4 p (1 - p)))."""
    p = 0.95
    found = mean_interval([0.0, 3.0, 6.0], level=0.9)
    quantile = (2 * p - 1) * np.sqrt(2 / (4 * p * (1 - p)))
    assert found.high - found.value == pytest.approx(quantile * 3 / np.sqrt(3))
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_like_scipy() -> None:
    values = np.random.default_rng(0).normal(5, 2, 9)
    found = mean_interval(list(values), 0.99)
    expected = stats.t.interval(0.99, 8, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_equal_values_have_no_width() -> None:
    assert mean_interval([0.7] * 4).low == mean_interval([0.7] * 4).high == pytest.approx(0.7)


def test_one_run_keeps_its_own_interval() -> None:
    own = Interval(0.8, 0.7, 0.9, "DeLong")
    assert over_seeds([own]) is own
    two = over_seeds([own, Interval(0.6, 0.1, 0.9, "DeLong")])
    assert (two.value, two.low, two.high) == (pytest.approx(0.7), 0.6, 0.8)
    assert two.method == TWO_RUNS
    assert over_seeds([own] * 3).method == "Student's t, 3 runs"


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_too_little_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two finite values"):
        mean_interval(values)
    with pytest.raises(ValueError, match="no run"):
        over_seeds([])


def test_fronts_by_hand() -> None:
    points = [(1, 5), (2, 2), (5, 1), (3, 3), (2, 2), (1, 6), (6, 1)]
    assert pareto_front(points).tolist() == [True, True, True, False, True, False, False]
    assert pareto_front([(3.0, 3.0)]).tolist() == [True]
    assert pareto_front(np.empty((0, 2))).tolist() == []


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_fronts_like_the_definition(dimensions: int) -> None:
    points = np.random.default_rng(dimensions).integers(0, 6, (60, dimensions))
    beaten = [
        any(all(o <= p for o, p in zip(other, point, strict=True)) and tuple(other) != tuple(point) for other in points)
        for point in points
    ]
    assert pareto_front(points).tolist() == [not b for b in beaten]


@pytest.mark.parametrize("points", [[1.0, 2.0], [[1.0, float("nan")]], [[1.0, float("inf")]]])
def test_points_that_are_none_are_refused(points: object) -> None:
    with pytest.raises(ValueError, match="finite points"):
        pareto_front(points)  # type: ignore[arg-type]
