"""SecMI: how well does deterministic DDIM return to where it was? (Duan et al. 2023)

Walk up from z0 along the predictions, take one step further and one back; members come back more exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.classifiers import Recipe, ResNet
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats
from smplora.core.device import choose_device
from smplora.models import ddim
from smplora.models.proxy import at_size

RECIPE = Recipe(
    stages=4, epochs=15, batch=128, optimizer="SGD", settings={"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
    regression=True,
)  # fmt: skip
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
    """A ResNet-18 on |t-error|, with the authors' settings (nns_attack in mia_evals/secmia.py of jinhaoduan/SecMI).

    They train on a fifth of all images, here it is the other half. Their code means to take the epoch that is best on the
    test images, but never updates what it compares with, so that it takes the last, as here. Their network is for images
    of 32 pixels; larger maps are averaged. Batches of 128 are an epoch of one step where cells are small, so that it learns
    little there.
    """

    device: str = field(default="cpu", compare=False)  # where the network is fitted; the signals are the same
    info = replace(SecMIAttack.info, title="SecMI, network")

    def signals(self, view: GreyBoxView) -> Floats:
        """|t-error|: [b, c, h, w]."""
        errors: Floats = at_size(returned(view).abs(), view.latent_size).numpy()
        return errors

    def scorer(self, seed: int) -> ResNet:
        """A fresh network."""
        return ResNet(seed, RECIPE, choose_device(self.device))
