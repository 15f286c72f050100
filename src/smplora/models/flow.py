"""Flow matching behind the contract of ``LatentDiffusion`` (Lipman et al. 2023; Esser et al. 2024, section 2).

    z_t = (1 - sigma) z0 + sigma eps        v = eps - z0        eps = z_t + (1 - sigma) v

Timesteps stay integers: t means the sigma that diffusers' training scripts have at index T - 1 - t, so that noise grows
with t. Attacks that walk between levels see the variance-preserving twin (docs/decisions/007): divided by
c = sqrt((1 - sigma)^2 + sigma^2), z_t is sqrt(abar) z0 + sqrt(1 - abar) eps with abar = (1 - sigma)^2 / c^2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor

from smplora.models.batch import Draw
from smplora.models.diffusers_format import quiet
from smplora.models.diffusion import LatentDiffusion
from smplora.models.stated import first_line

CONVERTED = re.compile(r"(lora_(up|down|A|B)|lora\.(up|down))(\.\w+)?\.weight$|\.alpha$")  # what conversions keep
FLAT = ("lora_transformer_", "lycoris_")  # OneTrainer's and LyCORIS' layers
FLAT_KINDS = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight", "alpha": "alpha"}
LONGEST_REASON = 160  # libraries list every name
SECOND_HALF = re.compile(r"(lora_up|lora_B|lora\.up)(\.\w+)?\.weight$")
SMALLEST = 2.0**-25  # of uniform numbers, half their step: 0 would be infinite
LARGEST_SIGMA = 0.9999  # of the variance-preserving twin: at 1 nothing of the image is left to step from
USUAL_RESOLUTION = 1024  # pixels: what all families were made for; their files do not say so reliably


@dataclass(frozen=True)
class Weighting:
    """Which noise levels training sees how often, and what their losses count: diffusers' ``--weighting_scheme``.

    "logit_normal" (Esser et al. 2024, section 3.1): sigmoid(mean + std n), n normal; "mode" (there too): 1 - u - scale
    (cos(pi u / 2)^2 - 1 + u); the others all levels alike. "sigma_sqrt" weights by sigma^-2, "cosmap" by 2 / (pi (1 - 2
    sigma + 2 sigma^2)).
    """

    scheme: str = "none"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29

    def places(self, uniform: Tensor) -> Tensor:
        """Places [b] in [0, 1] of the training scripts' list of levels, which begins at pure noise, of uniform numbers
        [b] in [0, 1): n is the inverse of the normal distribution's function."""
        if self.scheme == "logit_normal":
            normal = torch.special.ndtri(uniform.double().clamp(min=SMALLEST)).to(uniform)
            return torch.sigmoid(self.logit_mean + self.logit_std * normal)
        if self.scheme == "mode":
            return 1 - uniform - self.mode_scale * (torch.cos(math.pi * uniform / 2) ** 2 - 1 + uniform)
        return uniform

    def weights(self, sigmas: Tensor) -> Tensor:
        """Of the losses at these levels: [b] -> [b]."""
        if self.scheme == "sigma_sqrt":
            return sigmas**-2.0
        if self.scheme == "cosmap":
            return 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))
        return torch.ones_like(sigmas)


