"""Tests by shuffling the labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from smplora.metrics.samples import cells, double_midranks


def permutation_p_value(
    scores: ArrayLike, is_member: ArrayLike, rng: np.random.Generator, permutations: int = 1000
) -> float:
    """Two-sided p of "scores do not depend on membership": (1 + #{|A* - 0.5| >= |A - 0.5|}) / (1 + permutations).

    A* is the AUC after shuffling the labels. Valid for any number of permutations (Phipson & Smyth 2010).
    Raises ValueError for bad input or permutations < 1.
    """
    x, member, m, n = cells(scores, is_member)
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    ranks = double_midranks(x)
    centre = m * (m + n + 1)  # of the members' doubled ranks at AUC 0.5; integers, so that equal AUCs count as equal
    observed = abs(int(ranks[member].sum()) - centre)
    as_far = sum(abs(int(rng.permutation(ranks)[:m].sum()) - centre) >= observed for _ in range(permutations))
    return (1 + as_far) / (1 + permutations)
