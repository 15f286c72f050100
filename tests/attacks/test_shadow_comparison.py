"""LiRA, RMIA and quantile regression against slow twins, closed forms, and data with and without a leak."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm
from sklearn.preprocessing import StandardScaler

from smplora.attacks.methods import lira, quantile
from smplora.attacks.methods.gsa_shadows import CarriedOver
from smplora.attacks.methods.lira import Deviation, LikelihoodRatio
from smplora.attacks.methods.quantile import LEVELS, Quantiles
from smplora.attacks.methods.rmia import FACTORS, Population, dominated, prior
from smplora.attacks.scorers import Boosted
from smplora.attacks.shadow_comparison import Comparison, near_normal
from smplora.core.arrays import Bools, Floats
from smplora.statistics.curves import auc
from smplora.statistics.intervals import auc_interval

MEMBER = np.arange(80) < 40
SCORERS = [LikelihoodRatio, Deviation, Population]


def toy(seed: int, leak: float = 0.0, shadows: int = 8, columns: int = 3, is_member: Bools = MEMBER) -> Comparison:
    """Answers of a difficulty of its own for each image, plus noise, plus ``leak`` where the image was trained on;
    shadows always leak, for a defence that works is not known to."""
    rng = np.random.default_rng(seed)
    n = len(is_member)
    hard = rng.normal(0, 5, (n, 1, columns))
    is_in = np.array([rng.permutation(shadows) < shadows // 2 for _ in range(n)])
    answers = hard + rng.normal(0, 1, (n, shadows, columns)) + 1.5 * is_in[..., None]
    target = hard[:, 0] + rng.normal(0, 1, (n, columns)) + leak * is_member[:, None]
    return Comparison(target, answers, is_in)


def cells(leak: float, seed: int) -> tuple[Floats, Floats]:
    """Aux and test."""
    return toy(seed, leak).packed(), toy(1000 + seed, leak).packed()


def test_packed_signals_unpack() -> None:
    compared = toy(0)
    again = Comparison.unpacked(compared.packed())
    for name in ("target", "shadows", "is_in"):
        np.testing.assert_array_equal(getattr(again, name), getattr(compared, name))


def test_distances_go_on_a_logarithmic_scale_and_keep_their_direction() -> None:
    distances = np.array([[-0.5, -2.0], [-0.1, -8.0]])
    np.testing.assert_allclose(near_normal("secmi+low_pass", distances), -np.log(-distances))
    np.testing.assert_array_equal(near_normal("calibrated_loss", distances), distances)
    assert near_normal("pfami", np.zeros((2, 3, 4))).shape == (2, 12)


@pytest.mark.parametrize("own_spread", [False, True])
def test_online_lira_is_a_ratio_of_normal_densities(own_spread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, with scipy's densities; with many shadows an image has its own spread."""
    monkeypatch.setattr(lira, "MANY", 8 if own_spread else 64)
    aux, test = toy(1), toy(2)
    found = LikelihoodRatio().fit(aux.packed(), MEMBER).score(test.packed())
    for i in range(0, 80, 9):
        expected = 0.0
        for column in range(3):
            for side, sign in ((True, 1), (False, -1)):
                own = test.shadows[i, test.is_in[i] == side, column]
                squares = [
                    ((part := aux.shadows[j, aux.is_in[j] == side, column]) - part.mean()) ** 2 for j in range(80)
                ]
                pooled = np.sqrt(np.sum(squares) / (80 * 3))  # four shadows each, one of them for the mean
                deviation = own.std(ddof=1) if own_spread else pooled
                expected += sign * norm.logpdf(test.target[i, column], own.mean(), deviation)
        assert found[i] == pytest.approx(expected)


