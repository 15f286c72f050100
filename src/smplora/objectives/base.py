"""What an objective is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Objective(Protocol):
    """What the adapter minimises. One file each in ``objectives/``."""

    uses_proxy: bool

    def __call__(self, adaptation_loss: Tensor, log_member: Tensor) -> Tensor:
        """Per-sample losses whose mean is minimised.

        Args:
            adaptation_loss: [b], l_ada of each sample of the training batch (Eq. 1, element mean).
            log_member: [b], log h of each sample, differentiable with respect to the adapter; zeros without a proxy.
        """
        ...
