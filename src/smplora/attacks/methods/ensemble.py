"""Several attacks as one: their scores, to a logistic regression (stacking; the features of CDI, Dubinski et al. 2025)

Each attack is fitted on aux as if it were alone. What the regression learns from are its out-of-fold scores, so that
attacks that fit closely count for no more than they are worth. Nothing new is asked of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView, Scorer
from smplora.attacks.fitting import out_of_fold, standardised
from smplora.attacks.methods.calibrated_loss import CalibratedLossAttack
from smplora.attacks.methods.clid import CLiDAttack
from smplora.attacks.methods.loss import LossAttack
from smplora.attacks.methods.loss_vector import LossVectorAttack
from smplora.attacks.methods.pfami import CalibratedPFAMIAttack, PFAMIAttack
from smplora.attacks.methods.pia import PIAAttack
from smplora.attacks.methods.secmi import SecMIAttack
from smplora.attacks.methods.sima import SimAAttack, SimAMonteCarloAttack
from smplora.attacks.methods.two_sided import TwoSidedCalibratedLossAttack
from smplora.attacks.scorers import Logistic
from smplora.core.arrays import Bools, Floats
from smplora.core.registry import from_options

PARTS: tuple[type[Attack], ...] = (
    LossAttack,
    LossVectorAttack,
    CalibratedLossAttack,
    TwoSidedCalibratedLossAttack,
    SecMIAttack,
    PIAAttack,
    PFAMIAttack,
    CalibratedPFAMIAttack,
    SimAAttack,
    SimAMonteCarloAttack,
    CLiDAttack,
)


class Stacked:
    """Log-odds of membership from the parts' scores. Signals [n, parts, w + 1]: of each part its signals, zeros up to
    the widest, and how many there are."""

    def __init__(self, parts: Sequence[Attack], seed: int) -> None:
        self.parts, self.seed, self.weights = parts, seed, Logistic()

    def fit(self, signals: Floats, is_member: Bools) -> Stacked:
        """Parts on aux, weights on their out-of-fold scores."""
        self.fitted: list[tuple[Scorer, Floats]] = []
        held = []
        for part, own in zip(self.parts, _parted(signals), strict=True):
            scorer = part.scorer(self.seed).fit(own, is_member)
            self.fitted.append((scorer, scorer.score(own)))
            held.append(out_of_fold(part, own, is_member, self.seed))
        self.weights.fit(np.stack(held, 1), is_member)
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, parts, w + 1] -> [n]."""
        parted = zip(self.fitted, _parted(signals), strict=True)
        return self.weights.score(np.stack([standardised(s.score(own), inside) for (s, inside), own in parted], 1))


def _parted(signals: Floats) -> list[Floats]:
    return [signals[:, part, : int(width)] for part, width in enumerate(signals[0, :, -1])]


@dataclass(frozen=True)
class EnsembleAttack(Attack):
    """Logistic regression on the scores of the grey-box attacks that cost little."""

    num_timesteps: int = 8
    noise_pairs: int = 2
    info = AttackInfo(
        title="Ensemble of grey-box attacks",
        access=Access.GREY_BOX,
        reference="stacking; after CDI, Dubinski et al. 2025",
        bibtex=LossVectorAttack.info.bibtex,
    )

    @property
    def parts(self) -> tuple[Attack, ...]:
        """Attacks of ``PARTS`` that look as often as this one."""
        return tuple(from_options(part, self) for part in PARTS)

    def signals(self, view: GreyBoxView) -> Floats:
        """See ``Stacked``."""
        measured = [part.signals(view).reshape(len(view.batch), -1) for part in self.parts]
        signals = np.zeros((len(view.batch), len(measured), max(own.shape[1] for own in measured) + 1))
        for part, own in enumerate(measured):
            signals[:, part, : own.shape[1]], signals[:, part, -1] = own, own.shape[1]
        return signals

    def scorer(self, seed: int) -> Stacked:
        """Fitted on aux."""
        return Stacked(self.parts, seed)
