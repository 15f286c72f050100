"""PFAMI: around a member the loss rises more than around others (Fu et al. 2023)

Members sit on local peaks of the likelihood. Neighbours are centre crops, scaled back, seen under the same noise as
the image itself (the authors' code draws noise anew).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.classifiers import Recipe, ResNet
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats
from smplora.core.device import choose_device
from smplora.models.diffusion import adaptation_loss

TIMESTEPS = range(0, 500, 50)  # of 1000
RECIPE = Recipe(stages=2, epochs=110, batch=None, optimizer="Adam", settings={"lr": 0.01}, regression=False)
WIDEST, NARROWEST = 0.95, 0.7  # share of the edge that a crop keeps


def shares(crops: int) -> list[float]:
    """What the crops keep: the middle for one, else evenly over the range."""
    return [(WIDEST + NARROWEST) / 2] if crops == 1 else [float(s) for s in np.linspace(WIDEST, NARROWEST, crops)]


def cropped(pixels: Tensor, share: float) -> Tensor:
    """The centre, scaled back: [b, 3, H, W] -> [b, 3, H, W]."""
    height, width = pixels.shape[-2:]
    sides = [max(1, round(share * edge)) for edge in (height, width)]
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    centre = pixels[..., top : top + sides[0], left : left + sides[1]]
    return F.interpolate(centre, (height, width), mode="bilinear", antialias=True, align_corners=False)


def fluctuations(view: GreyBoxView, crops: int, *, adapted: bool = True) -> Tensor:
    """(l_t(x_m) - l_t(x)) / l_t(x) of each crop m at each timestep: [b, M, T]."""
    steps = list(dict.fromkeys(at_scale(t, view.num_train_timesteps) for t in TIMESTEPS))

    def losses(latents: Tensor | None = None) -> Tensor:
        maps = [view.error_maps("pair0", t, latents=latents, adapted=adapted) for t in steps]
        return torch.stack([adaptation_loss(m) for m in maps], 1)

    own = losses()
    rises = [(losses(view.encode(cropped(view.pixels, share))) - own) / own for share in shares(crops)]
    return torch.stack(rises, 1)


@dataclass(frozen=True)
class PFAMIAttack(Attack):
    """s(x) = mean over crops and timesteps of the relative rise of the loss."""

    pfami_crops: int = 1
    info = AttackInfo(
        title="PFAMI, probabilistic fluctuation",
        access=Access.GREY_BOX,
        reference="Fu et al. 2023",
        bibtex="""@article{fu2023probabilistic,
  title={A Probabilistic Fluctuation based Membership Inference Attack for Diffusion Models},
  author={Fu, Wenjie and Wang, Huandong and Gao, Chen and Liu, Guanghua and Li, Yong and Jiang, Tao},
  journal={arXiv preprint arXiv:2308.12143}, year={2023}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """[b, M, T]."""
        return fluctuations(view, self.pfami_crops).double().numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()


@dataclass(frozen=True)
class CalibratedPFAMIAttack(PFAMIAttack):
    """The rise minus that of the base model, which crops of some images surprise more than of others (the paper's
    calibration; the base model is the reference)."""

    info = replace(PFAMIAttack.info, title="PFAMI, calibrated by the base model")

    def signals(self, view: GreyBoxView) -> Floats:
        """[b, M, T]."""
        risen = (fluctuations(view, self.pfami_crops, adapted=adapted).double() for adapted in (True, False))
        return (next(risen) - next(risen)).numpy()


@dataclass(frozen=True)
class PFAMINetworkAttack(Attack):
    """The first half of a ResNet-18 on the matrix of rises, ten timesteps by ten crops, with the authors' settings
    (attack_model_PFAMI.py, resnet.py and config.yaml of wjfu99/MIA-Gen: their forward pass leaves out the last two stages).

    They train on the images of a shadow model, here it is the other half. Their configuration subtracts the rises of a
    reference model, which here only pfami_calibrated does.
    """

    crops: int = 10
    device: str = field(default="cpu", compare=False)  # where the network is fitted; the signals are the same
    info = replace(PFAMIAttack.info, title="PFAMI, network")

    def signals(self, view: GreyBoxView) -> Floats:
        """[b, 1, T, M]."""
        return fluctuations(view, self.crops).mT[:, None].numpy()

    def scorer(self, seed: int) -> ResNet:
        """A fresh network."""
        return ResNet(seed, RECIPE, choose_device(self.device))
