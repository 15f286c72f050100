"""Two-sided attacks: a loss that a defence pushed past that of strangers is as telling as one below it.

Adversarial regularisation can overshoot: its members are no longer too easy but too average, or too hard. An adaptive
attacker asks how unusual a loss is, not how low (Song and Mittal 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

from smplora.attacks.base import Access, AttackInfo
from smplora.attacks.methods.calibrated_loss import CalibratedLossAttack
from smplora.attacks.methods.loss import LossAttack
from smplora.attacks.scorers import Unusual

BIBTEX = """@inproceedings{song2021systematic,
  title={Systematic Evaluation of Privacy Risks of Machine Learning Models},
  author={Song, Liwei and Mittal, Prateek},
  booktitle={USENIX Security Symposium}, year={2021}}"""
REFERENCE = "adaptive attacks, after Song and Mittal 2021"


@dataclass(frozen=True)
class TwoSidedLossAttack(LossAttack):
    """s(x) = mean over timesteps of |l_ada(x; t) - median of aux non-members| / their spread."""

    info = AttackInfo("Loss, unusual on either side", Access.GREY_BOX, REFERENCE, BIBTEX)

    def scorer(self, seed: int) -> Unusual:
        """Median and spread of aux non-members."""
        return Unusual()


@dataclass(frozen=True)
class TwoSidedCalibratedLossAttack(CalibratedLossAttack):
    """The same of delta_t(x), the loss calibrated by the base model."""

    info = AttackInfo("Calibrated loss, unusual on either side", Access.GREY_BOX, REFERENCE, BIBTEX)

    def scorer(self, seed: int) -> Unusual:
        """Median and spread of aux non-members."""
        return Unusual()
