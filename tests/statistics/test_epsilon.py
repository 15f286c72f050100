"""Lower bounds on epsilon: known answers, slow twins, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from metrics_samples import draw, labels
from smplora.statistics.epsilon import (
    GuessRule,
    best_guess_rule,
    count_guesses,
    epsilon_bound,
    epsilon_ceiling,
    epsilon_threshold,
    one_run_epsilon,
    one_run_p_value,
)


@pytest.mark.parametrize(("size", "known"), [(100, 3.28), (200, 3.98), (500, 4.91), (1000, 5.60), (2500, 6.52)])
def test_a_perfect_attack_reaches_the_known_ceiling(size: int, known: float) -> None:
    assert epsilon_ceiling(size, size) == pytest.approx(known, abs=0.005)
    assert epsilon_bound(size, size, 0, size) == epsilon_ceiling(size, size)


@pytest.mark.parametrize("delta", [0.0, 0.01])
@pytest.mark.parametrize("counts", [(40, 50, 10, 60), (3, 50, 0, 50), (50, 50, 45, 50), (50, 50, 50, 50), (0, 9, 5, 9)])
def test_epsilon_bound_agrees_with_the_formula(counts: tuple[int, int, int, int], delta: float) -> None:
    hits, m, alarms, n = counts
    tpr = binomtest(hits, m).proportion_ci(0.95, "exact")
    fpr = binomtest(alarms, n).proportion_ci(0.95, "exact")
    ratios = [(tpr.low - delta) / fpr.high, (1 - fpr.high - delta) / max(1 - tpr.low, 1e-300)]
    assert epsilon_bound(*counts, delta) == pytest.approx(math.log(max(1.0, *ratios)), abs=1e-9)


def test_epsilon_bound_uses_both_directions() -> None:
    """Half of the non-members accused and every member: who is not accused is no member."""
    either = epsilon_bound(1000, 1000, 500, 1000), epsilon_bound(500, 1000, 0, 1000)
    assert either[0] == pytest.approx(either[1])
    assert either[0] > 4
    assert epsilon_bound(10, 50, 10, 50) == 0  # guessing proves nothing
    assert epsilon_bound(0, 50, 50, 50) == 0  # nor does a rule that is wrong: its sign is fitted elsewhere


def test_epsilon_bound_is_a_bound() -> None:
    """Randomised response with epsilon 1 is exactly 1-private: the bound exceeds it in at most 5 % of runs."""
    rng, epsilon, size, runs = np.random.default_rng(0), 1.0, 80, 3000
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    hits, alarms = rng.binomial(size, truth, runs), rng.binomial(size, 1 - truth, runs)
    bounds = np.array([epsilon_bound(int(h), size, int(a), size) for h, a in zip(hits, alarms, strict=True)])
    assert (bounds > epsilon).mean() <= 0.05
    assert np.median(bounds) > 0.3  # and is not empty


def test_epsilon_threshold_is_the_best_of_all() -> None:
    for seed in range(4):
        scores, member = draw(seed, tied=seed % 2 == 1)

        def bound(threshold: float, scores: np.ndarray = scores, member: np.ndarray = member) -> float:
            accused = scores >= threshold
            return epsilon_bound(
                int(accused[member].sum()), int(member.sum()), int(accused[~member].sum()), int((~member).sum())
            )

        assert bound(epsilon_threshold(scores, member)) == max(bound(t) for t in scores)


@pytest.mark.parametrize(
    ("guesses", "right", "known"),
    [(50, 50, 2.78), (50, 45, 1.39), (100, 100, 3.49), (100, 90, 1.63), (100, 70, 0.47), (100, 60, 0.05),
     (200, 140, 0.58), (200, 120, 0.16)],
)  # fmt: skip
def test_one_run_known_answers(guesses: int, right: int, known: float) -> None:
    assert one_run_epsilon(guesses, right, guesses) == pytest.approx(known, abs=0.01)
    assert one_run_epsilon(guesses, right, 10 * guesses) == one_run_epsilon(guesses, right, guesses)


@pytest.mark.parametrize(("guesses", "right"), [(30, 25), (10, 10), (40, 20)])
@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-3), (1.5, 1e-3), (2.0, 0.0)])
def test_one_run_p_agrees_with_the_formula(guesses: int, right: int, epsilon: float, delta: float) -> None:
    q = 1 / (1 + math.exp(-epsilon))
    chances = [binom.pmf(k, guesses, q) for k in range(guesses + 1)]
    beta = sum(chances[right:])
    alpha = max(sum(chances[right - i : right]) / i for i in range(1, right + 1))
    expected = min(1.0, beta + 2 * 100 * delta * alpha)
    assert one_run_p_value(guesses, right, 100, epsilon, delta) == pytest.approx(expected, abs=1e-12)


def test_one_run_extremes() -> None:
    assert one_run_epsilon(0, 0, 50) == 0
    assert one_run_epsilon(50, 0, 50) == 0
    assert one_run_epsilon(50, 25, 50) == 0
    assert one_run_epsilon(50, 50, 50, delta=1e-3) < one_run_epsilon(50, 50, 50)
    assert one_run_epsilon(50, 50, 50, level=0.99) < one_run_epsilon(50, 50, 50)


def test_one_run_is_a_bound() -> None:
    """Guessing each of 120 coins through randomised response with epsilon 1."""
    rng, truth = np.random.default_rng(0), math.e / (1 + math.e)
    bounds = [one_run_epsilon(120, int(right), 120) for right in rng.binomial(120, truth, 1500)]
    assert np.mean(np.array(bounds) > 1.0) <= 0.05
    assert np.median(bounds) > 0.5


def test_guesses_take_the_ends_and_never_cut_a_tie() -> None:
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0])
    member = np.array([True, True, False, True, True, False, False, False, True, False])
    assert count_guesses(scores, member, GuessRule(0.3, 0.2)) == (5, 3)
    assert count_guesses(scores, member, GuessRule(0.0, 0.5)) == (5, 4)
    assert count_guesses(scores, member, GuessRule(0.5, 0.5)) == (10, 8)
    tied = np.zeros(10)  # members stand first in files: taking the first few of a tie would read the labels
    assert count_guesses(tied, labels(5, 5), GuessRule(0.5, 0.2)) == (0, 0)
    order = np.random.default_rng(0).permutation(10)
    rule = GuessRule(0.3, 0.3)
    coarse = np.round(scores / 3)
    assert count_guesses(coarse[order], member[order], rule) == count_guesses(coarse, member, rule)


def test_the_best_rule_abstains_where_scores_say_nothing() -> None:
    """Ten of 100 members are certain, the others' scores are noise: guess those ten only."""
    rng = np.random.default_rng(0)
    member = labels(100, 100)
    scores = rng.normal(size=200)
    scores[:10] += 100
    rule = best_guess_rule(scores, member)
    assert rule == GuessRule(0.05, 0.0)
    assert count_guesses(scores, member, rule) == (10, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: epsilon_bound(5, 4, 0, 4), "got 5 of 4"),
        (lambda: epsilon_bound(4, 4, -1, 4), "got -1 of 4"),
        (lambda: epsilon_bound(4, 4, 0, 4, delta=1.0), "delta must lie in"),
        (lambda: epsilon_bound(4, 4, 0, 4, level=95), "level must lie in"),
        (lambda: one_run_epsilon(5, 6, 10), "got 6, 5 and 10"),
        (lambda: one_run_epsilon(5, 4, 3), "got 4, 5 and 3"),
        (lambda: one_run_epsilon(5, 4, 10, delta=-0.1), "delta must lie in"),
        (lambda: one_run_epsilon(5, 4, 10, level=1.0), "level must lie in"),
    ],
)
def test_bad_settings_raise(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
