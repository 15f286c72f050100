"""Several attacks on the same samples: how sure is one of them, given that we looked at all?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, ndtr  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.curves import roc_counts
from smplora.statistics.inputs import Floats, cells, check_level, double_midranks
from smplora.statistics.rates import allowed_false_positives

MOST_PERMUTATIONS, FEWEST_PERMUTATIONS = 9999, 999
AFFORDABLE = 2 * 10**7  # samples times permutations that take about a second
DRAWS = 20000


@dataclass(frozen=True)
class FamilyTest:
    """Two-sided p of each attack, alone and corrected for the whole family."""

    p: tuple[float, ...]
    corrected: tuple[float, ...]


def affordable_permutations(samples: int) -> int:
    """9,999 permutations, fewer above 2,000 samples, never below 999."""
    return max(FEWEST_PERMUTATIONS, min(MOST_PERMUTATIONS, AFFORDABLE // samples))


def family_test(
    scores: Sequence[ArrayLike], is_member: ArrayLike, rng: np.random.Generator, permutations: int | None = None
) -> FamilyTest:
    """Permutation test of every attack's |AUC - 0.5|, all attacks under the same shuffled labels.

    corrected_k = (1 + #{max_j |A*_j - 0.5| >= |A_k - 0.5|}) / (1 + permutations): the chance that *any* of the
    attacks comes out so far from 0.5 when none of them knows anything. Exact for any number of attacks and any
    dependence between them, so that ten attacks that are nearly the same cost little more than one. Source: Westfall &
    Young 1993, "Resampling-Based Multiple Testing", Alg. 2.5 (single step).

    Args:
        scores: [n] of each of k attacks.
        is_member: [n].
        permutations: default ``affordable_permutations``.

    Raises ValueError for bad input, no attack or permutations < 1.
    """
    if not len(scores):
        raise ValueError("need at least one attack")
    checked = [cells(one, is_member) for one in scores]
    _, member, m, n = checked[0]
    permutations = affordable_permutations(m + n) if permutations is None else permutations
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    ranks = np.stack([double_midranks(x) for x, *_ in checked], 1)  # [n, k] integers: equal AUCs count as equal
    centre = m * (m + n + 1)
    observed = np.abs(ranks[member].sum(0) - centre)
    alone, together = np.zeros(len(scores)), np.zeros(len(scores))
    for _ in range(permutations):
        shuffled = np.abs(ranks[rng.permutation(m + n)[:m]].sum(0) - centre)
        alone += shuffled >= observed
        together += shuffled.max() >= observed
    return FamilyTest(*(tuple(((1 + hits) / (1 + permutations)).tolist()) for hits in (alone, together)))


def simultaneous_level(
    scores: Sequence[ArrayLike], is_member: ArrayLike, rng: np.random.Generator, level: float = 0.95
) -> float:
    """Level at which each of the attacks' DeLong intervals must be taken so that all cover together with ``level``.

    2 Phi(c) - 1, where c is the ``level`` quantile of max_k |Z_k| for normal Z with the correlations of the attacks'
    AUCs, estimated from DeLong's placements (20,000 draws). One attack keeps ``level``; attacks without variance do
    not count. Sources: Hothorn, Bretz & Westfall 2008, "Simultaneous Inference in General Parametric Models", Sec. 3;
    DeLong et al. 1988 for the covariance.

    Raises ValueError for bad input or a level outside (0, 1).
    """
    check_level(level)
    influences = [_influence(*cells(one, is_member)) for one in scores]
    spread = [influence / size for influence in influences if (size := np.sqrt((influence**2).sum())) > 0]
    if len(spread) < 2:
        return level
    values, vectors = np.linalg.eigh(np.stack(spread) @ np.stack(spread, 1))  # of the correlations [k, k]
    root = vectors * np.sqrt(np.maximum(values, 0))
    largest = np.abs(rng.standard_normal((DRAWS, len(spread))) @ root.T).max(1)
    return float(2 * ndtr(np.quantile(largest, level)) - 1)


def _influence(x: Floats, member: np.ndarray, m: int, n: int) -> Floats:
    """What each sample adds to the AUC's deviation [n]; the sum of squares is DeLong's variance."""
    ranks = double_midranks(x)
    influence = np.zeros(x.size)
    for rows, others, count in ((member, n, m), (~member, m, n)):
        if count > 1:
            placement = (ranks[rows] - double_midranks(x[rows])) / (2 * others)
            influence[rows] = (placement - placement.mean()) / np.sqrt(count * (count - 1))
    influence[~member] *= -1
    return influence


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
    if k >= n:
        return 1.0
    false, true, _ = roc_counts(x, member)
    observed = int(true[false <= k].max())
    h = np.arange(observed, m + 1)
    logs = _log_choose(h + k, k) + _log_choose(m - h + n - k - 1, n - k - 1) - _log_choose(m + n, n)
    return float(min(1.0, np.exp(logs).sum()))


def _log_choose(total: ArrayLike, chosen: ArrayLike) -> Floats:
    a, b = np.asarray(total, dtype=float), np.asarray(chosen, dtype=float)
    logs: Floats = gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)
    return logs
