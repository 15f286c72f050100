"""Signals -> score, "higher = member". Fitted on aux, applied to test."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smplora.core.arrays import Bools, Floats
from smplora.core.errors import ConfigError
from smplora.statistics.curves import auc


class StandardisedMean:
    """Mean of the signals after scaling each by the aux non-members' mean and deviation.

    Without the scaling the noisiest timestep would decide alone. The sign is not fitted: the verdict looks at both
    sides of 0.5, and a sign that flips between folds would blur the scores of the aux members.
    """

    def fit(self, signals: Floats, is_member: Bools) -> StandardisedMean:
        """``signals`` [n, k]."""
        outside = signals[~is_member]
        self.mean, self.deviation = outside.mean(0), np.maximum(outside.std(0), 1e-12)
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        scores: Floats = ((signals - self.mean) / self.deviation).mean(1)
        return scores


class Unusual:
    """Mean over signals of the distance to the aux non-members' median, in units of their median absolute deviation."""

    def fit(self, signals: Floats, is_member: Bools) -> Unusual:
        """``signals`` [n, k]."""
        outside = signals[~is_member]
        self.median = np.median(outside, 0)
        self.spread = np.maximum(np.median(np.abs(outside - self.median), 0), 1e-12)
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        scores: Floats = (np.abs(signals - self.median) / self.spread).mean(1)
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


class Mean:
    """Mean of the signals as they are. Nothing is fitted."""

    def fit(self, signals: Floats, is_member: Bools) -> Mean:
        """``signals`` [n, ...]."""
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, ...] -> [n]."""
        scores: Floats = signals.reshape(len(signals), -1).mean(1)
        return scores


class BestColumn:
    """The one signal, such as a timestep, whose AUC on aux is farthest from 0.5; its sign stays (StandardisedMean)."""

    def fit(self, signals: Floats, is_member: Bools) -> BestColumn:
        """``signals`` [n, k]."""
        self.column = int(np.argmax([abs(auc(column, is_member) - 0.5) for column in signals.T]))
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        return signals[:, self.column]


class Boosted:
    """Gradient-boosted trees (XGBoost): the log-odds of membership. ``settings`` are those of XGBClassifier."""

    def __init__(self, seed: int, **settings: Any) -> None:
        """Raises:
        ConfigError: XGBoost is not installed.
        """
        self.model: Any = _xgboost().XGBClassifier(random_state=seed % 2**31, n_jobs=1, **settings)

    def fit(self, signals: Floats, is_member: Bools) -> Boosted:
        """``signals`` [n, k]."""
        self.model.fit(signals, is_member)
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        scores: Floats = self.model.predict(signals, output_margin=True).astype(np.float64)
        return scores


def _xgboost() -> Any:
    try:
        return import_module("xgboost")
    except ImportError as error:
        raise ConfigError(
            "--attacks got one that needs XGBoost: pip install smplora[xgboost], or leave out gsa and clid_vector"
        ) from error
