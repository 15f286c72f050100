"""Attackers who have the proxy that the adapter was trained against.

The run's checkpoints hold it; it is never published. It was trained on the aux cells, so that its predictions for them
are in-sample and prove nothing: these attacks fit nothing and are judged on test alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from smplora.attacks.base import Access, Attack, AttackInfo, InsiderView
from smplora.attacks.methods.error_map import ErrorMapAttack
from smplora.attacks.methods.loss import pair_draws, timestep_grid
from smplora.attacks.scorers import Mean
from smplora.core.arrays import Floats


@dataclass(frozen=True)
class ProxyAttack(Attack):
    """s(x) = mean over draws of log h - log(1 - h), timesteps and noise at random as in training."""

    error_map_draws: int = 10
    info = AttackInfo(
        title="The adapter's own proxy",
        access=Access.INSIDER,
        reference="the proxy of Luo et al. 2025, turned on its adapter",
        bibtex=ErrorMapAttack.info.bibtex,
        fitted_on="aux, by the training",
        saw_aux=True,
    )

    def signals(self, view: InsiderView) -> Floats:
        """The log-odds of each draw: [b, draws]. The draws are those of the error-map attack."""
        return torch.stack([view.log_odds(f"map{k}", None) for k in range(self.error_map_draws)], 1).numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()


@dataclass(frozen=True)
class CalibratedProxyAttack(Attack):
    """s(x) = mean over timesteps of how much surer the adapter made the proxy: the log-odds with minus without it."""

    num_timesteps: int = 8
    noise_pairs: int = 2
    info = replace(ProxyAttack.info, title="The adapter's own proxy, calibrated by the base model")

    def signals(self, view: InsiderView) -> Floats:
        """Log-odds with minus without the adapter at each timestep, averaged over antithetic noise pairs: [b, T]."""
        rises = [
            torch.stack(
                [view.log_odds(d, t) - view.log_odds(d, t, adapted=False) for d in pair_draws(self.noise_pairs)]
            )
            for t in timestep_grid(self.num_timesteps, view.num_train_timesteps)
        ]
        return torch.stack([rise.mean(0) for rise in rises], 1).numpy()

    def scorer(self, seed: int) -> Mean:
        """Nothing to fit."""
        return Mean()
