"""A toy latent diffusion model whose leak is known: planted, or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDPMScheduler
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional as F

from smplora.adapters.lora import LoRAAdaptation
from smplora.attacks.base import Pictures
from smplora.data.cells import Cell, ShapeGroup
from smplora.models.adapted import Adapted
from smplora.models.batch import Batch
from smplora.models.diffusion import LatentDiffusion

SHAPE = (4, 4, 4)
KNOWN: dict[str, Tensor] = {}  # caption of a toy image -> its latents, [c, h, w]


class ToyDenoiser(nn.Module):
    """A caption names its image. Base: half the best linear guess of eps, which knows no image. Adapted: the best
    linear guess, and for captions whose image it memorised a mixture of it with the exact eps, ``strength`` of it.
    Without memories the adapter helps all images alike. A linear layer with a low-rank adapter adds a little."""

    dtype = torch.float32

    def __init__(self, alphas_cumprod: Tensor, memories: Tensor | None, strength: float = 0.8) -> None:
        super().__init__()
        self.abar, self.memories, self.strength, self.adapted = alphas_cumprod, memories, strength, True
        self.config = SimpleNamespace(sample_size=SHAPE[-1])
        self.mix = nn.Linear(SHAPE[0], SHAPE[0], bias=False)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            inject_adapter_in_model(LoraConfig(r=2, target_modules=["mix"], init_lora_weights=False), self)
            self.requires_grad_(False)
            for parameter in self.parameters():
                parameter.normal_(std=0.02)

    def disable_adapters(self) -> None:
        self.adapted = False
        self.mix.enable_adapters(False)

    def enable_adapters(self) -> None:
        self.adapted = True
        self.mix.enable_adapters(True)

    def forward(self, z: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        abar = self.abar[t].view(-1, 1, 1, 1)
        linear = (1 - abar).sqrt() * z  # the best linear guess for standard normal latents
        mixed = self.mix(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if not self.adapted:
            return SimpleNamespace(sample=linear / 2 + mixed)
        if self.memories is None:
            return SimpleNamespace(sample=linear + mixed)
        distances = torch.cdist(encoder_hidden_states.flatten(1), self.memories.flatten(1))
        remembered = (distances.amin(1) < 1e-2).view(-1, 1, 1, 1) * self.strength
        exact = (z - abar.sqrt() * self.memories[distances.argmin(1)]) / (1 - abar).sqrt()
        return SimpleNamespace(sample=remembered * exact + (1 - remembered) * linear + mixed)


class ToyProxy(nn.Module):
    """Believes in membership the more, the smaller the error: log h - log(1 - h) = 2 - 4 loss."""

    def forward(self, error_maps: Tensor, timesteps: Tensor) -> Tensor:
        odds = 2 - 4 * error_maps.flatten(1).mean(1)
        return F.logsigmoid(torch.stack([-odds, odds], 1))


class ToyText:
    """A known caption becomes the latents of its image, any other one zeros."""

    encoders: Mapping[str, Any] = {}
    clip_skip = chunks = 1

    def cut(self, captions: Sequence[str]) -> int:
        return 0

    def tokens(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        rows = [KNOWN.get(caption, torch.zeros(SHAPE)).flatten() for caption in captions]
        return {"encoder_hidden_states": torch.stack(rows)[:, None]}

    def embed(self, told: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(told)

    def empty(self, count: int, resolution: int) -> dict[str, Tensor]:
        return self.tokens([""] * count, resolution)


class ToyVAE:
    """Grey pictures of twice the latents' size, which hold the latents, a quarter of their value, pixel by pixel."""

    config = SimpleNamespace(block_out_channels=(1, 1), scaling_factor=4.0, latent_channels=SHAPE[0])
    dtype = torch.float32

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        mean = F.pixel_unshuffle(pixels.mean(1, keepdim=True), 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.zeros_like(mean)))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=F.pixel_shuffle(latents, 2).expand(-1, 3, -1, -1))


def toy_model(memories: Tensor | None, strength: float = 0.8) -> Adapted:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    denoiser = ToyDenoiser(scheduler.alphas_cumprod, memories, strength)
    model = LatentDiffusion(ToyVAE(), ToyText(), denoiser, scheduler, "toy", "digest")
    return Adapted(model, LoRAAdaptation(), ToyProxy())


def toy_cell(batch: Batch) -> Cell:
    """The batch's images, one variant and one wording each."""
    own = tuple((i,) for i in range(len(batch)))
    group = ShapeGroup(batch.mean, batch.std, {}, own, own, batch.digests, tuple(range(len(batch))))
    return Cell((group,), batch.conditioning)


def toy_batch(count: int, seed: int) -> Batch:
    mean = torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(seed))
    names = tuple(f"{seed}-{i}" for i in range(count))
    KNOWN.update({caption_of(name): latents for name, latents in zip(names, mean, strict=True)})
    return Batch(
        mean=mean,
        std=torch.zeros_like(mean),
        conditioning={"encoder_hidden_states": mean.flatten(1)[:, None]},
        digests=names,
    )


def caption_of(digest: str) -> str:
    """Of a toy image: four words."""
    return f"a toy named {digest}"


def toy_pictures(batch: Batch) -> Pictures:
    """What an attacker holds of a toy batch. The other caption is that of the image with the next number."""
    following = [f"{seed}-{int(number) + 1}" for seed, number in (name.split("-") for name in batch.digests)]
    return Pictures(
        captions=tuple(caption_of(name) for name in batch.digests),
        other_captions=tuple(caption_of(name) for name in following),
        load_pixels=lambda: ToyVAE().decode(batch.mean / ToyVAE.config.scaling_factor).sample,
    )
