"""Flow matching behind the contract of ``LatentDiffusion`` (Lipman et al. 2023; Esser et al. 2024, section 2).

    z_t = (1 - sigma) z0 + sigma eps        v = eps - z0        eps = z_t + (1 - sigma) v

Timesteps stay integers: t means the sigma that diffusers' training scripts have at index T - 1 - t, so that noise grows
with t. Attacks that walk between levels see the variance-preserving twin (docs/decisions/007): divided by
c = sqrt((1 - sigma)^2 + sigma^2), z_t is sqrt(abar) z0 + sqrt(1 - abar) eps with abar = (1 - sigma)^2 / c^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from smplora.models.batch import Draw
from smplora.models.diffusion import LatentDiffusion

LARGEST_SIGMA = 0.9999  # of the variance-preserving twin: at 1 nothing of the image is left to step from


@dataclass
class FlowMatching(LatentDiffusion):
    """A latent diffusion model that predicts velocities; ``scheduler`` is a FlowMatchEulerDiscreteScheduler."""

    denoiser_name: ClassVar[str] = "transformer"

    def __post_init__(self) -> None:
        self.sigmas = self.scheduler.sigmas.flip(0).to(self.device, torch.float32)
        signal = 1 - self.sigmas.clamp(max=LARGEST_SIGMA)
        self.alphas_cumprod: Tensor = signal**2 / (signal**2 + (1 - signal) ** 2)

    @property
    def layers_per_block(self) -> int:
        """0: a transformer has none."""
        return 0

    @property
    def prediction_type(self) -> str:
        """See LatentDiffusion."""
        return "velocity"

    def _sigma(self, timesteps: Tensor) -> Tensor:
        sigmas: Tensor = self.sigmas[timesteps]
        return sigmas.view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, draw: Draw) -> Tensor:
        """z_t = (1 - sigma) z0 + sigma eps. [b, c, h, w] -> [b, c, h, w]."""
        sigma = self._sigma(draw.timesteps)
        return (1 - sigma) * latents + sigma * draw.noise

    def target(self, latents: Tensor, draw: Draw) -> Tensor:
        """The velocity eps - z0."""
        return draw.noise - latents

    def predicted_noise(self, prediction: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """eps of a velocity: z_t + (1 - sigma) v. [b, c, h, w]."""
        return noised + (1 - self._sigma(timesteps)) * prediction

    def level_scale(self, timesteps: Tensor) -> Tensor:
        """c = sqrt((1 - sigma)^2 + sigma^2), see LatentDiffusion."""
        sigma = self._sigma(timesteps).clamp(max=LARGEST_SIGMA)
        return ((1 - sigma) ** 2 + sigma**2).sqrt()

    def loss_weights(self, timesteps: Tensor, gamma: float | None) -> Tensor | float:
        """1: min-SNR-gamma is of noise prediction."""
        return 1.0

    def velocity(self, noised: Tensor, sigmas: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """v(z_t, sigma, tau(y)) as the family's transformer is asked: [b, c, h, w], [b] -> [b, c, h, w]."""
        raise NotImplementedError

    def predict(self, noised: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """See LatentDiffusion."""
        return self.velocity(noised, self.sigmas[timesteps], conditioning)

    def denoise(self, noised: Tensor, times: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """``velocity`` at the times of diffusers' sampler, T sigma."""
        return self.velocity(noised, times / self.num_train_timesteps, conditioning)

    def noisiest(self, num_inference_steps: int) -> int:
        """Of pure noise, where every schedule begins."""
        return self.num_train_timesteps - 1

    def sampler(self, name: str = "ddim") -> Any:
        """Euler's, whatever name is asked for: the others step along noise, not velocities."""
        return type(self.scheduler).from_config(self.scheduler.config)


def resolution_shift(config: Mapping[str, Any], tokens: int) -> float:
    """mu of schedules that shift by resolution, on the line between the two lengths that they state: as the pipelines
    of FLUX, Qwen-Image and Z-Image compute it.

    Args:
        config: of the scheduler.
        tokens: of an image.
    """
    shortest, longest = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (most - least) / (longest - shortest)
    return float(tokens * slope + least - slope * shortest)
