"""Deterministic DDIM between noise levels (Song et al. 2021, eq. 12 with sigma 0): pure steps on top of predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor


def step(latents: Tensor, noise: Tensor, abar: Tensor, abar_to: Tensor) -> Tensor:
    """From the level of ``abar`` to that of ``abar_to``, up or down, along the predicted ``noise``: [b, c, h, w].

    x0 = (z - sqrt(1 - abar) eps) / sqrt(abar); z' = sqrt(abar') x0 + sqrt(1 - abar') eps.
    """
    clean = (latents - (1 - abar).sqrt() * noise) / abar.sqrt()
    return abar_to.sqrt() * clean + (1 - abar_to).sqrt() * noise


def walk(
    predict: Callable[[Tensor, int], Tensor], latents: Tensor, levels: Sequence[int], alphas_cumprod: Tensor
) -> Tensor:
    """Through ``levels`` (timesteps, rising or falling), asking ``predict(latents, t)`` at each but the last."""
    for t, to in pairwise(levels):
        latents = step(latents, predict(latents, t), alphas_cumprod[t], alphas_cumprod[to])
    return latents


def levels(start: int, end: int, steps: int) -> list[int]:
    """``steps`` + 1 timesteps from ``start`` to ``end``, evenly."""
    return [int(t) for t in np.linspace(start, end, steps + 1).round()]
