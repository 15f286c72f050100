"""Do images generated from its caption look like the image? (Pang and Wang 2025)

Black box: three images from the caption, compared with the image patch by patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch.nn import functional as F

from smplora.attacks.base import Access, Attack, AttackInfo, BlackBoxView, Scorer
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Bools, Floats
from smplora.models.encoders.transformers import BUNDLED, ImageEncoder, load_encoder

IMAGES, STEPS, GUIDANCE = 3, 30, 7.5  # guidance: what services default to
RIDGE = 1e-5


class GaussianRatio:
    """log N(signals; members) - log N(signals; others), Gaussians with means and covariances of aux."""

    def fit(self, signals: Floats, is_member: Bools) -> GaussianRatio:
        """``signals`` [n, k]."""
        self.kinds = [
            (rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False)) + RIDGE * np.eye(signals.shape[1]))
            for rows in (signals[is_member], signals[~is_member])
        ]
        return self

    def score(self, signals: Floats) -> Floats:
        """[n, k] -> [n]."""
        member, other = (multivariate_normal.logpdf(signals, mean, cov) for mean, cov in self.kinds)
        return np.reshape(member - other, len(signals))


@dataclass(frozen=True)
class ReconstructionAttack(Attack):
    """s(x) = mean over generated images and patches of the patches' cosine similarity."""

    attack_encoder: str = BUNDLED
    device: str = field(default="cpu", compare=False)  # where it looks; the signals are the same
    encoder: ImageEncoder = field(init=False, repr=False, compare=False)
    info = AttackInfo(
        title="Generated from the caption, threshold",
        access=Access.BLACK_BOX,
        reference="Pang and Wang 2025",
        bibtex="""@inproceedings{pang2025black,
  title={Black-box Membership Inference Attacks against Fine-tuned Diffusion Models},
  author={Pang, Yan and Wang, Tianhao},
  booktitle={Network and Distributed System Security Symposium}, year={2025}, note={arXiv 2312.08207}}""",
    )

    def __post_init__(self) -> None:
        """Raises ConfigError: the encoder cannot be loaded."""
        object.__setattr__(self, "encoder", load_encoder(self.attack_encoder, self.device))  # frozen

    def signals(self, view: BlackBoxView) -> Floats:
        """Mean cosine similarity to each generated image: [b, 3]."""
        own = self.encoder.patches(view.pixels / 2 + 0.5)
        similar = [
            F.cosine_similarity(own, self.encoder.patches(image), dim=2).mean(1)
            for image in (
                view.generate(f"image{k}", num_inference_steps=STEPS, guidance_scale=GUIDANCE) for k in range(IMAGES)
            )
        ]
        return torch.stack(similar, 1).double().numpy()

    def scorer(self, seed: int) -> Scorer:
        """Nothing to fit."""
        return Mean()


@dataclass(frozen=True)
class ReconstructionRatioAttack(ReconstructionAttack):
    """Likelihood ratio of the similarities to the three images."""

    info = replace(ReconstructionAttack.info, title="Generated from the caption, likelihood ratio")

    def scorer(self, seed: int) -> GaussianRatio:
        """Fitted on aux."""
        return GaussianRatio()
