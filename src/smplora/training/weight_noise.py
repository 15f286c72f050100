"""Noise on the weights that are handed out (``--weight_noise``), which hides what training left of single images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from smplora.core.random_streams import generator


@dataclass(frozen=True)
class WeightNoise:
    """w + scale * rms(w) * N(0, I), tensor by tensor. One draw for the whole run: two draws on two checkpoints could be
    averaged."""

    scale: float
    secret: str  # its seed; who knows it can take the noise off


@contextmanager
def noisy(noise: WeightNoise | None, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, the weights have the noise; without any they are what they are."""
    if noise is None:
        yield
        return
    own = [p.data for p in parameters]
    for k, parameter in enumerate(parameters):
        weight = parameter.data
        drawn = torch.randn(weight.shape, generator=generator(noise.secret, "weight noise", k))
        rms = weight.square().mean().sqrt()
        parameter.data = weight + noise.scale * rms * drawn.to(weight.device, weight.dtype)
    try:
        yield
    finally:
        for parameter, weight in zip(parameters, own, strict=True):
            parameter.data = weight
