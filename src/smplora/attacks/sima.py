"""SimA: the norm of the denoiser's answer at the image itself, without noise (Rao et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from smplora.attacks.loss import at_scale
from smplora.contracts import Access, Attack, AttackInfo, Floats, GreyBoxView
from smplora.scorers import BestColumn

TIMESTEPS = range(0, 200, 10)  # of 1000
POWER = 4


@dataclass(frozen=True)
class SimAAttack(Attack):
    """s_t(x) = -||eps(z0, t, y)||_4^4, t chosen on aux."""

    info = AttackInfo(
        title="SimA, norm of the answer without noise",
        access=Access.GREY_BOX,
        reference="Rao et al. 2025",
        bibtex="""@article{rao2025score,
  title={Score-based Membership Inference on Diffusion Models},
  author={Rao, Mingxing and Qu, Bowen and Moyer, Daniel},
  journal={Transactions on Machine Learning Research}, year={2025}, note={arXiv 2509.25003}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """s_t: [b, T]."""
        clean, silence = view.batch.mean.cpu(), torch.zeros(())
        steps = dict.fromkeys(at_scale(t, view.num_train_timesteps) for t in TIMESTEPS)
        norms = [view.difference(view.predict(clean, t), silence).pow(POWER).flatten(1).sum(1) for t in steps]
        return -torch.stack(norms, 1).double().numpy()

    def scorer(self, seed: int) -> BestColumn:
        """The timestep is chosen on aux."""
        return BestColumn()
