"""Statistics of membership inference: how well do scores tell members from non-members, and how sure is that.

Everywhere ``scores`` [n] are finite numbers where *higher means member*, ``is_member`` [n] is boolean, and rates lie
in [0, 1]. Counts are kept as integers until the last division, so that ties and zero variances are exact. Bad input
raises ``ValueError``: scores that are not finite, labels that are not boolean or not [n], a class without samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, inf, isnan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, expit, logit, ndtri  # type: ignore[import-untyped,unused-ignore]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPORTED_FPRS = (0.001, 0.01, 0.05, 0.1)
MIN_FALSE_POSITIVES = 5  # a rate that fewer than five non-members decide is an anecdote


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


@dataclass(frozen=True)
class Roc:
    """ROC curve: ``fpr`` and ``tpr`` [k] rise from 0 to 1, ``thresholds`` [k] fall from +inf to the lowest score."""

    fpr: Floats
    tpr: Floats
    thresholds: Floats


@dataclass(frozen=True)
class RateAtFpr:
    """TPR at a target ``fpr``; ``resolvable`` says whether there are non-members enough for it to mean anything."""

    fpr: float
    value: float
    low: float
    high: float
    resolvable: bool
    needs_nonmembers: int

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; value, low and high are None when the rate is not resolvable."""
        shown = {name: getattr(self, name) if self.resolvable else None for name in ("value", "low", "high")}
        return {**shown, "resolvable": self.resolvable, "needs_nonmembers": self.needs_nonmembers}


def roc_curve(scores: ArrayLike, is_member: ArrayLike) -> Roc:
    """Exact ROC of the rule ``score >= threshold``: (0, 0) and one point per distinct score, the last being (1, 1).

    Source: Fawcett 2006, "An introduction to ROC analysis", Alg. 1. Raises ValueError for bad input.
    """
    false, true, thresholds = _roc_counts(*_cells(scores, is_member)[:2])
    return Roc(false / false[-1], true / true[-1], thresholds)


def auc(scores: ArrayLike, is_member: ArrayLike) -> float:
    """Area under the ROC curve, P(member > non-member) + P(equal) / 2 over all pairs (Mann-Whitney U / (m n)).

    Source: Hanley & McNeil 1982. Raises ValueError for bad input.
    """
    x, member, m, n = _cells(scores, is_member)
    return float((_double_midranks(x)[member].sum() - m * (m + 1)) / (2 * m * n))


def delong_interval(scores: ArrayLike, is_member: ArrayLike, level: float = 0.95) -> Interval:
    """AUC with DeLong's interval on the logit scale: expit(logit(A) +- z * se / (A (1 - A))), never leaving [0, 1].

    se^2 = var(V10) / m + var(V01) / n, where the placement V10 of a member is the share of the n non-members that it
    beats (ties half) and V01 likewise. Sources: DeLong et al. 1988; midranks instead of pairs: Sun & Xu 2014; logit
    scale: Pepe 2003, Ch. 5. Simulated coverage of the 95 % interval: 0.92 to 0.97, the least at AUCs above 0.97.

    DeLong says nothing if the variance is zero (A = 0 or 1, or all scores equal) or a class has one sample. Then the
    interval is Clopper-Pearson's for r A successes in r = min(m, n) trials, rounded outwards. Pair the samples into r
    disjoint pairs: A = 1 needs all of these independent pairs won, at most AUC^r likely whatever the distribution, so
    the lower bound ((1 - level) / 2)^(1/r) is exact or conservative (0.93 for r = 50 at 95 %).

    Raises ValueError for bad input or a level outside (0, 1).
    """
    tail = _tail(level)
    x, member, m, n = _cells(scores, is_member)
    ranks = _double_midranks(x)
    won = ranks[member] - _double_midranks(x[member])  # 2 n V10: twice the non-members beaten by each member
    lost = ranks[~member] - _double_midranks(x[~member])  # 2 m (1 - V01)
    area = float(won.sum() / (2 * m * n))
    pairs = min(m, n)
    # One sample has no variance; that of equal integers is exactly 0, so comparing with 0 is safe.
    variance = won.var(ddof=1) / (4 * n**2 * m) + lost.var(ddof=1) / (4 * m**2 * n) if pairs > 1 else 0.0
    if variance == 0:
        low = clopper_pearson(floor(pairs * area), pairs, level).low
        high = clopper_pearson(ceil(pairs * area), pairs, level).high
        return Interval(area, low, high, "Clopper-Pearson")
    centre, half = logit(area), -ndtri(tail) * sqrt(variance) / (area * (1 - area))
    return Interval(area, float(expit(centre - half)), float(expit(centre + half)), "DeLong")