@dataclass
class FlowMatching(LatentDiffusion):
    """A latent diffusion model that predicts velocities; ``scheduler`` is a FlowMatchEulerDiscreteScheduler."""

    denoiser_name: ClassVar[str] = "transformer"
    pipeline: ClassVar[str]  # diffusers' class that reads its adapters
    usual_weighting: ClassVar[str] = "none"  # --weighting_scheme where nobody says
    learns_latents: ClassVar[bool] = False  # the loss is on z0 = z_t - sigma v, sigma^2 times that on v
    patch: ClassVar[int] = 2  # latents per place of the transformer, in each direction
    weighting: Weighting = field(default_factory=Weighting)
    native_resolution: int = USUAL_RESOLUTION
    index_settings: dict[str, Any] = field(default_factory=dict)  # what its model_index.json says beside the parts

    def __post_init__(self) -> None:
        self.sigmas = self.scheduler.sigmas.flip(0).to(self.device, torch.float32)
        signal = 1 - self.sigmas.clamp(max=LARGEST_SIGMA)
        self.alphas_cumprod: Tensor = signal**2 / (signal**2 + (1 - signal) ** 2)

    @property
    def pipeline_settings(self) -> dict[str, Any]:
        """See LatentDiffusion."""
        return self.index_settings

    @property
    def layers_per_block(self) -> int:
        """0: a transformer has none."""
        return 0

    @property
    def resolution(self) -> int:
        """``native_resolution``."""
        return self.native_resolution

    @property
    def least_side(self) -> int:
        """See LatentDiffusion."""
        return self.patch

    @property
    def multiple(self) -> int:
        """See LatentDiffusion."""
        return self.patch * self.downsampling

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

    @property
    def timesteps_of(self) -> Callable[[Tensor], Tensor]:
        """See LatentDiffusion; one uniform number a row, whatever the weighting."""

        def timesteps(uniform: Tensor) -> Tensor:
            last = self.num_train_timesteps - 1
            return last - (self.weighting.places(uniform) * (last + 1)).long().clamp(0, last)

        return timesteps

    def loss_weights(self, timesteps: Tensor, gamma: float | None) -> Tensor | float:
        """Those of the weighting; min-SNR-gamma is of other models, and refused (resolve.py)."""
        sigmas = self.sigmas[timesteps]
        weights = self.weighting.weights(sigmas)
        return weights * sigmas**2 if self.learns_latents else weights

    def converted_adapter(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """An adapter of another trainer under diffusers' names: unchanged, or through the conversion of the family's
        pipeline (kohya's and musubi-tuner's names, ai-toolkit's, fused matrices split, alphas multiplied in).
        OneTrainer's names are diffusers' but for the dots.

        Raises:
            ValueError: names that are not converted, halves that get lost, or a file of another model.
        """
        starts = (f"{self.denoiser_name}.", *(f"{name}." for name in self.text.encoders))
        if all(name.startswith(starts) for name in tensors):
            return tensors
        if all(name.startswith(FLAT) for name in tensors):
            return self._from_flat(tensors)
        kinds = {name: CONVERTED.search(name) for name in tensors}
        if strange := [name for name, known in kinds.items() if not known]:
            raise ValueError(
                f"{len(strange)} of its {len(tensors)} tensors are no low-rank pairs, such as {strange[0]}; those are "
                f"read in diffusers' layout only, whose names begin with {starts[0]}"
            )
        import diffusers

        kind = getattr(diffusers, self.pipeline)
        alphas = {"return_alphas": True} if "return_alphas" in signature(kind.lora_state_dict).parameters else {}
        with quiet():
            try:
                given = kind.lora_state_dict(dict(tensors), **alphas)
            except Exception as error:
                reason = first_line(error)[:LONGEST_REASON]
                raise ValueError(f"{self.pipeline} does not read it ({reason})") from error
        state, scales = given if isinstance(given, tuple) else (given, None)
        found: dict[str, Tensor] = {**state, **(scales or {})}
        strange = [name for name in found if not name.startswith(starts)]
        if strange:
            raise ValueError(f"{len(strange)} of its {len(tensors)} tensors are not understood, such as {strange[0]}")
        before, after = outputs(tensors), outputs(found)
        if before != after:
            raise ValueError(
                f"{self.pipeline} does not read all of it: layers with {before} outputs became layers with {after}"
            )
        return found

    def _from_flat(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """diffusers' names written with underscores, which only the transformer itself can tell apart again.

        Raises:
            ValueError: layers that it does not have, or tensors that are no low-rank pairs.
        """
        modules = {name.replace(".", "_"): name for name, _ in self.denoiser.named_modules()}
        found, strange = {}, []
        for name, tensor in tensors.items():
            layer, _, kind = next(name[len(start) :] for start in FLAT if name.startswith(start)).partition(".")
            if layer in modules and kind in FLAT_KINDS:
                found[f"{self.denoiser_name}.{modules[layer]}.{FLAT_KINDS[kind]}"] = tensor
            else:
                strange.append(name)
        if strange:
            raise ValueError(f"{len(strange)} of its {len(tensors)} tensors are not understood, such as {strange[0]}")
        return found

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

    def schedule(self, sampler: str, num_inference_steps: int, size: int) -> Any:
        """As the pipelines of FLUX.1, Qwen-Image and Z-Image set it."""
        schedule = self.sampler(sampler)
        sigmas = torch.linspace(1.0, 1 / num_inference_steps, num_inference_steps).tolist()
        shift = resolution_shift(schedule.config, (size // self.patch) ** 2)
        schedule.set_timesteps(sigmas=sigmas, mu=shift, device=self.device)
        return schedule


def outputs(tensors: Mapping[str, Tensor]) -> int:
    """Of all layers that low-rank pairs are added to: a fused matrix has as many as what it is split into."""
    return sum(len(tensor) for name, tensor in tensors.items() if SECOND_HALF.search(name))


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
