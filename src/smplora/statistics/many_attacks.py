"""Several attacks on the same samples, each looked at in several ways: how sure is one result, given that we looked at
all of them?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, log_ndtr  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.curves import roc_counts
from smplora.statistics.inputs import Bools, Floats, Ints, cells, double_midranks
from smplora.statistics.rates import allowed_false_positives

MOST_PERMUTATIONS, FEWEST_PERMUTATIONS = 9999, 999
AFFORDABLE = 10**8  # samples times permutations times attacks that take a few seconds
CHUNK = 2 * 10**6  # labels held at once


@dataclass(frozen=True)
class FamilyTest:
    """p of each attack (rows) by each statistic: first the two-sided one of its AUC, then the one-sided ones of its
    true positive rates at the false positive rates asked for."""

    p: Floats  # [k, 1 + rates], alone
    corrected: Floats  # [k, 1 + rates], for everything in the table


def affordable_permutations(samples: int, attacks: int = 1) -> int:
    """9,999 permutations, fewer where samples times attacks exceed 10,000, never below 999."""
    return max(FEWEST_PERMUTATIONS, min(MOST_PERMUTATIONS, AFFORDABLE // (samples * attacks)))


def family_test(
    scores: Sequence[ArrayLike],
    is_member: ArrayLike,
    rng: np.random.Generator,
    *,
    fprs: Sequence[float] = (),
    weights: ArrayLike | None = None,
    permutations: int | None = None,
) -> FamilyTest:
    """One permutation maximum over all attacks and statistics (Westfall & Young), under the same shuffled labels.

    A statistic s is put on the scale of its own p under the null, p_s (the normal one of |AUC - 0.5|, that of
    ``low_fpr_p_value`` of a rate), and weighed: T_s = log w_s - log p_s. Then corrected_s =
    (1 + #{max_r T*_r >= T_s}) / (1 + permutations): the chance that *anything* in the table comes out so far, when no
    attack knows anything. Exact for any number of attacks and statistics, any dependence between them and any weights
    that were fixed without these labels: the scale only says how much each counts. A statistic with the share w of all
    weight has a corrected p of at most p / w (nearly), however many others there are. Sources: Westfall & Young 1993,
    "Resampling-Based Multiple Testing", Alg. 2.5 (single step); weights: Genovese, Roeder & Wasserman 2006, "False
    discovery control with p-value weighting".

    Args:
        scores: [n] of each of k attacks, higher = member.
        is_member: [n].
        fprs: false positive rates at which true positive rates are looked at.
        weights: [k, 1 + rates], non-negative; default: all equal.
        permutations: default ``affordable_permutations``.

    Raises ValueError for bad input, no attack, weights that are negative or of another shape, or permutations < 1.
    """
    if not len(scores):
        raise ValueError("need at least one attack")
    checked = [cells(one, is_member) for one in scores]
    _, member, m, n = checked[0]
    shape = (len(scores), 1 + len(fprs))
    share = np.full(shape, 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != shape or not (share >= 0).all() or not share.any():
        raise ValueError(f"need weights {shape} of which none is negative and one is positive, got shape {share.shape}")
    permutations = affordable_permutations(m + n, len(scores)) if permutations is None else permutations
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    with np.errstate(divide="ignore"):
        worth = np.log(share)
    looks = [_Look(x, m, n, fprs) for x, *_ in checked]
    observed = _values(looks, member[None])[0]
    alone, together = np.zeros(shape), np.zeros(shape)
    for labels in _shuffled(member, permutations, rng):
        shuffled = _values(looks, labels)
        alone += (shuffled >= observed).sum(0)
        together += ((shuffled + worth).max((1, 2))[:, None, None] >= observed + worth).sum(0)
    return FamilyTest(*((1 + hits) / (1 + permutations) for hits in (alone, together)))


def surprise(scores: ArrayLike, is_member: ArrayLike, fprs: Sequence[float] = ()) -> Floats:
    """-log p of the AUC (two-sided, normal) and of the true positive rates at ``fprs`` (exact, one-sided): [1 + rates].

    Raises ValueError for bad input.
    """
    x, member, m, n = cells(scores, is_member)
    look = _Look(x, m, n, fprs)
    values: Floats = look.values(member[None], member[None].astype(np.float64) @ look.ranks)[0]
    return values


def _shuffled(member: Bools, permutations: int, rng: np.random.Generator) -> Iterator[Bools]:
    """Shuffled labels [b, n], so many at a time as memory allows."""
    step = max(1, CHUNK // member.size)
    for start in range(0, permutations, step):
        yield rng.permuted(np.broadcast_to(member, (min(step, permutations - start), member.size)), axis=1)


def _values(looks: Sequence[_Look], labels: Bools) -> Floats:
    """-log p of every statistic under each row of labels [b, n]: [b, k, 1 + rates], rounded to ten digits, so that what
    is equal counts as equal."""
    sums = labels.astype(np.float64) @ np.stack([look.ranks for look in looks], 1)  # exact: ranks are whole numbers
    values: Floats = np.stack([look.values(labels, one) for look, one in zip(looks, sums.T, strict=True)], 1).round(10)
    return values


class _Look:
    """One attack's scores, prepared for many labels."""

    def __init__(self, x: Floats, m: int, n: int, fprs: Sequence[float]) -> None:
        ranks = double_midranks(x)
        self.ranks = (ranks - ranks.mean()).astype(np.float64)
        self.spread = np.sqrt(m * n / ((m + n) * (m + n - 1)) * (self.ranks**2).sum())  # of their sum over m of them
        self.order = np.argsort(-x, kind="stable")
        self.ends = np.append(np.flatnonzero(np.diff(-x[self.order])), x.size - 1)  # of equal scores, highest first
        self.allowed = [allowed_false_positives(fpr, n) for fpr in fprs]
        self.surprise = [-_log_tails(k, m, n) for k in self.allowed]

    def values(self, labels: Bools, sums: Floats) -> Floats:
        """-log p under each row of labels [b, n], whose members' ranks have these sums [b]: [b, 1 + rates]."""
        columns = [np.zeros(len(labels))]
        if self.spread > 0:
            columns = [-(np.log(2) + log_ndtr(-np.abs(sums) / self.spread))]
        if self.allowed:
            others = self._others(labels)
            ends = self.ends[: others.shape[1]]
            taken = np.column_stack([np.zeros(len(labels), np.int32), ends + 1 - others])  # members, by threshold
            for allowed, surprise in zip(self.allowed, self.surprise, strict=True):
                columns.append(surprise[np.take_along_axis(taken, (others <= allowed).sum(1)[:, None], 1)[:, 0]])
        return np.stack(columns, 1)

    def _others(self, labels: Bools) -> Ints:
        """Non-members at or above each threshold, the highest first, as far down as any row allows: [b, thresholds]."""
        width, most = 0, max(self.allowed)
        while True:
            width = min(max(2 * width, 4 * (most + 1)), len(self.order))
            counts: Ints = np.cumsum(~labels[:, self.order[:width]], axis=1, dtype=np.int32)
            others = counts[:, self.ends[self.ends < width]]
            if width == len(self.order) or (others.size and others[:, -1].min() > most):
                return others


def low_fpr_p_value(scores: ArrayLike, is_member: ArrayLike, fpr: float) -> float:
    """Exact one-sided p of "so many members above the threshold of ``fpr`` by chance alone".

    The threshold is the (k + 1)-th highest non-member, k = floor(fpr n): as many non-members may lie above it. If
    scores do not depend on membership, the number H of members above it is negative hypergeometric, P(H = h) =
    C(h + k, k) C(m - h + n - k - 1, n - k - 1) / C(m + n, n), which counts the chance in the threshold too (an
    interval of the TPR alone does not). Ties make p larger, never smaller. Source: the precedence test, Balakrishnan &
    Ng 2006, "Precedence-Type Tests and Applications", Ch. 2.

    Raises ValueError for bad input or ``fpr`` outside (0, 1].
    """
    x, member, m, n = cells(scores, is_member)
    k = allowed_false_positives(fpr, n)
    false, true, _ = roc_counts(x, member)
    return float(min(1.0, np.exp(_log_tails(k, m, n)[int(true[false <= k].max())])))


def _log_tails(k: int, m: int, n: int) -> Floats:
    """log P(H >= h) for h = 0 .. m, see ``low_fpr_p_value``; zeros where every non-member may be accused."""
    if k >= n:
        return np.zeros(m + 1)
    h = np.arange(m + 1)
    logs = _log_choose(h + k, k) + _log_choose(m - h + n - k - 1, n - k - 1) - _log_choose(m + n, n)
    tails: Floats = np.minimum(np.logaddexp.accumulate(logs[::-1])[::-1], 0.0)
    return tails


def _log_choose(total: ArrayLike, chosen: ArrayLike) -> Floats:
    a, b = np.asarray(total, dtype=float), np.asarray(chosen, dtype=float)
    logs: Floats = gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)
    return logs
