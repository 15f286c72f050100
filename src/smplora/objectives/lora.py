"""Plain LoRA: the adaptation loss alone (paper, Eq. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class LoRA:
    """L = L_ada(D_tr)."""

    uses_proxy = False

    def __call__(self, adaptation_loss: Tensor, log_member: Tensor) -> Tensor:
        """[b], [b] -> [b]."""
        return adaptation_loss
