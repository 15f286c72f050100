"""MP-LoRA: adaptation loss plus membership-inference gain (paper, Eq. 4 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MPLoRA:
    """L = L_ada(D_tr) + lambda * G(h, D_tr).

    The training batch holds members only, so of the gain (Eq. 5) its member half is left: the mean of log h.
    """

    mi_lambda: float = 0.05
    uses_proxy = True

    def __call__(self, adaptation_loss: Tensor, log_member: Tensor) -> Tensor:
        """l_i + lambda * log h_i: [b], [b] -> [b]."""
        return adaptation_loss + self.mi_lambda * log_member
