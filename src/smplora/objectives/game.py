"""The min-max game between adapter and proxy as one object: what smplora's own loop plays, and anybody else's can.

It takes error maps, the element-wise squared errors (target - prediction)^2 of a denoiser, and knows no model::

    game = SMPLoRAGame(latent_shape=(4, 64, 64))
    ...
    game.update(member_errors, nonmember_errors)       # the proxy climbs the gain; the denoiser gets no gradient
    loss = game.loss(error_maps)                       # instead of error_maps.mean()
    loss.backward()
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from math import prod
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from smplora.config.catalogue.objectives import OBJECTIVES, WITH_PROXY
from smplora.config.checks import game_problems, if_any
from smplora.core.errors import ConfigError, listing
from smplora.core.registry import build, unknown
from smplora.models.diffusion import adaptation_loss
from smplora.models.proxy import WEIGHT_DECAY, GainStep, ProxyAttackModel, ascend, log_membership
from smplora.objectives.base import Objective

OBJECTIVES_OF_GAME = dict.fromkeys(("lora", *WITH_PROXY))
RATIOS, INPUTS = (dict.fromkeys(names) for names in (("per_sample", "batch_mean"), ("error_map", "loss")))


class SMPLoRAGame:
    """Proxy, gain and loss of MP-LoRA and SMP-LoRA (paper, Algorithms 1 and 2).

    Args:
        latent_shape: (c, h, w) of the error maps.
        objective: "smp_lora", "mp_lora", or "lora", which has no proxy: ``update`` then does nothing.
        mi_lambda: weight of the membership-inference gain.
        smp_delta: keeps the denominator from zero, see ``objectives/smp_lora.py``.
        smp_ratio: of which losses the ratio is, likewise.
        proxy_learning_rate: of the proxy's Adam.
        proxy_input: "error_map" or "loss".
        proxy_sees_timestep: tell the proxy t / num_train_timesteps; timesteps must then be given everywhere.
        device: where the error maps are.

    Raises:
        ConfigError: lists everything that is wrong with the arguments.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        *,
        objective: str = "smp_lora",
        mi_lambda: float = 0.05,
        smp_delta: float = 1e-5,
        smp_ratio: Literal["per_sample", "batch_mean"] = "per_sample",
        proxy_learning_rate: float = 1e-5,
        proxy_input: Literal["error_map", "loss"] = "error_map",
        proxy_sees_timestep: bool = False,
        num_train_timesteps: int = 1000,
        device: torch.device | str = "cpu",
    ) -> None:
        options = SimpleNamespace(
            mi_lambda=mi_lambda, smp_delta=smp_delta, smp_ratio=smp_ratio, proxy_learning_rate=proxy_learning_rate
        )
        problems = [
            *if_any(unknown(OBJECTIVES_OF_GAME, objective, "objective")),
            *if_any(unknown(RATIOS, smp_ratio, "smp_ratio")),
            *if_any(unknown(INPUTS, proxy_input, "proxy_input")),
            *game_problems(options),
        ]
        if problems:
            raise ConfigError(listing("SMPLoRAGame cannot be made", problems))
        self.objective: Objective = build(OBJECTIVES, objective, "objective", options)
        self.proxy = ProxyAttackModel(
            prod(latent_shape),
            size=(latent_shape[1], latent_shape[2]),
            inputs=proxy_input,
            sees_timestep=proxy_sees_timestep,
            num_train_timesteps=num_train_timesteps,
        ).to(device)
        self.optimizer = torch.optim.Adam(
            self.proxy.parameters(), lr=proxy_learning_rate, weight_decay=WEIGHT_DECAY, fused=True
        )

    @property
    def uses_proxy(self) -> bool:
        """Whether the objective has a proxy."""
        return bool(self.objective.uses_proxy)

    def update(
        self,
        member_errors: Tensor,
        nonmember_errors: Tensor,
        member_timesteps: Tensor | None = None,
        nonmember_timesteps: Tensor | None = None,
    ) -> GainStep | None:
        """One step of the proxy up the gain (Eq. 5). Its dropout draws from torch's global generator.

        Args:
            member_errors: [m, c, h, w], of images in the training set, best at fresh noise; they are detached here, so
                make them under ``torch.no_grad()``.
            nonmember_errors: [n, c, h, w], of images outside it, likewise.
            member_timesteps: [m], for a proxy that sees them.
            nonmember_timesteps: [n], likewise.

        Returns:
            gain and accuracy on this batch; None for an objective without a proxy.
        """
        if not self.uses_proxy:
            return None
        pairs = ((member_errors, member_timesteps), (nonmember_errors, nonmember_timesteps))
        errors, timesteps = (torch.cat(parts) for parts in zip(*(self._with_timesteps(*p) for p in pairs), strict=True))
        return self.ascend(errors, timesteps, torch.arange(len(errors), device=errors.device) < len(member_errors))

    def ascend(self, error_maps: Tensor, timesteps: Tensor, is_member: Tensor) -> GainStep:
        """``update`` for members and non-members in one batch: [b, c, h, w], [b], [b] bool."""
        return ascend(self.proxy, self.optimizer, error_maps, timesteps, is_member)

    def loss(self, error_maps: Tensor, timesteps: Tensor | None = None, weights: Tensor | float = 1.0) -> Tensor:
        """What the adapter minimises: a scalar, differentiable with respect to ``error_maps``; the proxy's weights get
        no gradient.

        Args:
            error_maps: [b, c, h, w] of a batch of the training set.
            timesteps: [b], for a proxy that sees them.
            weights: [b], of each sample's adaptation loss (such as min-SNR).
        """
        objective: Tensor = self.objective(*self.terms(error_maps, timesteps, weights)).mean()
        return objective

    def terms(
        self, error_maps: Tensor, timesteps: Tensor | None = None, weights: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """What the objective is made of, arguments as for ``loss``: each sample's adaptation loss, weighted, and its
        gain log h, zero without a proxy; both [b]."""
        errors, timesteps = self._with_timesteps(error_maps, timesteps)
        losses = adaptation_loss(errors)
        membership = log_membership(self.proxy, errors, timesteps) if self.uses_proxy else torch.zeros_like(losses)
        return losses * weights, membership

    def _with_timesteps(self, errors: Tensor, timesteps: Tensor | None) -> tuple[Tensor, Tensor]:
        if timesteps is None:
            if self.proxy.sees_timestep:
                raise ValueError("this proxy sees the timestep: give the timesteps of the error maps")
            timesteps = torch.zeros(len(errors), device=errors.device)
        return errors, timesteps

    def state_dict(self) -> dict[str, Any]:
        """Proxy and optimizer, for a checkpoint."""
        return {"proxy": self.proxy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.proxy.load_state_dict(state["proxy"])
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))  # torch would share the moments with ``state``
