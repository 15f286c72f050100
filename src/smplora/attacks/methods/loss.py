"""Loss threshold: members have the smaller denoising error (Carlini et al. 2023; Matsumoto et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from smplora.attacks.base import Access, Attack, AttackInfo, GreyBoxView, Scorer
from smplora.attacks.scorers import StandardisedMean
from smplora.core.arrays import Floats

# Of 1000. Below, every image is easy; above, all look like noise. Carlini et al. find 50 to 300 best, SD work uses 100 to 450.
FIRST, LAST = 50, 500


def timestep_grid(count: int, num_train_timesteps: int) -> list[int]:
    """``count`` timesteps evenly from 5 % to 50 % of the schedule."""
    return [at_scale(t, num_train_timesteps) for t in np.linspace(FIRST, LAST, count)]


def at_scale(timestep: float, num_train_timesteps: int) -> int:
    """A timestep of a schedule of 1000 in this one."""
    return int(timestep * num_train_timesteps / 1000)


def pair_draws(noise_pairs: int) -> list[str]:
    """The names of antithetic noise pairs."""
    return [f"{sign}pair{k}" for k in range(noise_pairs) for sign in ("", "-")]


def loss_vector(view: GreyBoxView, num_timesteps: int, noise_pairs: int, *, adapted: bool = True) -> torch.Tensor:
    """l_ada at each timestep, averaged over antithetic noise pairs (eps and -eps, the same at every timestep): [b, T]."""
    losses = [
        torch.stack([view.losses(draw, t, adapted=adapted) for draw in pair_draws(noise_pairs)]).mean(0)
        for t in timestep_grid(num_timesteps, view.num_train_timesteps)
    ]
    return torch.stack(losses, 1)


@dataclass(frozen=True)
class LossAttack(Attack):
    """s(x) = mean over timesteps of the standardised -l_ada(x; t)."""

    num_timesteps: int = 8
    noise_pairs: int = 2
    info = AttackInfo(
        title="Loss threshold, averaged",
        access=Access.GREY_BOX,
        reference="Carlini et al. 2023, section 5; Matsumoto et al. 2023",
        bibtex="""@inproceedings{carlini2023extracting,
  title={Extracting Training Data from Diffusion Models},
  author={Carlini, Nicholas and Hayes, Jamie and Nasr, Milad and Jagielski, Matthew and Sehwag, Vikash and Tram{\\`e}r, Florian and Balle, Borja and Ippolito, Daphne and Wallace, Eric},
  booktitle={USENIX Security Symposium}, year={2023}}""",
    )

    def signals(self, view: GreyBoxView) -> Floats:
        """-l_ada at each timestep: [b, T]."""
        return -loss_vector(view, self.num_timesteps, self.noise_pairs).double().numpy()

    def scorer(self, seed: int) -> Scorer:
        """Scaled by aux non-members, signed by aux."""
        return StandardisedMean()
