"""Noise as a probe: does the noise that the base model finds in an image lead the adapted model back to it?

The base model's DDIM inversion gives the start of the target's generation (arXiv 2601.21628). Members come back more
exactly, also under defences that were tuned to the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats
from smplora.models import ddim

INVERSION, GENERATION, GUIDANCE = 100, 50, 3.5


@dataclass(frozen=True)
class NoiseProbeAttack(Attack):
    """s(x) = -||x - generated from x's inverted noise and caption||_2."""

    info = AttackInfo(
        title="Noise as a probe",
        access=Access.GREY_BOX,
        reference="arXiv 2601.21628",
        bibtex="""@article{noiseprobe2026,
  title={Noise as a Probe: Membership Inference Attacks on Diffusion Models Leveraging Initial Noise},
  journal={arXiv preprint arXiv:2601.21628}, year={2026}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """The negative distance of pictures: [b, 1]."""
        last, abar = view.num_train_timesteps - 1, view.alphas_cumprod
        silence = [""] * len(view.captions)

        def guided(latents: Tensor, t: int) -> Tensor:
            without = view.predict(latents, t, captions=silence)
            return without + GUIDANCE * (view.predict(latents, t) - without)

        levels = ddim.levels(0, last, INVERSION)
        noise = ddim.walk(partial(view.predict, adapted=False), view.batch.mean.cpu(), levels, abar)
        made = view.decode(ddim.walk(guided, noise, ddim.levels(last, 0, GENERATION), abar))
        return -(view.pixels / 2 + 0.5 - made).square().flatten(1).sum(1, keepdim=True).sqrt().double().numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()
