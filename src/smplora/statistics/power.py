"""What an audit of given size could have seen, and the dataset as a whole."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri  # type: ignore[import-untyped,unused-ignore]
from scipy.stats import ttest_ind  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.inputs import cells, check_level

POWER = 0.8


def null_standard_error(members: int, nonmembers: int) -> float:
    """Standard error sqrt((m + n + 1) / (12 m n)) of the AUC when scores do not depend on membership, without ties.

    Source: Mann & Whitney 1947. Raises ValueError for an empty class.
    """
    if members < 1 or nonmembers < 1:
        raise ValueError(f"need members and non-members, got {members} and {nonmembers}")
    return sqrt((members + nonmembers + 1) / (12 * members * nonmembers))


def detectable_auc(members: int, nonmembers: int, level: float = 0.95, power: float = POWER) -> float:
    """Smallest AUC above 0.5 that a two-sided test at ``1 - level`` finds with probability ``power``; at most 1.

    0.5 + (z_((1 + level) / 2) + z_power) se_0 with se_0 of ``null_standard_error``: the sample size formula of the
    Wilcoxon-Mann-Whitney test, solved for the AUC. It takes the variance at AUC 0.5 for the one at the AUC sought,
    which is close for AUCs below 0.8 and else errs towards larger ones. Source: Noether 1987, "Sample Size
    Determination for Some Common Nonparametric Tests".

    Raises ValueError for an empty class, or a level or power outside (0, 1).
    """
    check_level(level)
    check_level(power, "power")
    reach = float(ndtri((1 + level) / 2) + ndtri(power))
    return min(1.0, max(0.5, 0.5 + reach * null_standard_error(members, nonmembers)))


def dataset_inference_p_value(scores: ArrayLike, is_member: ArrayLike) -> float:
    """One-sided p of "members score no higher than non-members on average": Welch's t-test.

    Asks whether the *set* was trained on, where an AUC asks about single images; a small shift over many images
    suffices. The sign of the scores must come from other samples. Source: Maini et al. 2021, "Dataset Inference";
    for diffusion models Dubinski et al. 2025, "CDI". Classes of one, and scores that do not vary, give 1.

    Raises ValueError for bad input.
    """
    x, member, m, n = cells(scores, is_member)
    inside, outside = x[member], x[~member]
    if min(m, n) < 2 or (np.ptp(inside) == 0 and np.ptp(outside) == 0):
        return 1.0
    return float(ttest_ind(inside, outside, equal_var=False, alternative="greater").pvalue)
