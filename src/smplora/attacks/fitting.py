"""Attacks are fitted on aux, out of fold, and applied to test once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

from smplora.attacks.base import Attack, Scorer
from smplora.core.arrays import Bools, Floats
from smplora.statistics.curves import best_threshold

FOLDS = 5


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
class FittedScores:
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

    def score(self, test: Floats) -> FittedScores:
        """Score test once.

        Test scores are standardised by all of aux as out-of-fold scores are by their folds, so one threshold serves.
        """
        return FittedScores(standardised(self.scorer.score(test), self.inside), self.threshold, self.aux)


def learn(attack: Attack, aux: Floats, aux_member: Bools, seed: int) -> Learned:
    """Fit the attack on aux: all that it will ever learn. The test cells are no argument: nothing fitted can depend on
    their membership."""
    scorer = attack.scorer(seed).fit(aux, aux_member)
    inside = scorer.score(aux)
    held = out_of_fold(attack, aux, aux_member, seed)
    return Learned(scorer, inside, best_threshold(held.scores, aux_member), held)
