"""Several attacks at once, low false positive rates, power and the dataset as a whole."""

from __future__ import annotations

import math
import re
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ttest_ind

from metrics_samples import draw, labels
from smplora.statistics.curves import auc
from smplora.statistics.intervals import clopper_pearson
from smplora.statistics.many_attacks import family_test, low_fpr_p_value, surprise
from smplora.statistics.power import dataset_inference_p_value, detectable_auc, null_standard_error
from smplora.statistics.rates import roc_band, tpr_at_fpr


def test_one_attack_needs_no_correction() -> None:
    scores, member = draw(1)
    found = family_test([scores], member, np.random.default_rng(0), permutations=999)
    assert (found.p == found.corrected).all()
    exact = mannwhitneyu(scores[member], scores[~member], method="exact").pvalue
    assert found.p[0, 0] == pytest.approx(exact, abs=3.5 * math.sqrt(exact * (1 - exact) / 999) + 1e-3)


def test_family_p_is_that_of_the_largest_of_all_attacks_and_statistics() -> None:
    """Against all 20 ways to shuffle three of six labels, and weights."""
    attacks = [np.arange(6.0), np.array([0.0, 2.0, 1.0, 5.0, 4.0, 3.0]), np.array([0.0, 1.0, 1.0, 1.0, 2.0, 2.0])]
    member, weights = np.array([False, False, True, False, True, True]), np.array([[4.0, 1.0], [1.0, 1.0], [0.5, 2.0]])
    ways = [np.isin(np.arange(6), way) for way in combinations(range(6), 3)]

    def slowly(scores: np.ndarray, labels: np.ndarray) -> list[float]:
        """-log p of the AUC's normal deviation and of the rate, pair by pair."""
        areas = np.array([auc(scores, way) for way in ways])
        p = math.erfc(abs(auc(scores, labels) - 0.5) / areas.std() / math.sqrt(2))
        return [-math.log(p), -math.log(low_fpr_p_value(scores, labels, 0.34))]

    table = np.array([[slowly(scores, way) for scores in attacks] for way in ways])
    largest = (table + np.log(weights)).max((1, 2))
    found = family_test(attacks, member, np.random.default_rng(0), fprs=(0.34,), weights=weights, permutations=4000)
    observed = np.array([slowly(scores, member) for scores in attacks])
    for place in np.ndindex(3, 2):
        alone = np.mean(table[:, *place] >= observed[place] - 1e-9)
        together = np.mean(largest >= observed[place] + np.log(weights[place]) - 1e-9)
        assert found.p[place] == pytest.approx(alone, abs=0.03)
        assert found.corrected[place] == pytest.approx(together, abs=0.03)


def test_rates_are_looked_at_as_far_down_as_they_go() -> None:
    """However many members stand above the non-members that are allowed, with ties and without."""
    rng, fprs = np.random.default_rng(0), (0.001, 0.05, 0.3, 1.0)
    for shift, digits in ((0.0, 3), (3.0, 3), (9.0, 3), (3.0, 0), (-9.0, 3)):
        member = np.arange(90) < 60
        scores = (rng.normal(size=90) + shift * member).round(digits)
        told = [-math.log(low_fpr_p_value(scores, member, fpr)) for fpr in fprs]
        np.testing.assert_allclose(surprise(scores, member, fprs)[1:], told, atol=1e-9)
        np.testing.assert_allclose([surprise(scores, member, [fpr])[1] for fpr in fprs], told, atol=1e-9)


def test_family_error_is_kept_where_single_tests_break_it() -> None:
    rng, member = np.random.default_rng(0), labels(50, 50)
    runs, attacks, weights = 300, 8, np.r_[20.0, np.ones(15)].reshape(8, 2)
    alone = together = weighed = 0
    for _ in range(runs):
        scores = list(np.round(2 * rng.normal(size=(attacks, 100))))  # with ties
        found = family_test(scores, member, rng, fprs=(0.1,), permutations=199)
        alone += found.p.min() <= 0.05
        together += found.corrected.min() <= 0.05
        found = family_test(scores, member, rng, fprs=(0.1,), weights=weights, permutations=199)
        weighed += found.corrected.min() <= 0.05
    assert alone / runs > 0.2
    for hits in (together, weighed):
        assert hits / runs == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / runs))


