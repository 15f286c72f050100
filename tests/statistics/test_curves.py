"""Statistics of membership inference, against scikit-learn, SciPy, brute force and cases worked by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from metrics_samples import SAMPLES, Sample, draw, labels, wins
from smplora.statistics.curves import auc, best_threshold, roc_counts
from smplora.statistics.inputs import cells
from smplora.statistics.intervals import auc_interval, clopper_pearson
from smplora.statistics.many_attacks import family_test
from smplora.statistics.rates import attack_success_rate, tpr_at_fpr
from smplora.statistics.summary import summary

RNG = np.random.default_rng


class Roc(NamedTuple):
    """The points of a curve, from the counts."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def roc_curve(scores: Any, member: Any) -> Roc:
    false, true, thresholds = roc_counts(*cells(scores, member)[:2])
    return Roc(false / false[-1], true / true[-1], thresholds)


def permutation_p_value(scores: Any, member: Any, rng: np.random.Generator, permutations: int) -> float:
    """Of a family of one."""
    return float(family_test([scores], member, rng, permutations=permutations).p[0, 0])


# ROC and AUC


@pytest.mark.parametrize(("scores", "member"), SAMPLES)
def test_roc_and_auc_agree_with_sklearn(scores: NDArray[np.float64], member: NDArray[np.bool_]) -> None:
    roc = roc_curve(scores, member)
    fpr, tpr, thresholds = sklearn_roc_curve(member, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.fpr, fpr, rtol=0, atol=1e-15)
    np.testing.assert_allclose(roc.tpr, tpr, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(roc.thresholds, thresholds)
    assert auc(scores, member) == pytest.approx(roc_auc_score(member, scores), abs=1e-14)
    assert auc(scores, member) == pytest.approx(np.trapezoid(roc.tpr, roc.fpr), abs=1e-14)


@pytest.mark.parametrize(("scores", "member"), SAMPLES)
def test_roc_and_auc_agree_with_brute_force(scores: NDArray[np.float64], member: NDArray[np.bool_]) -> None:
    roc = roc_curve(scores, member)
    assert roc.thresholds.size == np.unique(scores).size + 1
    for fpr, tpr, threshold in zip(roc.fpr, roc.tpr, roc.thresholds, strict=True):
        assert fpr == np.mean(scores[~member] >= threshold)
        assert tpr == np.mean(scores[member] >= threshold)
    assert auc(scores, member) == pytest.approx(wins(scores, member).mean(), abs=1e-14)


def test_roc_gives_tied_scores_one_point() -> None:
    roc = roc_curve([2.0, 1.0, 1.0, 0.0, 2.0], [True, True, False, False, True])
    assert roc.thresholds.tolist() == [math.inf, 2.0, 1.0, 0.0]
    assert roc.fpr.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert roc.tpr == pytest.approx([0.0, 2 / 3, 1.0, 1.0])


@pytest.mark.parametrize(
    ("scores", "member", "expected"),
    [
        ([1.0, 0.0], [True, False], 1.0),
        ([0.0, 1.0], [True, False], 0.0),
        ([1.0, 1.0], [True, False], 0.5),
        ([1.0, 2.0, 3.0], [False, True, False], 0.5),
        ([1.0, 2.0, 2.0], [False, True, False], 0.75),
        ([0.0, -0.0, -1.0], [True, False, False], 0.75),
    ],
)
def test_auc_of_two_and_three_samples(scores: list[float], member: list[bool], expected: float) -> None:
    assert auc(scores, member) == expected
    roc = roc_curve(scores, member)
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    interval = auc_interval(scores, member)
    assert interval.value == expected
    assert 0 <= interval.low <= expected <= interval.high <= 1
    assert interval.high - interval.low >= 0.95  # two samples say next to nothing


# TPR at a fixed FPR


def test_tpr_never_takes_the_nearest_fpr() -> None:
    # 10 non-members; below the score 9 the FPR jumps from 0 to 0.2, which is nearer to 0.15 than 0 is.
    scores = [10.0, 9.0, 9.0, 9.0, 8.0] + [9.0, 9.0] + [0.0] * 8
    member = [True] * 5 + [False] * 10
    assert tpr_at_fpr(scores, member, 0.15).value == 0.2
    assert tpr_at_fpr(scores, member, 0.2).value == 1.0  # exactly at the target is allowed, and so is score 8
    assert tpr_at_fpr(scores, member, 0.199).value == 0.2
    assert tpr_at_fpr(scores[1:], member[1:], 0.15).value == 0.0


@pytest.mark.parametrize("seed", range(40))
def test_tpr_is_the_best_that_the_target_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, n = (int(size) for size in rng.integers(1, 60, size=2))
    scores, member = draw(seed, m, n, tied=seed % 2 == 0)
    for fpr in ("0.001", "0.01", "0.05", "0.1", "0.3", "1"):
        found = tpr_at_fpr(scores, member, float(fpr))
        allowed = [0.0]
        for threshold in scores:
            if Fraction(int(np.sum(scores[~member] >= threshold)), n) <= Fraction(fpr):
                allowed.append(float(np.mean(scores[member] >= threshold)))
        assert found.value == max(allowed)


def test_tpr_interval_is_a_mixture_over_true_thresholds() -> None:
    """Against draws: how many non-members the true threshold has above it, then the rate, given the hits there."""
    scores, member = draw(1, m=40, n=100, shift=1.5)
    rate, rng = tpr_at_fpr(scores, member, 0.1), RNG(0)
    others = np.append(np.inf, np.sort(scores[~member])[::-1])
    place = rng.binomial(100, 0.1, size=40_000) + rng.integers(2, size=40_000)
    hits = (scores[member][:, None] > others[place]).sum(0)
    drawn = rng.beta(hits + 0.5, 40 - hits + 0.5)
    assert (rate.low, rate.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.01)
    assert rate.low < rate.value < rate.high
    assert rate.fpr == 0.1


@pytest.mark.parametrize(("size", "fpr"), [(50, 0.1), (100, 0.05), (500, 0.01)])
def test_tpr_interval_covers_the_rate_at_that_false_positive_rate(size: int, fpr: float) -> None:
    """Clopper-Pearson's, of the hits at the threshold that was used, holds far too seldom (benchmarks/verdicts.py)."""
    rng, member = RNG(1), labels(size, size)
    truth, inside = norm.sf(norm.isf(fpr) - 1.5), 0
    for scores in rng.normal(size=(300, 2 * size)) + 1.5 * member:
        rate = tpr_at_fpr(scores, member, fpr)
        inside += rate.low <= truth <= rate.high
    assert inside / 300 >= 0.93
    for ends in (np.zeros(2 * size), 1.0 * member):
        rate = tpr_at_fpr(ends, member, fpr)
        assert rate.low <= rate.value <= rate.high


@pytest.mark.parametrize(
    ("fpr", "needed"),
    [(0.1, 50), (0.05, 100), (0.01, 500), (0.001, 5000), (1e-4, 50_000), (0.3, 17), (0.07, 72), (0.7, 8), (1.0, 5)],
)
def test_needs_nonmembers_and_resolvable(fpr: float, needed: int) -> None:
    for n, resolvable in ((needed - 1, False), (needed, True)):
        rate = tpr_at_fpr(np.r_[1.0, np.zeros(n)], labels(1, n), fpr)
        assert rate.needs_nonmembers == needed
        assert rate.resolvable is resolvable
        known = rate.as_dict()
        assert known["needs_nonmembers"] == needed
        assert known["resolvable"] is resolvable
        assert [known[name] for name in ("value", "low", "high")] == (
            [1.0, rate.low, 1.0] if resolvable else [None, None, None]
        )


def test_numpy_floats_mean_their_decimal_too() -> None:
    rate = tpr_at_fpr([1.0, 0.0], [True, False], np.float64(0.001))
    assert rate.needs_nonmembers == 5000


# Thresholds


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scores", "member", "expected"),
    [
        ([0.0, 1.0, 3.0, 4.0], [0, 0, 1, 1], 2.0),  # midway in the gap
        ([0.0, 1.0, 2.0, 4.0, 5.0], [0, 0, 1, 0, 1], 1.5),  # TPR - FPR is 2/3 here, 1/2 at 4.5
        ([0.0, 4.0, 5.0, 9.0, 10.0], [0, 1, 0, 0, 1], 9.5),  # 1/2 here, 1/3 at 2
        ([0.0, 2.0, 3.0, 5.0], [0, 1, 0, 1], 4.0),  # 1 and 4 tie in accuracy and gap: the higher one
        ([0.0, 4.0, 5.0, 6.0], [0, 1, 0, 1], 2.0),  # tie: the wider gap
        ([0.0, 1.0, 5.0, 7.0], [0, 1, 0, 1], 6.0),  # tie: the wider gap, on the other side
        ([0.0, 1.0], [1, 0], math.nextafter(1.0, 2.0)),  # inverted: nothing beats accusing nobody
        ([3.0, 3.0, 3.0], [1, 0, 1], math.nextafter(3.0, 4.0)),  # no information
        ([1.0, math.nextafter(1.0, 2.0)], [0, 1], math.nextafter(1.0, 2.0)),  # no float in between
        ([-1.7e308, 1.7e308], [0, 1], 0.0),  # the difference would overflow
        ([1.5e308, 1.7e308], [0, 1], 1.6e308),  # and here the sum
    ],
)
def test_best_threshold_by_hand(scores: list[float], member: list[int], expected: float) -> None:
    assert best_threshold(scores, np.array(member, dtype=bool)) == expected


