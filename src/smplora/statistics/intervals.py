"""Estimates with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from numpy.typing import ArrayLike
from scipy.optimize import brentq  # type: ignore[import-untyped,unused-ignore]
from scipy.special import betaincinv, ndtri  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.inputs import cells, double_midranks, tail_of

SCORE = "score, Newcombe and DeLong"
ENOUGH_WRONG = 4  # samples on the wrong side, from which half of a small variance is believed


@dataclass(frozen=True)
class Interval:
    """Estimate ``value`` with its confidence bounds ``low`` <= ``value`` <= ``high`` and how they were made."""

    value: float
    low: float
    high: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        """``{"value", "low", "high", "method"}``, ready for JSON."""
        return {**self.bounds(), "method": self.method}

    def bounds(self) -> dict[str, float]:
        """``as_dict()`` without the method."""
        return {"value": self.value, "low": self.low, "high": self.high}


def auc_interval(scores: ArrayLike, is_member: ArrayLike, level: float = 0.95) -> Interval:
    """AUC with a score interval: all t with (A - t)^2 <= z^2 r V(t), which never leaves [0, 1].

    V(t) = t (1 - t) [1 + (N - 1) ((1 - t) / (2 - t) + t / (1 + t))] / (m n), N = (m + n) / 2, is the variance of the
    AUC of exponential scores (Hanley & McNeil 1982), and r = S / V(A) says by how much these scores differ from those.
    S = var(V10) / m + var(V01) / n is DeLong's variance, where the placement V10 of a member is the share of the n
    non-members that it beats (ties half) and V01 likewise. A ratio below 1 is believed as far as there are samples to
    tell: r^w, w = e / (e + 4), with e = min(A, 1 - A) min(m, n) samples on the wrong side.

    Either part alone fails at AUCs near 1: DeLong's variance is too small there, on any scale; V misses scores of which
    a few stand out. What each covers is in docs/log/2026-11-29-verdicts.md. Sources: Newcombe 2006, "Confidence
    intervals for an effect size measure based on the Mann-Whitney statistic, part 2", method 5; DeLong et al. 1988;
    midranks instead of pairs: Sun & Xu 2014.

    Where S is zero (A = 0 or 1, all scores equal, a class of one) the interval is Clopper-Pearson's for r A successes
    in r = min(m, n) trials, rounded outwards. Pair the samples into r disjoint pairs: A = 1 needs all of these
    independent pairs won, at most AUC^r likely whatever the distribution, so the lower bound ((1 - level) / 2)^(1/r) is
    exact or conservative (0.93 for r = 50 at 95 %).

    Raises ValueError for bad input or a level outside (0, 1).
    """
    z = -float(ndtri(tail_of(level)))
    x, member, m, n = cells(scores, is_member)
    ranks = double_midranks(x)
    won = ranks[member] - double_midranks(x[member])  # 2 n V10: twice the non-members beaten by each member
    lost = ranks[~member] - double_midranks(x[~member])  # 2 m (1 - V01)
    area = float(won.sum() / (2 * m * n))
    pairs = min(m, n)
    # One sample has no variance; that of equal integers is exactly 0, so comparing with 0 is safe.
    variance = won.var(ddof=1) / (4 * n**2 * m) + lost.var(ddof=1) / (4 * m**2 * n) if pairs > 1 else 0.0
    if variance == 0:
        low = clopper_pearson(floor(pairs * area), pairs, level).low
        high = clopper_pearson(ceil(pairs * area), pairs, level).high
        return Interval(area, low, high, "Clopper-Pearson")

    def of_exponentials(t: float) -> float:
        return t * (1 - t) * (1 + ((m + n) / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)

    wrong = min(area, 1 - area) * pairs
    ratio = float(variance / of_exponentials(area))
    ratio = ratio if ratio > 1 else ratio ** (wrong / (wrong + ENOUGH_WRONG))

    def beyond(t: float) -> float:  # below 0 inside of the interval
        return (area - t) ** 2 - z**2 * ratio * of_exponentials(t)

    low, high = (float(brentq(beyond, area, end)) for end in (0.0, 1.0))
    return Interval(area, low, high, SCORE)


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Share ``successes / trials`` with the exact binomial interval, from quantiles of the beta distribution.

    Source: Clopper & Pearson 1934. Raises ValueError unless 0 <= successes <= trials, trials >= 1, 0 < level < 1.
    """
    tail = tail_of(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return Interval(successes / trials, low, high, "Clopper-Pearson")


def auc_deviation(interval: Interval) -> Interval:
    """|AUC - 0.5| / 0.5 of an AUC interval: 0 is guessing, 1 is certainty, in either direction.

    The bounds are the smallest and largest deviation in the AUC interval, so ``low`` is 0 where it contains 0.5.
    """
    ends = [abs(end - 0.5) / 0.5 for end in (interval.low, interval.high)]
    low = 0.0 if interval.low <= 0.5 <= interval.high else min(ends)
    return Interval(abs(interval.value - 0.5) / 0.5, low, max(ends), interval.method)
