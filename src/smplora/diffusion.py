"""The one contract between models and algorithms: encode, noise, predict, error maps, generate.

The only file that knows U-Nets and schedulers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smplora.contracts import Batch, Draw


def error_map(prediction: Tensor, target: Tensor) -> Tensor:
    """Element-wise squared error e(x, y; t, eps) in fp32, [b, c, h, w] -> [b, c, h, w]."""
    return (prediction.float() - target.float()).square()


def adaptation_loss(error_maps: Tensor) -> Tensor:
    """l_ada of each sample: the mean of its error map (Eq. 1-2; the code of the paper takes the mean where the text
    writes the squared norm). [b, c, h, w] -> [b]."""
    return error_maps.flatten(1).mean(1)


@dataclass
class LatentDiffusion:
    """A latent diffusion model in Stable Diffusion's layout: VAE, text encoder, denoiser, noise schedule."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    denoiser: nn.Module
    scheduler: Any  # a diffusers scheduler with alphas_cumprod; its class also samples
    name: str  # shown to the user and written to results

    def __post_init__(self) -> None:
        self.alphas_cumprod: Tensor = self.scheduler.alphas_cumprod.to(self.device, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return next(self.denoiser.parameters()).device

    @property
    def num_train_timesteps(self) -> int:
        """T; timesteps are integers in [0, T)."""
        return len(self.alphas_cumprod)

    @property
    def resolution(self) -> int:
        """Native edge length in pixels."""
        halvings = len(self.vae.config.block_out_channels) - 1
        return int(self.latent_shape[1] * 2**halvings)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one latent at the native resolution."""
        config: Any = self.denoiser.config
        return self.vae.config.latent_channels, config.sample_size, config.sample_size

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled posterior of ``pixels`` [b, 3, H, W] in [-1, 1]: (mean, std), both [b, c, h, w] fp32.

        z0 = E(x) * s, s the VAE's scaling factor (method.md, notation).
        """
        posterior = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist
        scale = self.vae.config.scaling_factor
        return posterior.mean.float() * scale, posterior.std.float() * scale

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """tau(y): the denoiser's conditioning for each caption, {"encoder_hidden_states": [b, tokens, d]}."""
        ids = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        states = self.text_encoder(ids.to(self.device)).last_hidden_state
        return {"encoder_hidden_states": states.float()}

    def add_noise(self, latents: Tensor, draw: Draw) -> Tensor:
        """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps. [b, c, h, w] -> [b, c, h, w]."""
        abar = self.alphas_cumprod[draw.timesteps].view(-1, 1, 1, 1)
        return abar.sqrt() * latents + (1 - abar).sqrt() * draw.noise

    def target(self, latents: Tensor, draw: Draw) -> Tensor:
        """What the denoiser should answer: eps, or v = sqrt(abar) eps - sqrt(1 - abar) z0 for v-prediction."""
        if self.scheduler.config.prediction_type == "v_prediction":
            abar = self.alphas_cumprod[draw.timesteps].view(-1, 1, 1, 1)
            return abar.sqrt() * draw.noise - (1 - abar).sqrt() * latents
        return draw.noise

    def error_maps(self, batch: Batch, draw: Draw) -> Tensor:
        """e(x, y; t, eps) = (target - f(z_t, t, tau(y)))^2 (method.md, notation) -> [b, c, h, w] fp32."""
        latents = batch.mean if draw.posterior is None else batch.mean + batch.std * draw.posterior
        prediction = self.denoiser(self.add_noise(latents, draw), draw.timesteps, **batch.conditioning).sample
        return error_map(prediction, self.target(latents, draw))

    @torch.no_grad()
    def generate(
        self, conditioning: dict[str, Tensor], seeds: Sequence[int], *, num_inference_steps: int, guidance_scale: float
    ) -> Tensor:
        """One image per row of ``conditioning``, each from its own seed: [b, 3, H, W] in [0, 1] on the CPU.

        DDIM (eta 0) with the model's own schedule; classifier-free guidance against the empty caption when
        ``guidance_scale`` is not 1.
        """
        from diffusers import DDIMScheduler

        sampler = DDIMScheduler.from_config(self.scheduler.config)
        sampler.set_timesteps(num_inference_steps, device=self.device)
        rows = [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        latents = torch.stack(rows).to(self.device) * sampler.init_noise_sigma
        guided = guidance_scale != 1
        if guided:
            empty = self.encode_captions([""] * len(seeds))
            conditioning = {name: torch.cat([empty[name], value]) for name, value in conditioning.items()}
        for t in sampler.timesteps:
            inputs = torch.cat([latents, latents]) if guided else latents
            prediction = self.denoiser(sampler.scale_model_input(inputs, t), t, **conditioning).sample.float()
            if guided:
                without, with_caption = prediction.chunk(2)
                prediction = without + guidance_scale * (with_caption - without)
            latents = sampler.step(prediction, t, latents).prev_sample
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        decoded = torch.cat([self.vae.decode(part).sample for part in latents.split(8)])
        return (decoded.float() / 2 + 0.5).clamp(0, 1).cpu()