@pytest.mark.parametrize(("scores", "member"), SAMPLES)
def test_best_threshold_is_best_and_between_scores(scores: NDArray[np.float64], member: NDArray[np.bool_]) -> None:
    def balanced(threshold: float) -> float:
        return float(np.mean(scores[member] >= threshold) + np.mean(scores[~member] < threshold)) / 2

    threshold = best_threshold(scores, member)
    assert balanced(threshold) == pytest.approx(max(balanced(t) for t in scores), abs=1e-14)
    assert threshold - scores[scores < threshold].max() == pytest.approx(scores[scores >= threshold].min() - threshold)


def test_best_threshold_weighs_the_classes_equally() -> None:
    # 30 non-members at 0 and 5 at 2; 2 members at 1, 1 at 3. Plain accuracy would take 2.5.
    scores = np.r_[np.zeros(30), np.full(5, 2.0), 1.0, 1.0, 3.0]
    assert best_threshold(scores, ~labels(35, 3)) == 0.5


def test_attack_success_rate() -> None:
    member = [False, True, False, True, True]
    assert attack_success_rate([False, False, True, True, True], member) == clopper_pearson(3, 5)
    assert attack_success_rate([False] * 5, member) == clopper_pearson(2, 5)  # plain accuracy


# Permutations


def test_permutation_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(0)
    member = labels(15, 20)
    values = np.array([permutation_p_value(rng.normal(size=35), member, rng, 99) for _ in range(600)])
    for alpha in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(values <= alpha) == pytest.approx(alpha, abs=3.5 * math.sqrt(alpha * (1 - alpha) / 600))
    assert values.min() >= 0.01


