"""Proximal initialisation: is the noise predicted at t = 0 predicted again at t? (Kong et al. 2024)"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import BestColumn
from smplora.core.arrays import Floats

TIMESTEPS = (50, 100, 150, 200, 300)  # of 1000; the paper scans, later work takes 200
POWER = 4


def proximal_errors(view: GreyBoxView, normalised: bool) -> torch.Tensor:
    """||eps0 - eps(sqrt(abar) z0 + sqrt(1 - abar) eps0, t)||_4^4 with eps0 = eps(z0, 0), scaled to the mean absolute
    value of a Gaussian if ``normalised``: [b, T]."""
    clean = view.batch.mean.cpu()
    start = view.predict(clean, 0)
    if normalised:
        start = start / start.abs().mean((1, 2, 3), keepdim=True) * math.sqrt(2 / math.pi)
    errors = []
    for t in (at_scale(x, view.num_train_timesteps) for x in TIMESTEPS):
        abar = view.alphas_cumprod[t]
        prediction = view.predict(abar.sqrt() * clean + (1 - abar).sqrt() * start, t)
        errors.append(view.difference(start, prediction).pow(POWER).flatten(1).sum(1))
    return torch.stack(errors, 1)


@dataclass(frozen=True)
class PIAAttack(Attack):
    """s(x) = -R_t(x), t chosen on aux."""

    normalised: bool = False
    info = AttackInfo(
        title="PIA, proximal initialisation",
        access=Access.GREY_BOX,
        reference="Kong et al. 2024",
        bibtex="""@inproceedings{kong2024efficient,
  title={An Efficient Membership Inference Attack for the Diffusion Model by Proximal Initialization},
  author={Kong, Fei and Duan, Jinhao and Ma, RuiPeng and Shen, Hengtao and Zhu, Xiaofeng and Shi, Xiaoshuang and Xu, Kaidi},
  booktitle={International Conference on Learning Representations}, year={2024}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """-R_t: [b, T]."""
        return -proximal_errors(view, self.normalised).double().numpy()

    def scorer(self, seed: int) -> BestColumn:
        """The timestep is chosen on aux."""
        return BestColumn()


@dataclass(frozen=True)
class PIANAttack(PIAAttack):
    """PIA with eps0 normalised."""

    normalised: bool = True
    info = replace(PIAAttack.info, title="PIAN, normalised proximal initialisation")
