"""ROC curve, the area under it, and the threshold that an attacker would choose."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smplora.statistics.inputs import Floats, Ints, cells, double_midranks


def auc(scores: ArrayLike, is_member: ArrayLike) -> float:
    """Area under the ROC curve, P(member > non-member) + P(equal) / 2 over all pairs (Mann-Whitney U / (m n)).

    Source: Hanley & McNeil 1982. Raises ValueError for bad input.
    """
    x, member, m, n = cells(scores, is_member)
    return float((double_midranks(x)[member].sum() - m * (m + 1)) / (2 * m * n))


def direction(scores: ArrayLike, is_member: ArrayLike) -> int:
    """1 where high scores mean member, -1 where low ones do, by the AUC. Raises ValueError for bad input."""
    return 1 if auc(scores, is_member) >= 0.5 else -1


def best_threshold(scores: ArrayLike, is_member: ArrayLike) -> float:
    """Threshold t of the rule ``score >= t`` with the highest balanced accuracy (TPR + 1 - FPR) / 2.

    Candidates are the midpoints between neighbouring distinct scores, which leave room on both sides for new samples,
    and a point just above the highest score, which accuses nobody. Ties go to the widest gap between the neighbours
    (none above the highest score), then to the higher threshold, that is to fewer accusations.
    Raises ValueError for bad input.
    """
    false, true, thresholds = roc_counts(*cells(scores, is_member)[:2])
    gain = (true * false[-1] - false * true[-1])[:-1]  # m n (TPR - FPR), in integers so that ties are exact
    above, below = thresholds[1:-1], thresholds[2:]
    gaps = np.append(0, above / 2 - below / 2)  # halves first: the difference might overflow
    best = max(range(gain.size), key=lambda i: (gain[i], gaps[i], -i))
    if best == 0:
        return float(np.nextafter(thresholds[1], inf))
    high, low = float(thresholds[best]), float(thresholds[best + 1])
    middle = high / 2 + low / 2
    return middle if low < middle <= high else high  # floats next to each other have no midpoint


def roc_counts(x: Floats, member: NDArray[np.bool_]) -> tuple[Ints, Ints, Floats]:
    """False and true positives [k] of ``score >= threshold`` and thresholds [k]: inf, then distinct scores, falling.

    Source: Fawcett 2006, "An introduction to ROC analysis", Alg. 1.
    """
    levels, group = np.unique(-x, return_inverse=True)
    true = np.bincount(group[member], minlength=levels.size)
    false = np.bincount(group[~member], minlength=levels.size)
    return np.append(0, np.cumsum(false)), np.append(0, np.cumsum(true)), np.append(inf, -levels)