def test_copies_of_one_attack_cost_nothing_and_both_sides_count() -> None:
    scores, member = draw(2, m=40, n=40, shift=1.0)
    found = family_test([scores, scores, -scores], member, np.random.default_rng(0), permutations=999)
    assert (found.p == found.corrected).all()
    assert len(set(found.p[:, 0])) == 1


def test_what_has_the_weight_pays_for_it_alone_however_many_others_there_are() -> None:
    rng, member = np.random.default_rng(3), labels(50, 50)
    one = rng.normal(size=100) + 0.6 * member
    alone = family_test([one], member, np.random.default_rng(0), permutations=4999).p[0, 0]
    many = [one, *rng.normal(size=(30, 100))]
    weights = np.r_[0.5, np.full(30, 0.5 / 30)][:, None]
    found = family_test(many, member, np.random.default_rng(0), weights=weights, permutations=4999)
    assert found.corrected[0, 0] <= 2.1 * alone
    equal = family_test(many, member, np.random.default_rng(0), permutations=4999)
    assert equal.corrected[0, 0] > 5 * alone


@pytest.mark.parametrize(("m", "n", "fpr"), [(4, 5, 0.2), (5, 4, 0.25), (3, 6, 0.5), (4, 4, 0.1)])
def test_low_fpr_p_agrees_with_counting_all_labelings(m: int, n: int, fpr: float) -> None:
    scores = np.arange(m + n, dtype=float)[::-1]

    def hits(member: np.ndarray) -> int:
        return round(tpr_at_fpr(scores, member, fpr).value * m)

    labelings = [np.isin(np.arange(m + n), chosen) for chosen in combinations(range(m + n), m)]
    counted = np.array([hits(member) for member in labelings])
    for member, observed in zip(labelings, counted, strict=True):
        expected = np.mean(counted >= observed)
        assert low_fpr_p_value(scores, member, fpr) == pytest.approx(expected, abs=1e-12)


def test_low_fpr_p_is_valid_also_with_ties() -> None:
    rng, member = np.random.default_rng(0), labels(40, 40)
    for tied in (False, True):
        scores = rng.normal(size=(1500, 80))
        scores = np.round(2 * scores) if tied else scores
        p = np.array([low_fpr_p_value(s, member, 0.1) for s in scores])
        for alpha in (0.02, 0.1, 0.3):
            assert (p <= alpha).mean() <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 1500)


@pytest.mark.parametrize(("size", "known"), [(523, 0.55), (267, 0.57), (131, 0.60)])
def test_detectable_auc_known_answers(size: int, known: float) -> None:
    assert detectable_auc(size, size) == pytest.approx(known, abs=2e-4)


@pytest.mark.parametrize(("m", "n", "level"), [(50, 50, 0.95), (30, 90, 0.9875), (100, 100, 0.95)])
def test_power_is_what_simulation_finds(m: int, n: int, level: float) -> None:
    """Normal scores whose AUC is the detectable one; the two-sided rank test rejects in about 80 % of the runs."""
    from scipy.special import ndtri

    rng, member, runs = np.random.default_rng(0), labels(m, n), 600
    shift = math.sqrt(2) * float(ndtri(detectable_auc(m, n, level)))
    limit = float(ndtri((1 + level) / 2)) * null_standard_error(m, n)
    areas = np.array([auc(rng.normal(size=m + n) + shift * member, member) for _ in range(runs)])
    assert (np.abs(areas - 0.5) > limit).mean() == pytest.approx(0.8, abs=0.06)


