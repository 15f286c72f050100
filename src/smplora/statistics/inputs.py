"""Scores and labels, checked, and what all statistics count with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def cells(scores: ArrayLike, is_member: ArrayLike) -> tuple[Floats, NDArray[np.bool_], int, int]:
    """Checked scores and labels with the numbers of members and non-members."""
    x, member = np.asarray(scores, dtype=np.float64), np.asarray(is_member)
    if x.ndim != 1 or member.shape != x.shape:
        raise ValueError(f"scores and is_member must both be [n], got shapes {x.shape} and {member.shape}")
    if x.size and member.dtype != np.bool_:
        raise ValueError(f"is_member must be boolean, got {member.dtype}")
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} of {x.size} scores are NaN or infinite")
    m = int(np.count_nonzero(member))
    if not 0 < m < x.size:
        raise ValueError(f"need members and non-members, got {m} and {x.size - m}")
    return x, member, m, x.size - m


def check_level(level: float, name: str = "level") -> None:
    """Raises ValueError unless ``level`` lies in (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {level}")


def tail_of(level: float) -> float:
    """What a two-sided interval leaves out on each side. Raises ValueError unless ``level`` lies in (0, 1)."""
    check_level(level)
    return (1 - level) / 2


def double_midranks(x: Floats) -> Ints:
    """Twice the rank (1 = lowest), ties sharing their mean rank; twice, because then they are integers."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: Ints = (2 * np.cumsum(counts) - counts + 1)[group]
    return ranks
