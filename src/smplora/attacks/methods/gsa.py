"""GSA: gradient norms of every weight tensor, told apart by boosted trees (Pang et al. 2025)

The authors attack shadow models and transfer; here the trees are fitted on the aux cells of the adapter itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from smplora.attacks.base import Access, Attack, AttackInfo, WhiteBoxView
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import Boosted
from smplora.core.arrays import Floats

TIMESTEPS = range(99, 1000, 100)  # of 1000, a noise of its own at each
TREES = 200


@dataclass(frozen=True)
class GSA1Attack(Attack):
    """||gradient of the mean loss over timesteps||, one number per adapter tensor."""

    layers: ClassVar[str] = "adapter"
    info = AttackInfo(
        title="GSA1, gradient of the mean loss",
        access=Access.WHITE_BOX,
        reference="Pang et al. 2025",
        bibtex="""@article{pang2025white,
  title={White-box Membership Inference Attacks against Diffusion Models},
  author={Pang, Yan and Wang, Tianhao and Kang, Xuhui and Huai, Mengdi and Zhang, Yang},
  journal={Proceedings on Privacy Enhancing Technologies}, year={2025}, note={arXiv 2308.06405}}""",
    )

    def signals(self, view: WhiteBoxView) -> Floats:
        """Norms: [b, tensors]."""
        draws = [f"gsa{k}" for k in range(len(TIMESTEPS))]
        steps = [at_scale(t, view.num_train_timesteps) for t in TIMESTEPS]
        gradients = view.gradients(draws, steps, self.layers)
        return self.features(gradients.norms.mean(1).double().numpy(), gradients.norms_of_mean.double().numpy())

    def features(self, mean_of_norms: Floats, norms_of_mean: Floats) -> Floats:
        """Which of the two: [b, tensors]."""
        return norms_of_mean

    def scorer(self, seed: int) -> Boosted:
        """XGBoost's defaults, 200 trees, as in the paper."""
        return Boosted(seed, n_estimators=TREES)


@dataclass(frozen=True)
class GSA2Attack(GSA1Attack):
    """Mean over timesteps of ||gradient of the loss||, one number per adapter tensor."""

    info = replace(GSA1Attack.info, title="GSA2, gradients of the losses")

    def features(self, mean_of_norms: Floats, norms_of_mean: Floats) -> Floats:
        """The first: [b, tensors]."""
        return mean_of_norms


@dataclass(frozen=True)
class GSA1BaseAttack(GSA1Attack):
    """GSA1 on the base weights of the adapted layers, the adapter switched on."""

    layers: ClassVar[str] = "base"
    info = replace(GSA1Attack.info, title="GSA1 on the base weights")


@dataclass(frozen=True)
class GSA2BaseAttack(GSA2Attack):
    """GSA2 on the base weights of the adapted layers, the adapter switched on."""

    layers: ClassVar[str] = "base"
    info = replace(GSA2Attack.info, title="GSA2 on the base weights")
