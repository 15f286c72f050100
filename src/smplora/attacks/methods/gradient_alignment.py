"""The sample's gradient along what training added to the weights (after Nasr et al. 2019; a first-order loss gap).

l(W - dW) = l(W) - <gradient, dW> + ...: for images that the update was made for, undoing it costs most.
"""

from __future__ import annotations

from dataclasses import dataclass

from smplora.attacks.base import Access, Attack, AttackInfo, WhiteBoxView
from smplora.attacks.methods.gsa import TIMESTEPS
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import StandardisedMean
from smplora.core.arrays import Floats


@dataclass(frozen=True)
class GradientAlignmentAttack(Attack):
    """s(x) = -<gradient of l(x), dW> over all adapted layers, standardised at each timestep and averaged."""

    info = AttackInfo(
        title="Gradient along the weight update",
        access=Access.WHITE_BOX,
        reference="after Nasr et al. 2019",
        bibtex="""@inproceedings{nasr2019comprehensive,
  title={Comprehensive Privacy Analysis of Deep Learning: Passive and Active White-box Inference Attacks against Centralized and Federated Learning},
  author={Nasr, Milad and Shokri, Reza and Houmansadr, Amir},
  booktitle={IEEE Symposium on Security and Privacy}, year={2019}}""",
    )

    def signals(self, view: WhiteBoxView) -> Floats:
        """At each timestep: [b, K]. The draws are GSA's."""
        draws = [f"gsa{k}" for k in range(len(TIMESTEPS))]
        steps = [at_scale(t, view.num_train_timesteps) for t in TIMESTEPS]
        return -view.gradients(draws, steps, "adapter").along_update.sum(2).double().numpy()

    def scorer(self, seed: int) -> StandardisedMean:
        """Scaled by aux non-members."""
        return StandardisedMean()
