"""From predictors and labelled adapters to answers: value, interval, error with and without the adapter, p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

from smplora.audit.property_inference.predictors import Predictor
from smplora.core.arrays import Floats
from smplora.core.random_streams import stream_seed
from smplora.statistics.leave_one_out import best_level, jackknife_minmax, permutation_p

PERMUTATIONS = 999


@dataclass(frozen=True)
class Scale:
    """What a property is compared on: itself, or its logarithm, where errors are factors. ``least`` and ``most`` are
    what it can be at all (None: no limit)."""

    logarithmic: bool
    least: float
    most: float | None

    def forth(self, value: float) -> float:
        """Onto the scale."""
        return log(value) if self.logarithmic else value

    def back(self, value: float) -> float:
        """From the scale; of a difference: the factor, or the difference."""
        return round(exp(value), 9) if self.logarithmic else value  # 80, not 79.999..


IMAGES, SHARES = Scale(True, 1.0, None), Scale(False, 0.0, 1.0)


@dataclass(frozen=True)
class Said:
    """What one predictor says; errors as ``Scale.back`` has them."""

    value: float
    low: float
    high: float | None
    level: float
    error: float
    off: float
    p: float
    references: tuple[float, ...]


def judge(
    predictors: Sequence[Predictor], labels: Sequence[float], truth: float, scale: Scale, seed: int
) -> tuple[list[Said], float, float]:
    """What each predictor says of adapter n, whose label is ``truth``, from adapters 0 to n - 1 with their ``labels``.

    The truth is used for ``Said.off`` alone. Values and predictions are never beyond the least and the most label, and
    an interval that reaches them is open there: what lies beyond, the references cannot show.

    Returns:
        What they say, the error of who says the mean of all labels, and the p-value of the best, corrected.
    """
    n = len(labels)
    y = np.array([scale.forth(label) for label in labels])
    lowest, highest = y.min(), y.max()
    everyone = np.arange(n)
    others = [np.delete(everyone, i) for i in everyone]
    order = np.random.default_rng(stream_seed(seed, "labels"))
    shuffled = np.stack([order.permutation(y) for _ in range(PERMUTATIONS)])  # [B, n]
    level = best_level(n)
    found, errors, chance = [], [], []
    for predictor in predictors:
        rows = np.stack([predictor.row(known, i) for i, known in enumerate(others)])

        def read(rows: Floats, values: Floats, predictor: Predictor = predictor) -> Floats:
            padded = np.concatenate([values, np.zeros((*values.shape[:-1], 1))], -1)  # of the adapter that is asked
            return np.clip(predictor.read(rows, padded), lowest, highest)

        own = read(rows, y)
        value = float(read(predictor.row(everyone, n)[None], y)[0])
        without = read(np.stack([predictor.row(known, n) for known in others]), y)
        low, high = jackknife_minmax(without, own - y, level)
        errors.append(np.abs(own - y).mean())
        chance.append(np.abs(read(rows, shuffled) - shuffled).mean(1))
        if predictor.names_labels:
            low, high = whole_cells(low, high, y)
        touches = 1e-9 * max(1.0, abs(lowest), abs(highest))
        found.append(
            Said(
                value=scale.back(value),
                low=scale.least if low <= lowest + touches else scale.back(low),
                high=scale.most if high >= highest - touches else scale.back(high),
                level=level,
                error=scale.back(float(errors[-1])),
                off=scale.back(abs(value - scale.forth(truth))),
                p=1.0,
                references=tuple(scale.back(float(one)) for one in own),
            )
        )
    alone, corrected = permutation_p(np.array(errors), np.stack(chance, 1))
    said = [replace(one, p=float(p)) for one, p in zip(found, alone, strict=True)]
    return said, scale.back(float(np.abs(y - y.mean()).mean())), corrected


def whole_cells(low: float, high: float, labels: Floats) -> tuple[float, float]:
    """An interval widened to where the next labels become nearer: what only names labels knows no better."""
    values = np.unique(labels)
    edges = (values[1:] + values[:-1]) / 2
    return float(max(edges[edges <= low], default=values[0])), float(min(edges[edges >= high], default=values[-1]))
