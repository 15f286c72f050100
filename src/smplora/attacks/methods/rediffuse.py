"""ReDiffuse: does a variation of the image, averaged, look like the image? (Li et al. 2024)"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from smplora.attacks.base import Access, Attack, AttackInfo, BlackBoxView
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats

STRENGTH, STEPS = 0.2, 4  # to t = 200 of 1000, back in the paper's interval of 50


@dataclass(frozen=True)
class ReDiffuseAttack(Attack):
    """s(x) = SSIM(x, mean over n variations of x), each noised to t = 200 of 1000 and denoised."""

    variations: int = 10
    info = AttackInfo(
        title="ReDiffuse, averaged variations",
        access=Access.BLACK_BOX,
        reference="Li et al. 2024",
        bibtex="""@article{li2024towards,
  title={Towards Black-Box Membership Inference Attack for Diffusion Models},
  author={Li, Jingwei and Dong, Jing and He, Tianxing and Zhang, Jingzhao},
  journal={arXiv preprint arXiv:2405.20771}, year={2024}}""",
    )

    def signals(self, view: BlackBoxView) -> Floats:
        """SSIM: [b, 1]."""
        mean = torch.stack(
            [view.vary(f"variation{k}", strength=STRENGTH, steps=STEPS) for k in range(self.variations)]
        ).mean(0)
        image = (view.pixels / 2 + 0.5).clamp(0, 1)
        similarity = structural_similarity_index_measure(mean, image, data_range=1.0, reduction="none")
        return torch.as_tensor(similarity).reshape(-1, 1).double().numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()
