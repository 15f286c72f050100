"""One attack on one group of members: the NUMBERS object of docs/formats.md."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from smplora.statistics.curves import roc_counts
from smplora.statistics.inputs import cells
from smplora.statistics.intervals import auc_deviation, auc_interval
from smplora.statistics.rates import attack_success_rate, roc_band, tpr_at_fpr

MOST_CORNERS = 2000  # of a ROC that is written out
REPORTED_FPRS = (0.001, 0.01, 0.05, 0.1)


def summary(scores: ArrayLike, is_member: ArrayLike, decisions: ArrayLike) -> dict[str, Any]:
    """The NUMBERS object of docs/formats.md; ``decisions`` [n] (True: accused) are by thresholds from other samples.

    Of the ROC, points on a straight line between their neighbours are left out: the drawn curve stays the same
    (of more than 2,000 corners a selection is left, dense at low rates).
    Raises ValueError for bad input or decisions that are not boolean.
    """
    x, member, m, n = cells(scores, is_member)
    area = auc_interval(x, member)
    false, true, _ = roc_counts(x, member)
    right, up = np.diff(false), np.diff(true)
    bends = np.flatnonzero(np.concatenate([[True], right[:-1] * up[1:] != up[:-1] * right[1:], [True]]))
    if bends.size > MOST_CORNERS:  # half of them evenly, half dense at low rates
        last, half = bends.size - 1, MOST_CORNERS // 2
        corners = np.concatenate([np.linspace(0, last, half), np.geomspace(1, last, half)]).round().astype(int)
        bends = bends[np.unique(corners)]
    return {
        "n_members": m,
        "n_nonmembers": n,
        "auc": area.as_dict(),
        "auc_deviation": auc_deviation(area).bounds(),
        "asr": attack_success_rate(decisions, member).bounds(),
        "tpr_at_fpr": {str(fpr): tpr_at_fpr(x, member, fpr).as_dict() for fpr in REPORTED_FPRS},
        "roc": {
            "fpr": (false[bends] / n).tolist(),
            "tpr": (true[bends] / m).tolist(),
            "band": roc_band(false[bends], n, true[bends], m).as_dict(),
        },
    }
