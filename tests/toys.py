"""A toy latent diffusion model whose leak is known: planted, or absent."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from smplora.contracts import Batch
from smplora.diffusion import LatentDiffusion

SHAPE = (4, 4, 4)


class ToyDenoiser(nn.Module):
    """A caption names its image. Base: knows nothing, predicts 0. Adapted: for captions whose image it memorised it
    predicts ``strength`` times the exact eps, at every timestep; for others it stays with the base. Without memories
    the adapter helps all images alike."""

    def __init__(self, alphas_cumprod: Tensor, memories: Tensor | None, strength: float = 0.5) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.abar, self.memories, self.strength, self.adapted = alphas_cumprod, memories, strength, True

    def disable_adapters(self) -> None:
        self.adapted = False

    def enable_adapters(self) -> None:
        self.adapted = True

    def forward(self, z: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        abar = self.abar[t].view(-1, 1, 1, 1)
        if not self.adapted:
            return SimpleNamespace(sample=torch.zeros_like(z))
        if self.memories is None:
            return SimpleNamespace(sample=(1 - abar).sqrt() * z)  # the best linear guess for standard normal latents
        distances = torch.cdist(encoder_hidden_states.flatten(1), self.memories.flatten(1))
        remembered = (distances.amin(1) < 1e-2).view(-1, 1, 1, 1)
        exact = (z - abar.sqrt() * self.memories[distances.argmin(1)]) / (1 - abar).sqrt()
        return SimpleNamespace(sample=self.strength * exact * remembered)


def toy_model(memories: Tensor | None) -> LatentDiffusion:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return LatentDiffusion(None, None, ToyDenoiser(scheduler.alphas_cumprod, memories), scheduler, "toy", "digest")


def toy_batch(count: int, seed: int) -> Batch:
    mean = torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return Batch(
        mean=mean,
        std=torch.zeros_like(mean),
        conditioning={"encoder_hidden_states": mean.flatten(1)[:, None]},
        digests=tuple(f"{seed}-{i}" for i in range(count)),
    )