def test_null_standard_error_is_that_of_the_auc() -> None:
    rng, member = np.random.default_rng(0), labels(20, 35)
    areas = [auc(rng.normal(size=55), member) for _ in range(3000)]
    assert np.std(areas) == pytest.approx(null_standard_error(20, 35), rel=0.05)
    assert [round(null_standard_error(k, k), 3) for k in (100, 200, 500, 1000)] == [0.041, 0.029, 0.018, 0.013]


def test_detectable_auc_extremes() -> None:
    assert detectable_auc(2, 2) == 1.0
    assert detectable_auc(10**6, 10**6) < 0.502
    assert detectable_auc(50, 50, power=0.01) >= 0.5


def test_dataset_inference_p() -> None:
    scores, member = draw(4, m=30, n=50, shift=0.6)
    expected = ttest_ind(scores[member], scores[~member], equal_var=False, alternative="greater").pvalue
    assert dataset_inference_p_value(scores, member) == pytest.approx(expected)
    assert dataset_inference_p_value(-scores, member) == pytest.approx(1 - expected)  # one-sided
    assert dataset_inference_p_value(np.zeros(80), labels(30, 50)) == 1.0
    assert dataset_inference_p_value(np.arange(5.0), labels(1, 4)) == 1.0


def test_dataset_inference_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(0)
    p = np.array([dataset_inference_p_value(rng.normal(size=60), labels(20, 40)) for _ in range(800)])
    for alpha in (0.05, 0.5):
        assert (p <= alpha).mean() == pytest.approx(alpha, abs=3.5 * math.sqrt(alpha * (1 - alpha) / 800))


def test_roc_band_holds_the_true_curve_pointwise() -> None:
    """The true (FPR, TPR) at threshold 0.5 lies in the rectangle of that threshold in at least 95 % of samples."""
    from scipy.stats import norm

    rng, m, n, runs = np.random.default_rng(0), 40, 60, 1500
    fpr, tpr = 1 - norm.cdf(0.5), 1 - norm.cdf(-0.5)
    band = roc_band(rng.binomial(n, fpr, runs), n, rng.binomial(m, tpr, runs), m)
    inside = (band.fpr_low <= fpr) & (fpr <= band.fpr_high) & (band.tpr_low <= tpr) & (tpr <= band.tpr_high)
    assert 0.95 <= inside.mean() < 0.99
    ends = roc_band(np.array([0, n]), n, np.array([0, m]), m)
    assert (ends.fpr_low[0], ends.tpr_low[0], ends.fpr_high[1], ends.tpr_high[1]) == (0, 0, 1, 1)
    assert ends.fpr_high[0] == pytest.approx(clopper_pearson(0, n, 0.975).high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y, r: family_test([], y, r), "at least one attack"),
        (lambda s, y, r: family_test([s], y, r, permutations=0), "permutations must be at least 1"),
        (lambda s, y, r: family_test([s, s[:2]], y, r), "both be"),
        (lambda s, y, r: family_test([s], y, r, weights=[1.0]), "need weights (1, 1)"),
        (lambda s, y, r: family_test([s], y, r, weights=[[-1.0]]), "none is negative"),
        (lambda s, y, r: low_fpr_p_value(s, y, 0.0), "fpr must lie in"),
        (lambda s, y, r: detectable_auc(0, 5), "got 0 and 5"),
        (lambda s, y, r: detectable_auc(5, 5, level=2), "level must lie in"),
        (lambda s, y, r: detectable_auc(5, 5, power=0), "power must lie in"),
        (lambda s, y, r: dataset_inference_p_value([math.nan, 1.0, 2.0], y), "1 of 3 scores"),
        (lambda s, y, r: roc_band(np.array([1]), 2, np.array([1]), 2, 0.0), "level must lie in"),
    ],
)
def test_bad_settings_raise(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call([1.0, 0.0, 2.0], [True, False, False], np.random.default_rng(0))  # type: ignore[operator]
