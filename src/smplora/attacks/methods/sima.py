"""SimA: the norm of the denoiser's prediction at the image itself, without noise (Rao et al. 2025).

The expected prediction at noised copies of an image points to the training images around it, so that its norm is small at
a member. One query takes the image itself for its copies; the Monte Carlo variant averages over copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView
from smplora.attacks.methods.calibrated_loss import CalibratedLossAttack
from smplora.attacks.methods.loss import at_scale, pair_draws, timestep_grid
from smplora.attacks.scorers import BestColumn, Mean
from smplora.core.arrays import Floats

TIMESTEPS = range(0, 200, 10)  # of 1000
POWER = 4
TINY = 1e-30  # below every norm that is not zero


def scores(predictions: list[torch.Tensor]) -> Floats:
    """Minus the norm of each prediction: T times [b, c, h, w] -> [b, T]."""
    return -torch.stack([prediction.pow(POWER).flatten(1).sum(1) for prediction in predictions], 1).double().numpy()


@dataclass(frozen=True)
class SimAAttack(Attack):
    """s_t(x) = -||eps(z0, t, y)||_4^4, t chosen on aux."""

    info = AttackInfo(
        title="SimA, norm of the prediction without noise",
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
        return scores([view.difference(view.predict(clean, t), silence) for t in steps])

    def scorer(self, seed: int) -> BestColumn:
        """The timestep is chosen on aux."""
        return BestColumn()


@dataclass(frozen=True)
class SimAMonteCarloAttack(Attack):
    """s_t(x) = -||mean of eps(z_t, t, y) over antithetic noise pairs||_4^4: of a pair, what the predictions owe to the noise
    cancels. t is chosen on aux."""

    num_timesteps: int = 8
    noise_pairs: int = 2
    info = replace(SimAAttack.info, title="SimA-MC, norm of the mean prediction")

    def means(self, view: GreyBoxView, *, adapted: bool = True) -> list[torch.Tensor]:
        """The mean prediction at each timestep: T times [b, c, h, w]. The questions are those of the loss attacks."""
        draws = pair_draws(self.noise_pairs)
        return [
            torch.stack([view.predict(view.noised(draw, t), t, adapted=adapted) for draw in draws]).mean(0)
            for t in timestep_grid(self.num_timesteps, view.num_train_timesteps)
        ]

    def signals(self, view: GreyBoxView) -> Floats:
        """s_t: [b, T]."""
        return scores([view.difference(mean, torch.zeros(())) for mean in self.means(view)])

    def scorer(self, seed: int) -> BestColumn | Mean:
        """The timestep is chosen on the fitting half."""
        return BestColumn()


@dataclass(frozen=True)
class CalibratedSimAMonteCarloAttack(SimAMonteCarloAttack):
    """s(x) = mean over t of log ||mean of eps_base(z_t, t, y)||_4^4 - log ||mean of eps(z_t, t, y)||_4^4, at common noise:
    by how much the adapter made the mean prediction smaller. Nothing is fitted."""

    info = replace(
        SimAAttack.info,
        title="SimA-MC, calibrated by the base model",
        reference=f"{SimAAttack.info.reference}, with the calibration of Watson et al. 2022",
        bibtex=f"{SimAAttack.info.bibtex}\n{CalibratedLossAttack.info.bibtex}",
        fitted_on="nothing but the direction",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """The difference of logarithms: [b, T]."""
        base, own = (
            np.log(np.maximum(-scores([view.difference(mean, torch.zeros(())) for mean in means]), TINY))
            for means in (self.means(view, adapted=False), self.means(view))
        )
        return base - own

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()
