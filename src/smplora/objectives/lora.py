"""Plain LoRA: the adaptation loss alone (paper, Eq. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from smplora.config.train import TrainConfig


class LoRA:
    """L = L_ada(D_tr)."""

    uses_proxy = False

    @classmethod
    def from_config(cls, config: TrainConfig) -> LoRA:
        """Nothing to configure."""
        return cls()

    def __call__(self, adaptation_loss: Tensor, log_member: Tensor) -> Tensor:
        """[b], [b] -> [b]."""
        return adaptation_loss