def test_lira_with_known_spreads_has_the_closed_form_of_two_gaussians() -> None:
    """Means 2 apart, spread 1: log ratio 2 phi - 2 around the midpoint, whatever the image's difficulty."""
    shadows = np.array([1.0, 3.0, -1.0, 1.0])[None, :, None] + np.array([-1, 1, -1, 1])[None, :, None] * (0.5**0.5 - 1)
    answers = np.concatenate([shadows, shadows + 7])  # sample deviation 1, means 2 and 0; the second image is harder
    phi = np.array([[1.5], [8.5]])
    signals = Comparison(phi, answers, np.array([[True, True, False, False]] * 2)).packed()
    scores = LikelihoodRatio().fit(signals, np.array([True, False])).score(signals)
    np.testing.assert_allclose(scores, [1.0, 1.0])
    np.testing.assert_allclose(Deviation().fit(signals, np.array([True, False])).score(signals), [1.5, 1.5])


def test_offline_lira_ranks_as_the_probability_of_a_smaller_answer() -> None:
    aux, test = toy(1, columns=1), toy(2, columns=1)
    found = Deviation().fit(aux.packed(), MEMBER).score(test.packed())
    outside = [aux.shadows[i, ~aux.is_in[i], 0] for i in range(80)]
    deviation = np.sqrt(np.mean([part.var(ddof=1) for part in outside]))
    means = np.array([test.shadows[i, ~test.is_in[i], 0].mean() for i in range(80)])
    np.testing.assert_allclose(ndtr(found), norm.cdf(test.target[:, 0], means, deviation))


def test_offline_attacks_do_not_look_at_shadows_that_trained_on_the_image() -> None:
    aux, test = toy(1), toy(2)
    changed = [Comparison(c.target, c.shadows + 100.0 * c.is_in[..., None], c.is_in) for c in (aux, test)]
    before = Deviation().fit(aux.packed(), MEMBER).score(test.packed())
    after = Deviation().fit(changed[0].packed(), MEMBER).score(changed[1].packed())
    np.testing.assert_allclose(after, before, rtol=1e-9)
    rmia = Population().fit(aux.packed(), MEMBER)  # chooses a on shadows, whose own images are known
    np.testing.assert_array_equal(rmia.score(changed[1].packed()), rmia.score(test.packed()))


def waves(n: int, start: int) -> Floats:
    """Probabilities of n images under ten models, by formula rather than by a generator that may change."""
    return (np.sin(1.7 * np.arange(start, start + 10 * n)) + 1.05).reshape(n, 10) / 2.1


def halves(n: int, start: int) -> Bools:
    """Which of ten models, in complementary pairs, saw each of n images: [n, 10]."""
    first = np.cos(np.arange(start, start + 5 * n)).reshape(n, 5) > 0
    return np.stack([first, ~first], 2).reshape(n, 10)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (0.0, [10, 1, 13, 13, 3, 7, 16, 7]),
        (0.3, [10, 1, 15, 14, 3, 7, 15, 7]),
        (1.0, [10, 2, 19, 15, 2, 7, 13, 7]),
    ],
)
def test_rmia_has_the_scores_of_the_authors_code(factor: float, expected: list[int]) -> None:
    """Of attacks.py of privacytrustlab/ml_privacy_meter at e384af8. How to get them anew, in a folder with that file:

    from attacks import run_rmia
    z = np.where(seen, 0, waves(19, 500)); seen is halves(19, 300) with column 0 set to False
    19 * run_rmia(0, waves(8, 0), z, halves(8, 100), num_reference_models=4, offline_a=factor)

    Model 0 is attacked; its pair, model 1, helps nobody. The zeros keep references that saw z out of p(z): the code
    takes the four largest of eight, since there no reference has seen the population.
    """
    ratios = []
    for p, is_in in ((waves(8, 0), halves(8, 100)), (waves(19, 500), halves(19, 300))):
        outside = Comparison(p[:, :1], p[:, 2:, None], is_in[:, 2:]).mean(False)
        ratios.append(p[:, :1] / prior(outside, factor))
    np.testing.assert_allclose(19 * dominated(*ratios), expected)


