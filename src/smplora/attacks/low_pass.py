"""The low-pass add-on: attacks that compare predictions look at low frequencies (Lian et al. 2025, arXiv 2505.20955)

Denoisers err at high frequencies for members and others alike. The filter acts on prediction and target before their
distance is taken; being linear, it acts on their difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from smplora.attacks.base import Attack, Scorer
from smplora.core.arrays import Bools, Floats
from smplora.models.diffusion import adaptation_loss

KEPT, DAMPING = 5 / 64, 0.2  # half the edge of the central box that stays (5 of 64 latents); factor of the rest

BIBTEX = """@inproceedings{lian2025unveiling,
  title={Unveiling Impact of Frequency Components on Membership Inference Attacks for Diffusion Models},
  author={Lian, Puwei and Cai, Yujun and Li, Songze and Bao, Bingkun},
  booktitle={International Conference on Machine Learning}, year={2025}, note={arXiv 2505.20955}}"""


def low_pass(maps: Tensor) -> Tensor:
    """Frequencies outside the central box times ``DAMPING``: [b, c, h, w] -> [b, c, h, w]."""
    factors = torch.full(maps.shape[-2:], DAMPING)
    halves = [(n // 2, max(1, round(KEPT * n))) for n in maps.shape[-2:]]
    rows, columns = (slice(centre - half, centre + half) for centre, half in halves)
    factors[rows, columns] = 1
    spectrum = torch.fft.fft2(maps) * torch.fft.ifftshift(factors)
    filtered: Tensor = torch.fft.ifft2(spectrum).real
    return filtered


class LowPassView:
    """A grey-box view whose distances are filtered; everything else is that of ``view``."""

    def __init__(self, view: Any) -> None:
        self._view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def difference(self, one: Tensor, other: Tensor) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return low_pass(one - other)

    def error_maps(self, draw: str, timesteps: int | None, **named: Any) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return low_pass(self._view.residuals(draw, timesteps, **named)).square()

    def losses(self, draw: str, timestep: int, **named: Any) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return adaptation_loss(self.error_maps(draw, timestep, **named))


class LowPassed(Attack):
    """``inner`` on low frequencies."""

    def __init__(self, inner: Attack) -> None:
        self.inner = inner
        self.info = replace(
            inner.info,
            title=f"{inner.info.title}, low frequencies",
            reference=f"{inner.info.reference}; Lian et al. 2025",
            bibtex=f"{inner.info.bibtex}\n{BIBTEX}",
        )

    def signals(self, view: Any) -> Floats:
        """See attacks.base.Attack."""
        return self.inner.signals(LowPassView(view))

    def scorer(self, seed: int) -> Scorer:
        """See attacks.base.Attack."""
        return self.inner.scorer(seed)

    def paper_protocol(
        self, aux: Floats, aux_member: Bools, test: Floats, test_member: Bools, seed: int
    ) -> dict[str, Any] | None:
        """See attacks.base.Attack."""
        return self.inner.paper_protocol(aux, aux_member, test, test_member, seed)
