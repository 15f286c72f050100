"""Loss threshold at one timestep and one noise: the naive attack that others are compared with (Matsumoto et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats
from smplora.models.diffusion import adaptation_loss


@dataclass(frozen=True)
class SingleLossAttack(Attack):
    """s(x) = -l_ada(x; t), t = 100 of 1000 (Carlini et al. 2023 find it best)."""

    timestep: int = 100
    info = AttackInfo(
        title="Loss threshold, one timestep",
        access=Access.GREY_BOX,
        reference="Matsumoto et al. 2023",
        bibtex="""@inproceedings{matsumoto2023membership,
  title={Membership Inference Attacks against Diffusion Models},
  author={Matsumoto, Tomoya and Miura, Takayuki and Yanai, Naoto},
  booktitle={IEEE Security and Privacy Workshops}, year={2023}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """-l_ada: [b, 1]."""
        t = at_scale(self.timestep, view.num_train_timesteps)
        return -adaptation_loss(view.error_maps("pair0", t))[:, None].double().numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()
