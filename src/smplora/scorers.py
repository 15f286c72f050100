"""Signals -> score, "higher = member". Fitted on aux, applied to test."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smplora.contracts import Attack, Scorer
from smplora.core.arrays import Bools, Floats
from smplora.core.errors import ConfigError
from smplora.statistics.curves import auc, best_threshold

FOLDS = 5


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


@dataclass(frozen=True)
class OutOfFold:
    """What attackers say of aux samples that they did not learn from."""

    scores: Floats  # [n]
    decisions: Bools  # [n], member or not, by thresholds from other folds


def out_of_fold(attack: Attack, signals: Floats, is_member: Bools, seed: int) -> OutOfFold:
    """Judge each of n aux samples by a scorer that was fitted without it (stratified folds), and by a threshold that
    was fitted without it (on the other folds' scores).

    In-sample scores would flatter whatever fits most closely. The folds' scores are put on one scale by their
    fitting samples' mean and deviation.
    """
    folds = min(FOLDS, int(is_member.sum()), int((~is_member).sum()))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    scores, fold_of = np.empty(len(is_member)), np.empty(len(is_member), dtype=int)
    for number, (fit, held) in enumerate(splits.split(np.zeros(len(is_member)), is_member)):
        scorer = attack.scorer(seed).fit(signals[fit], is_member[fit])
        inside = scorer.score(signals[fit])
        scores[held], fold_of[held] = standardised(scorer.score(signals[held]), inside), number
    decisions = np.empty(len(is_member), dtype=bool)
    for number in range(folds):
        held = fold_of == number
        decisions[held] = scores[held] >= best_threshold(scores[~held], is_member[~held])
    return OutOfFold(scores, decisions)


def standardised(scores: Floats, inside: Floats) -> Floats:
    """``scores`` by mean and deviation of ``inside``."""
    scaled: Floats = (scores - inside.mean()) / max(float(inside.std()), 1e-12)
    return scaled


@dataclass(frozen=True)
class Judged:
    """One attack's result on both groups."""

    test: Floats  # [n_test] scores
    threshold: float  # for them, fitted on the out-of-fold scores of aux
    aux: OutOfFold


@dataclass(frozen=True)
class Learned:
    """An attack that was fitted on aux and has not seen the test cells."""

    scorer: Scorer
    inside: Floats  # [n], scores of the samples that it was fitted on
    threshold: float  # fitted on the out-of-fold scores of aux
    aux: OutOfFold

    def judge(self, test: Floats) -> Judged:
        """Score test once.

        Test scores are standardised by all of aux as out-of-fold scores are by their folds, so one threshold serves.
        """
        return Judged(standardised(self.scorer.score(test), self.inside), self.threshold, self.aux)


def learn(attack: Attack, aux: Floats, aux_member: Bools, seed: int) -> Learned:
    """Fit the attack on aux: all that it will ever learn."""
    scorer = attack.scorer(seed).fit(aux, aux_member)
    inside = scorer.score(aux)
    held = out_of_fold(attack, aux, aux_member, seed)
    return Learned(scorer, inside, best_threshold(held.scores, aux_member), held)


def judge(attack: Attack, aux: Floats, aux_member: Bools, test: Floats, seed: int) -> Judged:
    """Fit on aux, score test once. Test membership is no argument: nothing fitted can depend on it."""
    return learn(attack, aux, aux_member, seed).judge(test)