def test_permutation_p_agrees_with_all_permutations() -> None:
    # 20 ways to choose 3 of 6: two give an AUC of 0 or 1, four are at least as far out as 8/9.
    scores, rng = np.arange(6.0), np.random.default_rng(0)
    top = np.array([False, False, False, True, True, True])
    assert permutation_p_value(scores, top, rng, 4000) == pytest.approx(2 / 20, abs=0.02)
    assert permutation_p_value(scores, ~top, rng, 4000) == pytest.approx(2 / 20, abs=0.02)
    mixed = np.array([False, False, True, False, True, True])
    assert permutation_p_value(scores, mixed, rng, 4000) == pytest.approx(4 / 20, abs=0.025)


def test_permutation_p_extremes() -> None:
    rng = np.random.default_rng(0)
    scores, member = np.r_[np.ones(30), np.zeros(30)], labels(30, 30)
    assert permutation_p_value(scores, member, rng, 199) == 1 / 200
    assert permutation_p_value(-scores, member, rng, 199) == 1 / 200  # two-sided
    assert permutation_p_value(np.full(60, 0.1), member, rng, 199) == 1.0  # ties count as equally far


# Summary


def test_summary_has_the_documented_shape() -> None:
    scores, member = draw(2, m=60, n=500, shift=1.2)
    found = summary(scores, member, scores >= 0.6)
    assert list(found) == [
        "n_members",
        "n_nonmembers",
        "auc",
        "auc_deviation",
        "asr",
        "tpr_at_fpr",
        "roc",
    ]
    assert (found["n_members"], found["n_nonmembers"]) == (60, 500)
    area = auc_interval(scores, member)
    assert found["auc"] == {"value": area.value, "low": area.low, "high": area.high, "method": area.method}
    assert found["auc_deviation"] == pytest.approx(
        {"value": 2 * area.value - 1, "low": 2 * area.low - 1, "high": 2 * area.high - 1}
    )
    rate = attack_success_rate(scores >= 0.6, member)
    assert found["asr"] == {"value": rate.value, "low": rate.low, "high": rate.high}
    assert list(found["tpr_at_fpr"]) == ["0.001", "0.01", "0.05", "0.1"]
    for fpr, rates in found["tpr_at_fpr"].items():
        assert rates == tpr_at_fpr(scores, member, float(fpr)).as_dict()
        assert list(rates) == ["value", "low", "high", "resolvable", "needs_nonmembers"]
    assert [rates["resolvable"] for rates in found["tpr_at_fpr"].values()] == [False, True, True, True]
    assert list(found["roc"]) == ["fpr", "tpr", "band"]


