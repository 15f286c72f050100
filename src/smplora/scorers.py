"""Signals -> score, "higher = member". Fitted on aux, applied to test."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smplora.contracts import Attack, Bools, Floats
from smplora.metrics import auc

FOLDS = 5


class StandardisedMean:
    """Mean of the signals after scaling each by the aux non-members' mean and deviation; the sign is aux's.

    Without the scaling the noisiest timestep would decide alone.
    """

    def fit(self, signals: Floats, is_member: Bools) -> StandardisedMean:
        """``signals`` [n, k]."""
        outside = signals[~is_member]
        self.mean, self.deviation = outside.mean(0), np.maximum(outside.std(0), 1e-12)
        self.sign = 1.0
        self.sign = 1.0 if auc(self.score(signals), is_member) >= 0.5 else -1.0
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        scores: Floats = self.sign * ((signals - self.mean) / self.deviation).mean(1)
        return scores


class Logistic:
    """Logistic regression (L2, C = 1) on standardised signals: the log-odds of membership."""

    def fit(self, signals: Floats, is_member: Bools) -> Logistic:
        """``signals`` [n, k]."""
        self.model: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(signals, is_member)
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        scores: Floats = self.model.decision_function(signals)
        return scores


def out_of_fold(attack: Attack, signals: Floats, is_member: Bools, seed: int) -> Floats:
    """Scores [n] of the aux samples, each by a scorer that was fitted without it (stratified folds).

    In-sample scores would flatter whatever fits most closely. The folds' scores are put on one scale by their
    fitting samples' mean and deviation.
    """
    folds = min(FOLDS, int(is_member.sum()), int((~is_member).sum()))
    scores = np.empty(len(is_member))
    for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(
        np.zeros(len(is_member)), is_member
    ):
        scorer = attack.scorer(seed).fit(signals[fit], is_member[fit])
        inside = scorer.score(signals[fit])
        scores[held] = (scorer.score(signals[held]) - inside.mean()) / max(float(inside.std()), 1e-12)
    return scores
