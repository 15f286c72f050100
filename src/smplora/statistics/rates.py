"""Rates of right and wrong accusations."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv  # type: ignore[import-untyped,unused-ignore]

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


def tpr_at_fpr(scores: ArrayLike, is_member: ArrayLike, fpr: float) -> ResolvedRate:
    """Highest TPR among the thresholds whose FPR is at most ``fpr``, with its 95 % Clopper-Pearson interval.

    Never the nearest FPR, which may exceed the target. The interval covers the chance in the members; the threshold
    is taken as given. ``needs_nonmembers`` = ceil(5 / fpr), and the rate is resolvable with at least that many.
    Source of the measure: Carlini et al. 2022, "Membership Inference Attacks From First Principles", Sec. III.
    Raises ValueError for bad input or ``fpr`` outside (0, 1].
    """
    target = _exactly(fpr)
    false, true, _ = roc_counts(*cells(scores, is_member)[:2])
    m, n = int(true[-1]), int(false[-1])
    hits = int(true[false <= allowed_false_positives(fpr, n)].max())
    needed = ceil(MIN_FALSE_POSITIVES / target)
    rate = clopper_pearson(hits, m)
    return ResolvedRate(float(fpr), rate.value, rate.low, rate.high, n >= needed, needed)


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
