"""ReDiffuse: does a variation of the image, averaged, look like the image? (Li et al. 2024)"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import structural_similarity_index_measure

from smplora.attacks.base import Access, Attack, AttackInfo, BlackBoxView, GreyBoxView
from smplora.attacks.methods.loss import at_scale
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats
from smplora.models import ddim

LEVEL = 50  # of 1000; there and back in one step, as the authors' code for Stable Diffusion does
STRENGTH, STEPS = 0.2, 4  # of the variant: to t = 200 of 1000, back in intervals of 50
WINDOW = 7
GREY = (19595, 38470, 7471)  # of 65536: ITU-R 601, as Pillow's "L"


def grey(images: Tensor) -> Tensor:
    """[b, 3, H, W] in [0, 1] -> whole numbers of 0 to 255 [b, H, W], by way of 8 bits a channel."""
    red, green, blue = (images * 255).round().clamp(0, 255).double().unbind(1)
    return ((GREY[0] * red + GREY[1] * green + GREY[2] * blue + 32768) / 65536).floor()


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """SSIM of grey images [b, H, W], as scikit-image's with its defaults: [b].

    Mean over 7 x 7 windows of (2 m_x m_y + C_1) (2 s_xy + C_2) / ((m_x^2 + m_y^2 + C_1) (s_x^2 + s_y^2 + C_2)), with
    sample (co)variances, C_i = (K_i R)^2, K = (0.01, 0.03), R the range of ``other``. Source: Wang et al. 2004.
    """
    x, y = one.double()[:, None], other.double()[:, None]
    unbiased = WINDOW**2 / (WINDOW**2 - 1)

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values, WINDOW, stride=1)

    span = (y.amax((1, 2, 3)) - y.amin((1, 2, 3))).clamp(min=1)[:, None, None, None]
    first, second = (0.01 * span) ** 2, (0.03 * span) ** 2
    m_x, m_y = mean(x), mean(y)
    v_x, v_y, v_xy = (unbiased * (mean(a * b) - mean(a) * mean(b)) for a, b in ((x, x), (y, y), (x, y)))
    whole = (2 * m_x * m_y + first) * (2 * v_xy + second) / ((m_x**2 + m_y**2 + first) * (v_x + v_y + second))
    return whole.mean((1, 2, 3))


@dataclass(frozen=True)
class ReDiffuseAttack(Attack):
    """s(x) = SSIM, in grey, of the decoded latents of x with the decoded mean over n of latents that were noised to t = 50
    of 1000 and taken back in one DDIM step.

    As in the authors' code for Stable Diffusion, but for three things that are taken for slips: it scales latents as if
    they were pixels (z -> 2 z - 1), has a schedule that is linear in beta, and guidance of 7.5. n is the paper's 10.
    """

    variations: int = 10
    info = AttackInfo(
        title="ReDiffuse, averaged latents",
        access=Access.GREY_BOX,
        reference="Li et al. 2024",
        bibtex="""@article{li2024towards,
  title={Towards Black-Box Membership Inference Attack for Diffusion Models},
  author={Li, Jingwei and Dong, Jing and He, Tianxing and Zhang, Jingzhao},
  journal={arXiv preprint arXiv:2405.20771}, year={2024}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """SSIM: [b, 1]."""
        t = at_scale(LEVEL, view.num_train_timesteps)
        back = [
            ddim.walk(view.predict, view.noised(f"variation{k}", t), [t, 0], view.alphas_cumprod)
            for k in range(self.variations)
        ]
        images = (grey(view.decode(latents)) for latents in (view.batch.mean, torch.stack(back).mean(0)))
        return similarity(*images).reshape(-1, 1).cpu().numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()


@dataclass(frozen=True)
class ReDiffuseImagesAttack(ReDiffuseAttack):
    """A variant for who sees images alone: s(x) = SSIM, in colour, of x with the mean over n variations of x, each noised
    to t = 200 of 1000 and denoised in four steps."""

    info = replace(ReDiffuseAttack.info, title="ReDiffuse, variant: averaged images", access=Access.BLACK_BOX)

    def signals(self, view: BlackBoxView) -> Floats:
        """SSIM: [b, 1]."""
        mean = torch.stack(
            [view.vary(f"variation{k}", strength=STRENGTH, steps=STEPS) for k in range(self.variations)]
        ).mean(0)
        image = (view.pixels / 2 + 0.5).clamp(0, 1)
        found = structural_similarity_index_measure(mean, image, data_range=1.0, reduction="none")
        return torch.as_tensor(found).reshape(-1, 1).double().numpy()
