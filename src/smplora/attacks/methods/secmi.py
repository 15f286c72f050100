"""SecMI: how well does deterministic DDIM return to where it was? (Duan et al. 2023)

Walk up from z0 along the predictions, take one step further and one back; members come back more exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.classifiers import ResNet
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats
from smplora.models import ddim
from smplora.models.proxy import at_size

EPOCHS = 15
STEP, LEVEL = 10, 140  # of 1000; SecMI's code for latent diffusion compares at 140, its paper at 100 for pixels


def returned(view: GreyBoxView) -> torch.Tensor:
    """phi(phi(x_t, t -> t + k), t + k -> t) - x_t, x_t reached from z0 in steps of k: [b, c, h, w]."""
    t, k = (at_scale(x, view.num_train_timesteps) for x in (LEVEL, STEP))
    abar = view.alphas_cumprod
    there = ddim.walk(view.predict, view.batch.mean.cpu(), range(0, t + 1, k), abar)
    return view.difference(ddim.walk(view.predict, there, [t, t + k, t], abar), there)


@dataclass(frozen=True)
class SecMIAttack(Attack):
    """s(x) = -||t-error||^2."""

    info = AttackInfo(
        title="SecMI, t-error",
        access=Access.GREY_BOX,
        reference="Duan et al. 2023",
        bibtex="""@inproceedings{duan2023are,
  title={Are Diffusion Models Vulnerable to Membership Inference Attacks?},
  author={Duan, Jinhao and Kong, Fei and Wang, Shiqi and Shi, Xiaoshuang and Xu, Kaidi},
  booktitle={International Conference on Machine Learning}, year={2023}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """-||t-error||^2: [b, 1]."""
        return -returned(view).square().flatten(1).sum(1, keepdim=True).double().numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()


@dataclass(frozen=True)
class SecMINetworkAttack(Attack):
    """A ResNet-18 on |t-error| with the authors' settings (mia_evals/secmia.py of their code), but of the last epoch: theirs is
    the one that is best on the test images. Batches of 128 are an epoch of one step where cells are small, so that it learns
    little there."""

    info = replace(SecMIAttack.info, title="SecMI, network")

    def signals(self, view: GreyBoxView) -> Floats:
        """|t-error|: [b, c, h, w]."""
        errors: Floats = at_size(returned(view).abs(), view.latent_size).numpy()
        return errors

    def scorer(self, seed: int) -> ResNet:
        """A fresh network."""
        return ResNet(seed, epochs=EPOCHS, batch=128, optimizer="SGD", lr=1e-3, momentum=0.9, weight_decay=5e-4)
