"""An attack learns from one half of the images and is read once on the other, and the other way round.

Aux and test are halves of one collection, drawn at random. What an attack says of test it has learned from aux, what it
says of aux it has learned from test (cross-fitting: Chernozhukov et al. 2018, "Double/debiased machine learning for
treatment and structural parameters"). Given what was learned, the scores of a half are independent of each other, as every
interval and permutation takes for granted; scores out of fold over one shared set are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

from smplora.attacks.base import Attack, Scorer
from smplora.core.arrays import Bools, Floats
from smplora.statistics.curves import best_threshold, direction

FOLDS = 3  # of a half, for choices made within it


def out_of_fold(attack: Attack, signals: Floats, is_member: Bools, seed: int) -> Floats:
    """Score each of n samples by a scorer that was fitted without it (stratified folds): [n].

    In-sample scores would flatter whatever fits most closely. The folds' scores are put on one scale by their fitting
    samples' mean and deviation. They hang together through the folds that they share: good for choosing, but their AUC
    varies 1.2 to 1.5 times as much as that of independent scores, so that nothing is claimed from them.
    """
    folds = min(FOLDS, int(is_member.sum()), int((~is_member).sum()))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    scores = np.empty(len(is_member))
    for fit, held in splits.split(np.zeros(len(is_member)), is_member):
        scorer = attack.scorer(seed).fit(signals[fit], is_member[fit])
        scores[held] = standardised(scorer.score(signals[held]), scorer.score(signals[fit]))
    return scores


def standardised(scores: Floats, inside: Floats) -> Floats:
    """``scores`` by mean and deviation of ``inside``."""
    scaled: Floats = (scores - inside.mean()) / max(float(inside.std()), 1e-12)
    return scaled


@dataclass(frozen=True)
class Reading:
    """What an attack says of one half of the images, having learned from the other half alone."""

    scores: Floats  # [n], higher = member, in the direction that the other half showed
    threshold: float  # for them: of the other half's scores, out of fold
    sign: int  # -1: the attack's own scores were turned round
    held: Floats  # [m] of the other half, out of fold, in that direction: what an attack is chosen by

    @property
    def decisions(self) -> Bools:
        """Who is accused: [n]."""
        accused: Bools = self.scores >= self.threshold
        return accused


@dataclass(frozen=True)
class Learned:
    """An attack that was fitted on one half and has not seen the other."""

    scorer: Scorer
    inside: Floats  # [m], scores of the samples that it was fitted on
    held: Floats  # [m], of the same samples, out of fold and in the direction of ``sign``
    sign: int
    threshold: float

    def read(self, signals: Floats) -> Reading:
        """Score the other half, once.

        Its scores are standardised by all of the fitting half as out-of-fold scores are by their folds, so one
        threshold serves.
        """
        scores = self.sign * standardised(self.scorer.score(signals), self.inside)
        return Reading(scores, self.threshold, self.sign, self.held)


def learn(attack: Attack, signals: Floats, is_member: Bools, seed: int) -> Learned:
    """Fit the attack on one half: all that it will ever learn about the other. That is no argument: nothing fitted can
    depend on its membership."""
    scorer = attack.scorer(seed).fit(signals, is_member)
    held = out_of_fold(attack, signals, is_member, seed)
    sign = direction(held, is_member)
    return Learned(scorer, scorer.score(signals), sign * held, sign, best_threshold(sign * held, is_member))
