"""What predictions for each of n labelled samples, made by the n - 1 others, say of a prediction for a new one."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from smplora.statistics.inputs import Floats, check_level

USUAL_LEVEL = 0.95


def best_level(samples: int) -> float:
    """95 %, or what so few samples can give at most: n / (n + 1)."""
    return min(USUAL_LEVEL, samples / (samples + 1))


def jackknife_minmax(without: ArrayLike, residuals: ArrayLike, level: float) -> tuple[float, float]:
    """An interval for the label of a new sample: [min_i m_i - q, max_i m_i + q].

    m_i is the prediction for the new sample by all but the i-th, and q the ceil(level (n + 1))-th smallest of the
    residuals |y_i - prediction for i by all others|. It holds the label with probability ``level`` or more, whatever
    predicts and however samples are distributed, if the new sample and the n others are exchangeable (Barber, Candes,
    Ramdas & Tibshirani 2021, "Predictive inference with the jackknife+", Theorem 3).

    Args:
        without: m [n].
        residuals: [n].

    Raises:
        ValueError: a level that n samples cannot give, arrays that do not fit.
    """
    check_level(level)
    m, r = np.asarray(without, dtype=np.float64), np.sort(np.abs(np.asarray(residuals, dtype=np.float64)))
    rank = ceil(level * (len(r) + 1) - 1e-9)
    if m.shape != r.shape or not 1 <= rank <= len(r):
        raise ValueError(f"{len(r)} samples (and {len(m)} predictions) give no interval of level {level}")
    q = float(r[rank - 1])
    return float(m.min()) - q, float(m.max()) + q


def permutation_p(observed: Floats, permuted: Floats) -> tuple[Floats, float]:
    """p-values of M errors among those of permuted labels, each alone and of the smallest, corrected for the choice.

    p_j = (1 + #{b: e_bj <= e_j}) / (B + 1), and the corrected one is the share of all B + 1 labellings whose smallest
    p_j is as small as the observed (Westfall & Young 1993). Both are valid, since under the hypothesis that labels mean
    nothing every labelling is equally likely.

    Args:
        observed: [M], the smaller the better.
        permuted: [B, M].
    """
    every = np.concatenate([observed[None], permuted])  # [B + 1, M]
    tolerance = 1e-9 * np.abs(every).max(initial=0)  # the same labelling again, summed in another order, is a tie
    rounded = np.round(every / tolerance) if tolerance else every
    ordered = np.sort(rounded, axis=0)
    counts = np.stack([np.searchsorted(ordered[:, j], rounded[:, j], side="right") for j in range(every.shape[1])], 1)
    ps: Floats = counts / len(every)
    smallest = ps.min(1)
    return ps[0], float(np.mean(smallest <= smallest[0]))