def odds_inverted(phi: Floats, compared: Comparison) -> Floats:
    """The probabilities that RMIA reads off phi, which is standardised by the aux non-members."""
    outside = compared.target[~MEMBER]
    return 1 / (1 + np.exp(-(phi - outside.mean(0)) / outside.std(0)))


def slow_rmia(p: Floats, shadows: Floats, is_in: Bools, others: list[int], a: float) -> list[list[float]]:
    """p(x | theta) / p(x) by image and column; p [n, k], shadows [n, N, k]."""
    found = []
    for i in range(len(p)):
        outside = np.mean([shadows[i, j] for j in others if not is_in[i, j]], 0)
        found.append([p[i, c] / ((1 + a) / 2 * outside[c] + (1 - a) / 2) for c in range(p.shape[1])])
    return found


def slow_shares(ratios: list[list[float]], population: list[list[float]]) -> list[float]:
    """Of the population, with a vote of the columns."""
    return [
        float(np.mean([sum(x / z > 1 for x, z in zip(r, q, strict=True)) >= 2 for q in population])) for r in ratios
    ]


def test_rmia_is_the_paper_written_out() -> None:
    """Image by image, three columns that vote; a is the one with which the shadows are attacked best, each by the
    others."""
    aux, test = toy(1, leak=1.0), toy(2, leak=1.0)
    scorer = Population().fit(aux.packed(), MEMBER)
    shadows = odds_inverted(aux.shadows, aux)
    means = []
    for a in FACTORS:
        aucs = []
        for j in range(8):
            ratios = slow_rmia(shadows[:, j], shadows, aux.is_in, [o for o in range(8) if o != j], a)
            inside = aux.is_in[:, j]
            population = [r for r, known in zip(ratios, inside, strict=True) if not known]
            aucs.append(auc(slow_shares(ratios, population), inside))
        means.append(np.mean(aucs))
    assert scorer.factor == FACTORS[int(np.argmax(means))]
    every = list(range(8))
    population = slow_rmia(odds_inverted(aux.target, aux), shadows, aux.is_in, every, scorer.factor)[40:]
    ratios = slow_rmia(
        odds_inverted(test.target, aux), odds_inverted(test.shadows, aux), test.is_in, every, scorer.factor
    )
    np.testing.assert_allclose(scorer.score(test.packed()), slow_shares(ratios, population))


def test_rmia_chooses_a_by_how_far_members_outdo_shadows_without_them() -> None:
    """a = 1 means p_in = p_out: right where images' own difficulty is all there is, wrong where members are sure."""
    hard, sure = toy(1, shadows=16, columns=1), toy(1, shadows=16, columns=1)
    sure = Comparison(sure.target / 20, np.where(sure.is_in[..., None], 3.0, sure.shadows / 20), sure.is_in)
    chosen = [Population().fit(c.packed(), MEMBER).factor for c in (hard, sure)]
    assert chosen[0] > chosen[1]


def test_half_of_the_columns_are_no_majority() -> None:
    ratios = np.array([[2.0, 1.0], [2.0, 2.0], [1.0, 1.0]])
    np.testing.assert_array_equal(dominated(ratios, np.array([[1.0, 1.0], [3.0, 0.5]])), [0.0, 0.5, 0.0])


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_planted_leak_is_found_in_the_direction_of_the_theory(scorer: type) -> None:
    aux, test = cells(1.5, seed=3)
    assert auc(scorer().fit(aux, MEMBER).score(test), MEMBER) > 0.85
    turned = toy(7, leak=-1.5).packed()  # members answered worse: no fitted sign turns it round
    assert auc(scorer().fit(turned, MEMBER).score(turned), MEMBER) < 0.3


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_leak_is_not_found(scorer: type) -> None:
    """The interval contains 0.5 in at least 93 of 100 runs, though the shadows leak."""
    hits = 0
    for seed in range(100):
        aux, test = cells(0.0, seed)
        interval = auc_interval(scorer().fit(aux, MEMBER).score(test), MEMBER).bounds()
        hits += interval["low"] <= 0.5 <= interval["high"]
    assert hits >= 93


