"""Loss calibrated by the base model: how much easier did the adapter make this image? (Watson et al. 2022)

An adapter brings its own reference model: itself, switched off.
"""

from __future__ import annotations

from dataclasses import dataclass

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView, Scorer
from smplora.attacks.methods.loss import loss_vector
from smplora.attacks.scorers import Logistic
from smplora.core.arrays import Floats


@dataclass(frozen=True)
class CalibratedLossAttack(Attack):
    """delta_t(x) = log l_base(x; t) - log l_adapted(x; t) at common noise, as a vector over t, to a logistic regression."""

    num_timesteps: int = 8
    noise_pairs: int = 2
    info = AttackInfo(
        title="Loss calibrated by the base model",
        access=Access.GREY_BOX,
        reference="difficulty calibration, Watson et al. 2022",
        bibtex="""@inproceedings{watson2022importance,
  title={On the Importance of Difficulty Calibration in Membership Inference Attacks},
  author={Watson, Lauren and Guo, Chuan and Cormode, Graham and Sablayrolles, Alexandre},
  booktitle={International Conference on Learning Representations}, year={2022}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """delta_t: [b, T]."""
        base = loss_vector(view, self.num_timesteps, self.noise_pairs, adapted=False)
        adapted = loss_vector(view, self.num_timesteps, self.noise_pairs)
        return (base.double().log() - adapted.double().log()).numpy()

    def scorer(self, seed: int) -> Scorer:
        """Fitted on aux."""
        return Logistic()