@pytest.mark.parametrize("sample", [*SAMPLES, (np.array([1.0, 0.0]), labels(1, 1)), (np.zeros(9), labels(4, 5))])
def test_summary_survives_strict_json(sample: Sample) -> None:
    found = summary(*sample, sample[0] >= 0.5)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(("scores", "member"), SAMPLES)
def test_summary_thins_the_roc_without_loss(scores: NDArray[np.float64], member: NDArray[np.bool_]) -> None:
    thin, full = summary(scores, member, scores >= 0)["roc"], roc_curve(scores, member)
    points, kept = set(zip(full.fpr, full.tpr, strict=True)), list(zip(thin["fpr"], thin["tpr"], strict=True))
    assert set(kept) <= points
    for fpr, tpr in points - set(kept):  # every dropped point lies on a segment of the thinned curve
        gaps = [
            abs((c - a) * (tpr - b) - (d - b) * (fpr - a))
            for (a, b), (c, d) in pairwise(kept)
            if a <= fpr <= c and b <= tpr <= d
        ]
        assert min(gaps, default=1.0) < 1e-12
    for (a, b), (c, d), (e, f) in zip(kept[:-2], kept[1:-1], kept[2:], strict=True):
        assert abs((c - a) * (f - d) - (d - b) * (e - c)) > 1e-9  # and every point that is left is a corner


def test_thinning_keeps_corners_only() -> None:
    found = summary([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], [True, True, False, False, False, True], [True] * 6)
    assert found["roc"]["fpr"] == [0.0, 0.0, 1.0, 1.0]
    assert found["roc"]["tpr"] == pytest.approx([0.0, 2 / 3, 2 / 3, 1.0])


# Bad input

TAKES_SCORES: list[Callable[[Any, Any], object]] = [
    roc_curve,
    auc,
    auc_interval,
    lambda s, y: tpr_at_fpr(s, y, 0.1),
    best_threshold,
    lambda s, y: permutation_p_value(s, y, np.random.default_rng(0), 9),
    lambda s, y: summary(s, y, np.ones(len(s), dtype=bool)),
]


@pytest.mark.parametrize("statistic", TAKES_SCORES)
@pytest.mark.parametrize(
    ("scores", "member", "message"),
    [
        ([1.0, math.nan, 0.0], [True, False, False], "1 of 3 scores are NaN or infinite"),
        ([math.inf, -math.inf, 0.0], [True, False, False], "2 of 3 scores"),
        ([1.0, 2.0], [True, True], "need members and non-members, got 2 and 0"),
        ([1.0, 2.0], [False, False], "got 0 and 2"),
        ([], [], "got 0 and 0"),
        ([1.0, 2.0], [True, False, False], "both be [n], got shapes (2,) and (3,)"),
        ([[1.0], [2.0]], [[True], [False]], "both be [n], got shapes (2, 1) and (2, 1)"),
        ([1.0, 2.0], [1, 0], "is_member must be boolean"),
    ],
)
def test_bad_samples_raise(
    statistic: Callable[[Any, Any], object], scores: list[Any], member: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        statistic(scores, member)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y, r: auc_interval(s, y, 1.0), "level must lie in"),
        (lambda s, y, r: auc_interval(s, y, 95), "level must lie in"),
        (lambda s, y, r: permutation_p_value(s, y, r, 0), "permutations must be at least 1"),
        (lambda s, y, r: tpr_at_fpr(s, y, 0.0), "fpr must lie in"),
        (lambda s, y, r: tpr_at_fpr(s, y, 1.5), "fpr must lie in"),
        (lambda s, y, r: tpr_at_fpr(s, y, math.nan), "fpr must lie in"),
        (lambda s, y, r: attack_success_rate(s, y), "decisions must be boolean"),
        (lambda s, y, r: summary(s, y, s), "decisions must be boolean"),
        (lambda s, y, r: clopper_pearson(3, 2), "got 3 of 2"),
        (lambda s, y, r: clopper_pearson(-1, 2), "got -1 of 2"),
        (lambda s, y, r: clopper_pearson(0, 0), "got 0 of 0"),
        (lambda s, y, r: clopper_pearson(1, 2, level=0.0), "level must lie in"),
    ],
)
def test_bad_settings_raise(call: Callable[[Any, Any, np.random.Generator], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call([1.0, 0.0, 2.0], [True, False, False], np.random.default_rng(0))


def test_input_is_left_alone_and_order_does_not_matter() -> None:
    scores, member = draw(5, tied=True)
    before = scores.copy()
    first = summary(scores, member, scores >= 0.4)
    np.testing.assert_array_equal(scores, before)
    order = np.random.default_rng(0).permutation(scores.size)
    assert summary(scores[order], member[order], scores[order] >= 0.4) == first
    assert best_threshold(scores[order], member[order]) == best_threshold(scores, member)
