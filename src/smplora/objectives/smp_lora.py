"""SMP-LoRA: adaptation loss divided by one minus the gain, the stable form of the game (paper, Eq. 9 and 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SMPLoRA:
    """L = L_ada(D_tr) / (1 - lambda * G(h, D_tr) + delta).

    With D = 1 - lambda * G + delta its gradient is (1/D) grad L_ada + (lambda * L_ada / D^2) grad G.

    The paper trains at batch size 1, where the ratio is one sample's. ``smp_ratio`` says what a larger batch means:
    ``per_sample`` is the mean of the samples' ratios (what batch size 1 with accumulation computes), ``batch_mean``
    the ratio of the batch's mean loss and mean gain, another method.
    """

    mi_lambda: float = 0.05
    smp_delta: float = 1e-5
    smp_ratio: str = "per_sample"
    uses_proxy = True

    def __call__(self, adaptation_loss: Tensor, log_member: Tensor) -> Tensor:
        """l_i / (1 - lambda * g_i + delta) with g_i = log h_i, or its batch mean: [b], [b] -> [b]."""
        gain = log_member if self.smp_ratio == "per_sample" else log_member.mean()
        return adaptation_loss / (1 - self.mi_lambda * gain + self.smp_delta)
