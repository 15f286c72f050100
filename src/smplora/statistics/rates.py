"""Rates of right and wrong accusations."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq  # type: ignore[import-untyped,unused-ignore]
from scipy.special import betainc, betaincinv  # type: ignore[import-untyped,unused-ignore]
from scipy.stats import binom  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.curves import roc_counts
from smplora.statistics.inputs import Floats, Ints, cells, tail_of
from smplora.statistics.intervals import Interval, clopper_pearson

MIN_FALSE_POSITIVES = 5  # a rate that fewer than five non-members decide is an anecdote


@dataclass(frozen=True)
class ResolvedRate:
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


def nonmembers_needed(fpr: float) -> int:
    """ceil(5 / fpr): with fewer non-members a true positive rate at ``fpr`` hangs on a handful of them. Raises
    ValueError for ``fpr`` outside (0, 1]."""
    return ceil(MIN_FALSE_POSITIVES / _exactly(fpr))


def resolvable(fpr: float, nonmembers: int) -> bool:
    """Whether there are ``nonmembers_needed``."""
    return nonmembers >= nonmembers_needed(fpr)


def tpr_at_fpr(scores: ArrayLike, is_member: ArrayLike, fpr: float) -> ResolvedRate:
    """Highest TPR among the thresholds whose FPR is at most ``fpr``, with a 95 % interval of the TPR at FPR ``fpr``.

    Never the nearest FPR, which may exceed the target. ``needs_nonmembers`` = ceil(5 / fpr), and the rate is resolvable
    with at least that many. The interval is ``rate_interval``'s, widened where it would leave out the value itself.
    Source of the measure: Carlini et al. 2022, "Membership Inference Attacks From First Principles", Sec. III.
    Raises ValueError for bad input or ``fpr`` outside (0, 1].
    """
    needed = nonmembers_needed(fpr)
    x, member, m, n = cells(scores, is_member)
    false, true, _ = roc_counts(x, member)
    value = int(true[false <= allowed_false_positives(fpr, n)].max()) / m
    low, high = rate_interval(x[member], x[~member], fpr)
    return ResolvedRate(float(fpr), value, min(low, value), max(high, value), resolvable(fpr, n), needed)


def rate_interval(members: Floats, others: Floats, fpr: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of the TPR at a false positive rate of exactly ``fpr``, for the chance in members and in the threshold.

    The true threshold has K of the n non-members above it, K ~ Bin(n, fpr). With K = k it lies between the k-th and
    the (k + 1)-th highest of them, and h_k to h_(k+1) of the m members, those above either, lie above it. So the
    distribution of the TPR is taken for the mean over k of Beta(h + 1/2, m - h + 1/2) at h = h_k and h_(k+1), half
    each; the ends are its quantiles. An interval of the hits at the threshold that was used takes that threshold for
    the true one, and covers as little as 0.48 of 95 %. Simulated coverage of this one: 0.95 to 0.99, the most for few
    non-members (docs/log/2026-11-29-verdicts.md). A binomial mixture of Jeffreys intervals (Brown et al. 2001); the
    idea that thresholds are ranks of non-members is that of Gu, Ghosal & Roy 2008, "Bayesian bootstrap estimation of
    ROC curve".

    Args:
        members: [m] scores; ``others`` [n] likewise of non-members.

    Raises ValueError for ``fpr`` outside (0, 1] or a level outside (0, 1).
    """
    tail, m, n = tail_of(level), len(members), len(others)
    chance = float(_exactly(fpr))
    least, most = (int(end) for end in binom.ppf((1e-9, 1 - 1e-9), n, chance))
    k = np.arange(least, most + 2)
    ends = np.concatenate([[np.inf], np.sort(others)[::-1], [-np.inf]])
    hits = (m - np.searchsorted(np.sort(members), ends[k], "right")).astype(np.float64)
    weights = binom.pmf(k[:-1], n, chance)
    both = np.append(weights, 0) + np.append(0, weights)
    both /= both.sum()

    def below(rate: float) -> float:
        return float(both @ betainc(hits + 0.5, m - hits + 0.5, rate))

    low, high = (float(brentq(lambda rate, p=p: below(rate) - p, 0.0, 1.0)) for p in (tail, 1 - tail))
    return (low if hits.max() > 0 else 0.0), (high if hits.min() < m else 1.0)


@dataclass(frozen=True)
class RocBand:
    """Curves [k] around a ROC: (``fpr_low``, ``tpr_high``) from above, (``fpr_high``, ``tpr_low``) from below."""

    fpr_low: Floats
    fpr_high: Floats
    tpr_low: Floats
    tpr_high: Floats

    def as_dict(self) -> dict[str, list[float]]:
        """Ready for JSON."""
        return {name: getattr(self, name).tolist() for name in ("fpr_low", "fpr_high", "tpr_low", "tpr_high")}


def roc_band(
    false_positives: Ints, nonmembers: int, true_positives: Ints, members: int, level: float = 0.95
) -> RocBand:
    """Pointwise band: for each threshold, FPR and TPR with Clopper-Pearson intervals at 1 - (1 - level) / 2 each, so
    that their rectangle holds the true pair with probability ``level`` or more (Bonferroni).

    Source: Macskassy & Provost 2004, "Confidence Bands for ROC Curves" (simultaneous joint confidence regions, with
    exact instead of Kolmogorov's intervals). It says nothing about all thresholds at once.

    Args:
        false_positives: [k] accused non-members at each threshold; ``true_positives`` likewise members.

    Raises ValueError for a level outside (0, 1).
    """
    tail = tail_of(level) / 2

    def ends(hits: Ints, trials: int) -> tuple[Floats, Floats]:
        low, high = np.zeros(len(hits)), np.ones(len(hits))
        some, notall = hits > 0, hits < trials
        low[some] = betaincinv(hits[some], trials - hits[some] + 1, tail)
        high[notall] = betaincinv(hits[notall] + 1, trials - hits[notall], 1 - tail)
        return low, high

    return RocBand(*ends(false_positives, nonmembers), *ends(true_positives, members))


def allowed_false_positives(fpr: float, nonmembers: int) -> int:
    """floor(fpr n): the non-members that may be accused. Raises ValueError for ``fpr`` outside (0, 1]."""
    return floor(_exactly(fpr) * nonmembers)


def _exactly(fpr: float) -> Fraction:
    """The float 0.1 stands for one tenth, not for the binary number a little above it: go by its shortest decimal."""
    if not 0 < fpr <= 1:
        raise ValueError(f"fpr must lie in (0, 1], got {fpr}")
    return Fraction(str(float(fpr)))


def attack_success_rate(decisions: ArrayLike, is_member: ArrayLike) -> Interval:
    """Share of right ``decisions`` [n] (True: accused) with its 95 % Clopper-Pearson interval.

    Plain accuracy, the paper's ASR (Luo et al. 2025, experiments): with cells of unequal size, unlike the paper's,
    guessing the larger class scores more than 1/2. What decided must come from other samples. The hits are a sum of
    two binomials, which varies no more than one binomial, so that the interval is if anything too wide.
    Raises ValueError for bad input or decisions that are not boolean.
    """
    accused = np.asarray(decisions)
    if accused.dtype != np.bool_:
        raise ValueError(f"decisions must be boolean, got {accused.dtype}")
    _, member, m, n = cells(accused, is_member)
    return clopper_pearson(int((accused == member).sum()), m + n)
