"""Several runs of one setting as one estimate, and the settings that no other setting beats."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from scipy.special import stdtrit  # type: ignore[import-untyped,unused-ignore]

from smplora.statistics.inputs import tail_of
from smplora.statistics.intervals import Interval

TWO_RUNS = "two runs: no interval"


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of n >= 2 independent values with Student's t interval: mean +- t(n - 1) s / sqrt(n), s with n - 1.

    Source: Student 1908. Exact for normal values; two values make t = 12.7, so the interval is wide, as it should be.
    It is not cut to [0, 1]: of an AUC it may end above 1.

    Raises ValueError for fewer than two values, values that are not finite, or a level outside (0, 1).
    """
    tail, x = tail_of(level), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size < 2 or not np.isfinite(x).all():
        raise ValueError(f"need two finite values or more, got {values}")
    mean = float(x.mean())
    half = float(-stdtrit(x.size - 1, tail)) * float(x.std(ddof=1)) / sqrt(x.size)
    return Interval(mean, mean - half, mean + half, f"Student's t, {x.size} runs")


def over_seeds(estimates: Sequence[Interval], level: float = 0.95) -> Interval:
    """What several runs say together: of three or more the mean and its t interval (``mean_interval``), which covers
    what differs between the runs, seeds and splits; of two the mean and both values, since the interval of two would
    be wider than anything that it is about; of a single run its own estimate, which covers its sample only.

    Raises ValueError without any.
    """
    if not estimates:
        raise ValueError("no run")
    values = [e.value for e in estimates]
    if len(values) == 2:
        return Interval(sum(values) / 2, min(values), max(values), TWO_RUNS)
    return estimates[0] if len(estimates) == 1 else mean_interval(values, level)


def pareto_front(points: ArrayLike) -> npt.NDArray[np.bool_]:
    """Which of ``points`` [n, d], all coordinates better when smaller, no other one beats: [n].

    A point is beaten by one that is nowhere larger and somewhere smaller; equal points do not beat each other.
    Raises ValueError for anything but finite [n, d].
    """
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"need finite points [n, d], got shape {x.shape}")
    beaten = [bool(((x <= own).all(axis=1) & (x < own).any(axis=1)).any()) for own in x]
    return ~np.array(beaten, dtype=np.bool_)
