"""Lower bounds on the epsilon of differential privacy that an attack's success proves.

A trainer that is (epsilon, delta)-private allows no attack TPR <= e^epsilon FPR + delta to fail, nor the same with
TNR and FNR. An attack that does better than some epsilon allows therefore proves a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import exp

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrc, betaincinv  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.curves import roc_counts
from smplora.statistics.inputs import Floats, Ints, cells, check_level, tail_of
from smplora.statistics.intervals import clopper_pearson

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)  # of the candidates that may be guessed "in", and likewise "out"
LARGEST = 64.0  # where the search for epsilon ends: e^-64 is below what floats resolve


def epsilon_bound(
    true_positives: int, members: int, false_positives: int, nonmembers: int, delta: float = 0.0, level: float = 0.95
) -> float:
    """Lower bound max(0, ln((TPR_L - delta) / FPR_U), ln((TNR_L - delta) / FNR_U)) on epsilon.

    TPR_L and FPR_U are one-sided Clopper-Pearson bounds at confidence 1 - (1 - level) / 2 each (Bonferroni: both hold
    together with probability ``level``). FNR_U = 1 - TPR_L and TNR_L = 1 - FPR_U are the same two events, so that the
    second direction costs no further correction. The rule that accused must come from other samples.

    Treats the samples of one training run as independent, which they are not to the last: a measure of leakage, and a
    proof against a claimed epsilon only as far as that holds (``one_run_epsilon`` needs no such assumption). Sources:
    Kairouz et al. 2015, "The Composition Theorem for Differential Privacy", Thm. 2.1; Jagielski et al. 2020, "Auditing
    Differentially Private Machine Learning", Sec. 3.

    Raises ValueError for impossible counts, a delta outside [0, 1) or a level outside (0, 1).
    """
    for count, total in ((true_positives, members), (false_positives, nonmembers)):
        clopper_pearson(count, total, level)  # for its checks
    return float(
        _bounds(np.array([true_positives], int), members, np.array([false_positives], int), nonmembers, delta, level)[0]
    )


def _bounds(hits: Ints, members: int, alarms: Ints, nonmembers: int, delta: float, level: float) -> Floats:
    """``epsilon_bound`` of many rules at once."""
    _check_delta(delta)
    tail = tail_of(level)
    with np.errstate(divide="ignore", invalid="ignore"):  # the beta function does not know the ends: they are 0 and 1
        tpr_low = np.where(hits > 0, betaincinv(hits, members - hits + 1, tail), 0.0)
        fpr_high = np.where(alarms < nonmembers, betaincinv(alarms + 1, nonmembers - alarms, 1 - tail), 1.0)
        ratios = [(tpr_low - delta) / fpr_high, (1 - fpr_high - delta) / (1 - tpr_low)]
        bounds: Floats = np.log(np.maximum(1.0, np.maximum(*ratios)))
    return bounds


def epsilon_ceiling(members: int, nonmembers: int, delta: float = 0.0, level: float = 0.95) -> float:
    """What ``epsilon_bound`` says of a perfect attack: no audit of cells so small can prove a larger epsilon."""
    return epsilon_bound(members, members, 0, nonmembers, delta, level)


def epsilon_threshold(scores: ArrayLike, is_member: ArrayLike, delta: float = 0.0, level: float = 0.95) -> float:
    """Threshold t of the rule ``score >= t`` with the largest ``epsilon_bound``, to be used on other samples.

    Candidates are the distinct scores. Among equal bounds the threshold with the larger TPR - FPR wins, then the
    higher one. Raises ValueError for bad input.
    """
    false, true, thresholds = roc_counts(*cells(scores, is_member)[:2])
    false, true, thresholds = false[1:], true[1:], thresholds[1:]
    m, n = int(true[-1]), int(false[-1])
    bounds = _bounds(true, m, false, n, delta, level)
    return float(thresholds[np.lexsort((thresholds, true * n - false * m, bounds))[-1]])


def one_run_epsilon(guesses: int, right: int, candidates: int, delta: float = 0.0, level: float = 0.95) -> float:
    """Lower bound on epsilon from one training run in which fair coins decided who became a member.

    Of ``candidates`` samples the auditor guesses ``guesses`` (in or out) and abstains on the others; ``right`` of the
    guesses are. The bound is the largest epsilon with p < 1 - level, by bisection, where q = 1 / (1 + e^-epsilon),
    beta = P[Bin(guesses, q) >= right], alpha = max_i P[right > Bin(guesses, q) >= right - i] / i, and
    p = min(1, beta + 2 candidates delta alpha).

    Valid for the trainer's (epsilon, delta) of this very run, if every candidate was included by an independent fair
    coin (``--split_protocol coin``) and the guesses were fixed without looking at the coins. Source: Steinke, Nasr &
    Jagielski 2023, "Privacy Auditing with One (1) Training Run", Thm. 5.2 and Alg. 1.

    Raises ValueError for impossible counts, a delta outside [0, 1) or a level outside (0, 1).
    """
    if not 0 <= right <= guesses <= candidates:
        raise ValueError(f"need 0 <= right <= guesses <= candidates, got {right}, {guesses} and {candidates}")
    _check_delta(delta)
    check_level(level)
    low, high = 0.0, LARGEST
    if one_run_p_value(guesses, right, candidates, low, delta) >= 1 - level:
        return 0.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        rejected = one_run_p_value(guesses, right, candidates, middle, delta) < 1 - level
        low, high = (middle, high) if rejected else (low, middle)
    return low


def one_run_p_value(guesses: int, right: int, candidates: int, epsilon: float, delta: float = 0.0) -> float:
    """p of "the trainer is (epsilon, delta)-private", see ``one_run_epsilon``."""
    if right == 0:
        return 1.0
    chance = 1 / (1 + exp(-epsilon))
    beta = float(bdtrc(right - 1, guesses, chance))  # P[Bin >= right]
    if delta == 0:
        return beta
    at_least = np.r_[1.0, bdtrc(np.arange(right - 1), guesses, chance)]  # P[Bin >= k], k = 0 .. right - 1
    alpha = float(((at_least[::-1] - beta) / np.arange(1, right + 1)).max())
    return min(1.0, beta + 2 * candidates * delta * alpha)


@dataclass(frozen=True)
class GuessRule:
    """Which shares of the candidates to guess: the highest scores "in", the lowest "out"."""

    inside: float
    outside: float


def count_guesses(scores: ArrayLike, is_member: ArrayLike, rule: GuessRule) -> tuple[int, int]:
    """(guesses, right ones) of the rule. Scores that are equal are guessed together or not at all: cutting a tie would
    go by the order of the samples, which may give the labels away. Raises ValueError for bad input.
    """
    x, member, _, _ = cells(scores, is_member)
    levels, counts = np.unique(x, return_counts=True)
    top = x > _first_untaken(levels[::-1], counts[::-1], floor_share(rule.inside, x.size), -np.inf)
    bottom = (x < _first_untaken(levels, counts, floor_share(rule.outside, x.size), np.inf)) & ~top
    return int(top.sum() + bottom.sum()), int(member[top].sum() + (~member[bottom]).sum())


def best_guess_rule(scores: ArrayLike, is_member: ArrayLike, delta: float = 0.0, level: float = 0.95) -> GuessRule:
    """The rule out of a fixed grid of shares with the largest ``one_run_epsilon``, to be used on other samples; among
    equals the one with the most right guesses above chance, in standard deviations."""
    x, member, m, n = cells(scores, is_member)

    def worth(rule: GuessRule) -> tuple[float, float]:
        guesses, right = count_guesses(x, member, rule)
        return one_run_epsilon(guesses, right, m + n, delta, level), (2 * right - guesses) / max(guesses, 1) ** 0.5

    return max((GuessRule(*shares) for shares in product(SHARES, SHARES) if sum(shares) > 0), key=worth)


def floor_share(share: float, total: int) -> int:
    """Whole samples in a share, forgiving the last bits of the product."""
    return int(share * total + 1e-9)


def _first_untaken(levels: Floats, counts: Ints, wanted: int, end: float) -> float:
    """The first of ``levels`` (in the order of taking) that no longer fits into ``wanted`` samples, or ``end``."""
    taken = int((np.cumsum(counts) <= wanted).sum())
    return float(levels[taken]) if taken < len(levels) else end


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise ValueError(f"delta must lie in [0, 1), got {delta}")