def bootstrap_interval(
    scores: ArrayLike, is_member: ArrayLike, rng: np.random.Generator, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """AUC with the percentile interval of a bootstrap that resamples members and non-members apart.

    Source: Efron & Tibshirani 1993, Ch. 13. It has zero width at AUC 0 and 1, where it must not be trusted
    (``delong_interval`` does better). Raises ValueError for bad input, level or resamples < 1.
    """
    tail = _tail(level)
    x, member, m, n = _cells(scores, is_member)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    # Only how often each distinct score is drawn matters, so that a resample costs no sorting.
    levels, level_of = np.unique(x, return_inverse=True)
    share_in = np.bincount(level_of[member], minlength=levels.size) / m
    share_out = np.bincount(level_of[~member], minlength=levels.size) / n
    areas = np.empty(resamples)
    for i in range(resamples):
        drawn_in, drawn_out = rng.multinomial(m, share_in), rng.multinomial(n, share_out)
        areas[i] = drawn_in @ (2 * np.cumsum(drawn_out) - drawn_out) / (2 * m * n)
    low, high = np.quantile(areas, [tail, 1 - tail])
    return Interval(auc(x, member), float(low), float(high), "bootstrap")


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Share ``successes / trials`` with the exact binomial interval, from quantiles of the beta distribution.

    Source: Clopper & Pearson 1934. Raises ValueError unless 0 <= successes <= trials, trials >= 1, 0 < level < 1.
    """
    tail = _tail(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return Interval(successes / trials, low, high, "Clopper-Pearson")


def tpr_at_fpr(scores: ArrayLike, is_member: ArrayLike, fpr: float) -> RateAtFpr:
    """Highest TPR among the thresholds whose FPR is at most ``fpr``, with its 95 % Clopper-Pearson interval.

    Never the nearest FPR, which may exceed the target. The interval covers the chance in the members; the threshold
    is taken as given. ``needs_nonmembers`` = ceil(5 / fpr), and the rate is resolvable with at least that many.
    Source of the measure: Carlini et al. 2022, "Membership Inference Attacks From First Principles", Sec. III.
    Raises ValueError for bad input or ``fpr`` outside (0, 1].
    """
    if not 0 < fpr <= 1:
        raise ValueError(f"fpr must lie in (0, 1], got {fpr}")
    # The float 0.1 stands for one tenth, not for the binary number a little above it: go by its shortest decimal.
    target = Fraction(str(float(fpr)))
    false, true, _ = _roc_counts(*_cells(scores, is_member)[:2])
    m, n = int(true[-1]), int(false[-1])
    hits = int(true[false <= floor(target * n)].max())
    needed = ceil(MIN_FALSE_POSITIVES / target)
    rate = clopper_pearson(hits, m)
    return RateAtFpr(float(fpr), rate.value, rate.low, rate.high, n >= needed, needed)


def best_threshold(scores: ArrayLike, is_member: ArrayLike) -> float:
    """Threshold t of the rule ``score >= t`` with the highest balanced accuracy (TPR + 1 - FPR) / 2.

    Candidates are the midpoints between neighbouring distinct scores, which leave room on both sides for new samples,
    and a point just above the highest score, which accuses nobody. Ties go to the widest gap between the neighbours
    (none above the highest score), then to the higher threshold, that is to fewer accusations.
    Raises ValueError for bad input.
    """
    false, true, thresholds = _roc_counts(*_cells(scores, is_member)[:2])
    gain = (true * false[-1] - false * true[-1])[:-1]  # m n (TPR - FPR), in integers so that ties are exact
    above, below = thresholds[1:-1], thresholds[2:]
    gaps = np.append(0, above / 2 - below / 2)  # halves first: the difference might overflow
    best = max(range(gain.size), key=lambda i: (gain[i], gaps[i], -i))
    if best == 0:
        return float(np.nextafter(thresholds[1], inf))
    high, low = float(thresholds[best]), float(thresholds[best + 1])
    middle = high / 2 + low / 2
    return middle if low < middle <= high else high  # floats next to each other have no midpoint


def attack_success_rate(scores: ArrayLike, is_member: ArrayLike, threshold: float) -> Interval:
    """Accuracy of the rule ``score >= threshold`` with its 95 % Clopper-Pearson interval.

    Plain accuracy, the paper's ASR (Luo et al. 2025, experiments): with cells of unequal size, unlike the paper's,
    guessing the larger class scores more than 1/2. The threshold must come from other samples. The hits are a sum of
    two binomials, which varies no more than one binomial, so that the interval is if anything too wide.
    Raises ValueError for bad input or a threshold that is NaN.
    """
    x, member, m, n = _cells(scores, is_member)
    if isnan(threshold):
        raise ValueError("the threshold is NaN")
    return clopper_pearson(int(((x >= threshold) == member).sum()), m + n)


def auc_deviation(interval: Interval) -> Interval:
    """|AUC - 0.5| / 0.5 of an AUC interval: 0 is guessing, 1 is certainty, in either direction.

    The bounds are the smallest and largest deviation in the AUC interval, so ``low`` is 0 where it contains 0.5.
    """
    ends = [abs(end - 0.5) / 0.5 for end in (interval.low, interval.high)]
    low = 0.0 if interval.low <= 0.5 <= interval.high else min(ends)
    return Interval(abs(interval.value - 0.5) / 0.5, low, max(ends), interval.method)


def permutation_p_value(
    scores: ArrayLike, is_member: ArrayLike, rng: np.random.Generator, permutations: int = 1000
) -> float:
    """Two-sided p of "scores do not depend on membership": (1 + #{|A* - 0.5| >= |A - 0.5|}) / (1 + permutations).

    A* is the AUC after shuffling the labels. Valid for any number of permutations (Phipson & Smyth 2010).
    Raises ValueError for bad input or permutations < 1.
    """
    x, member, m, n = _cells(scores, is_member)
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    ranks = _double_midranks(x)
    centre = m * (m + n + 1)  # of the members' doubled ranks at AUC 0.5; integers, so that equal AUCs count as equal
    observed = abs(int(ranks[member].sum()) - centre)
    as_far = sum(abs(int(rng.permutation(ranks)[:m].sum()) - centre) >= observed for _ in range(permutations))
    return (1 + as_far) / (1 + permutations)


def summary(scores: ArrayLike, is_member: ArrayLike, threshold: float) -> dict[str, Any]:
    """The NUMBERS object of docs/formats.md; ``threshold`` comes from other samples (``best_threshold`` on aux).

    Of the ROC, points on a straight line between their neighbours are left out: the drawn curve stays the same.
    Raises ValueError for bad input or a threshold that is NaN.
    """
    x, member, m, n = _cells(scores, is_member)
    area = delong_interval(x, member)
    false, true, _ = _roc_counts(x, member)
    right, up = np.diff(false), np.diff(true)
    bends = np.concatenate([[True], right[:-1] * up[1:] != up[:-1] * right[1:], [True]])
    return {
        "n_members": m,
        "n_nonmembers": n,
        "auc": area.as_dict(),
        "auc_deviation": auc_deviation(area).bounds(),
        "asr": attack_success_rate(x, member, threshold).bounds(),
        "tpr_at_fpr": {str(fpr): tpr_at_fpr(x, member, fpr).as_dict() for fpr in REPORTED_FPRS},
        "roc": {"fpr": (false[bends] / n).tolist(), "tpr": (true[bends] / m).tolist()},
    }


def _cells(scores: ArrayLike, is_member: ArrayLike) -> tuple[Floats, NDArray[np.bool_], int, int]:
    """Checked scores and labels with the numbers of members and non-members."""
    x, member = np.asarray(scores, dtype=np.float64), np.asarray(is_member)
    if x.ndim != 1 or member.shape != x.shape:
        raise ValueError(f"scores and is_member must both be [n], got shapes {x.shape} and {member.shape}")
    if x.size and member.dtype != np.bool_:
        raise ValueError(f"is_member must be boolean, got {member.dtype}")
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} of {x.size} scores are NaN or infinite")
    m = int(np.count_nonzero(member))
    if not 0 < m < x.size:
        raise ValueError(f"need members and non-members, got {m} and {x.size - m}")
    return x, member, m, x.size - m


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return (1 - level) / 2


def _double_midranks(x: Floats) -> Ints:
    """Twice the rank (1 = lowest), ties sharing their mean rank; twice, because then they are integers."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: Ints = (2 * np.cumsum(counts) - counts + 1)[group]
    return ranks


def _roc_counts(x: Floats, member: NDArray[np.bool_]) -> tuple[Ints, Ints, Floats]:
    """False and true positives [k] of ``score >= threshold`` and thresholds [k]: inf, then distinct scores, falling."""
    levels, group = np.unique(-x, return_inverse=True)
    true = np.bincount(group[member], minlength=levels.size)
    false = np.bincount(group[~member], minlength=levels.size)
    return np.append(0, np.cumsum(false)), np.append(0, np.cumsum(true)), np.append(inf, -levels)
