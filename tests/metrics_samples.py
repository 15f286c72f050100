"""Samples and a slow twin for the tests of metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Sample = tuple[NDArray[np.float64], NDArray[np.bool_]]


def labels(m: int, n: int) -> NDArray[np.bool_]:
    return np.arange(m + n) < m


def draw(seed: int, m: int = 23, n: int = 31, shift: float = 0.8, tied: bool = False) -> Sample:
    """Shuffled normal scores; ``tied`` ones take about ten values."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(m + n)
    member = labels(m, n)[order]
    scores = rng.normal(size=m + n) + shift * member
    return (np.round(2 * scores) / 2 if tied else scores), member


def wins(scores: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[m, n] of 1, 1/2, 0: does member i beat non-member j?"""
    inside, outside = scores[member][:, None], scores[~member][None, :]
    return (inside > outside) + 0.5 * (inside == outside)


SAMPLES = [draw(seed, tied=tied) for seed in range(5) for tied in (False, True)]