@pytest.mark.parametrize("scorer", SCORERS)
def test_what_is_fitted_does_not_depend_on_the_test_cells(scorer: type) -> None:
    aux, test = cells(1.0, seed=5)
    fitted = scorer().fit(aux, MEMBER)
    np.testing.assert_allclose(fitted.score(test[::3]), fitted.score(test)[::3])


def looks(seed: int, leak: float) -> tuple[Floats, Floats]:
    """Aux and test as ``Quantiles`` takes them: a score that hangs on the first of three features."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        features = rng.normal(size=(80, 3))
        scores = 4 * features[:, 0] + rng.normal(0, 1, 80) + leak * MEMBER
        found.append(np.column_stack([scores, features]))
    return found[0], found[1]


def test_quantiles_minimise_the_pinball_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all lines through two points, among which the best line is."""
    monkeypatch.setattr(quantile, "PENALTY", 0.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=24)
    data = np.column_stack([x + rng.normal(size=24), x])
    scorer = Quantiles().fit(data, np.zeros(24, dtype=bool))
    y, x = scorer.scaler.transform(data).T
    for level, model in zip(LEVELS, scorer.models, strict=True):

        def pinball(line: Floats, level: float = level) -> float:
            over = y - line
            return float(np.mean(np.maximum(level * over, (level - 1) * over)))

        slopes = [(i, (y[j] - y[i]) / (x[j] - x[i])) for i in range(24) for j in range(i)]
        best = min(pinball(y[i] + slope * (x - x[i])) for i, slope in slopes)
        assert pinball(model.predict(x[:, None])) == pytest.approx(best)


def test_a_share_of_nonmembers_lies_above_its_quantile() -> None:
    aux, _ = looks(0, leak=2.0)
    scorer = Quantiles().fit(aux, MEMBER)
    scaled = scorer.scaler.transform(aux[~MEMBER])
    for level, model in zip(LEVELS, scorer.models, strict=True):
        assert np.mean(scaled[:, 0] > model.predict(scaled[:, 1:])) == pytest.approx(1 - level, abs=0.1)


def test_quantiles_look_at_nonmembers_only() -> None:
    aux, test = looks(1, leak=2.0)
    other = aux.copy()
    other[MEMBER] += 50.0
    np.testing.assert_array_equal(Quantiles().fit(aux, MEMBER).score(test), Quantiles().fit(other, MEMBER).score(test))


def test_quantile_regression_finds_what_difficulty_hides() -> None:
    """The leak is half the spread that the features explain."""
    aux, test = looks(2, leak=2.0)
    assert auc(test[:, 0], MEMBER) < 0.75
    assert auc(Quantiles().fit(aux, MEMBER).score(test), MEMBER) > 0.85


def test_trees_learn_on_shadows_and_on_nobodys_membership() -> None:
    """Row by row, as GSA's authors stack their shadow models; labels of the audited adapter change nothing."""
    aux, test = cells(1.5, 0)
    one, other = toy(0, 1.5), toy(1000, 1.5)
    rows = [(one.shadows[i, j], one.is_in[i, j]) for i in range(80) for j in range(8)]
    scaler = StandardScaler().fit([row for row, _ in rows])
    trees = Boosted(0, n_estimators=20)
    trees.fit(scaler.transform([row for row, _ in rows]), np.array([inside for _, inside in rows]))
    expected = trees.score(StandardScaler().fit(one.target).transform(other.target))
    ours = [CarriedOver(Boosted(0, n_estimators=20)).fit(aux, told).score(test) for told in (MEMBER, ~MEMBER)]
    np.testing.assert_allclose(ours[0], expected, atol=1e-5)
    np.testing.assert_array_equal(*ours)
