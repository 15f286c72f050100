"""FLUX.2 klein (Black Forest Labs, 2026): latents two by two, normalised by what the VAE's batch norm has seen; three
hidden layers of Qwen3 for captions; places in four dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from smplora.models.diffusion import ATTENTION
from smplora.models.families.language import MASK, LanguageText
from smplora.models.families.parts import Parts, read_parts
from smplora.models.flow import FlowMatching
from smplora.models.text import TOKENS

NAME, TITLE, TAG = "flux2_klein", "FLUX.2 klein", "flux2"
PIPELINES = ("Flux2KleinPipeline",)
WORDS = "encoder_hidden_states"
JOINT = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "to_qkv_mlp_proj")


class Flux2Text(LanguageText):
    """Three hidden layers of Qwen3 side by side, filling included."""

    layers: ClassVar[Sequence[int]] = (9, 18, 27)  # of the language model's hidden states

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"encoder_hidden_states": [b, 512, 3 d]}."""
        seen = self.encoder(
            input_ids=tokens[TOKENS], attention_mask=tokens[MASK], output_hidden_states=True, use_cache=False
        )
        return {WORDS: torch.cat([seen.hidden_states[layer].float() for layer in self.layers], -1)}


@dataclass
class Flux2Klein(FlowMatching):
    """See FlowMatching. What others call two by two latents is one latent here."""

    pipeline: ClassVar[str] = PIPELINES[0]
    patch: ClassVar[int] = 1
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": JOINT,
        "all": (*JOINT, *(f"{part}.linear_{end}" for part in ("ff", "ff_context") for end in ("in", "out"))),
    }

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    @property
    def downsampling(self) -> int:
        """See LatentDiffusion."""
        return 2 * super().downsampling

    @property
    def latent_channels(self) -> int:
        """See LatentDiffusion."""
        return 4 * super().latent_channels

    def _normal(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel: [c, 1, 1]."""
        norm = self.vae.bn
        deviation = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean.float().view(-1, 1, 1), deviation.float().view(-1, 1, 1)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See LatentDiffusion: z0 = (E(x), two by two, - mean) / std of each channel."""
        posterior = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist
        mean, std = self._normal()
        return (folded(posterior.mean.float()) - mean) / std, folded(posterior.std.float()) / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See LatentDiffusion."""
        mean, std = self._normal()
        rows = unfolded(latents.to(self.device) * std + mean).to(self.vae.dtype)
        decoded = torch.cat([self.vae.decode(part).sample for part in rows.split(8)])
        return (decoded / 2 + 0.5).clamp(0, 1).float().cpu()

    def schedule(self, sampler: str, num_inference_steps: int, size: int) -> Any:
        """As the pipeline sets it."""
        schedule = self.sampler(sampler)
        sigmas = torch.linspace(1.0, 1 / num_inference_steps, num_inference_steps).tolist()
        schedule.set_timesteps(sigmas=sigmas, mu=shift(size**2, num_inference_steps), device=self.device)
        return schedule

    def guidance(self, noised: Tensor) -> Tensor | None:
        """The guidance input [b] of distilled models; klein has none."""
        return None

    def velocity(self, noised: Tensor, sigmas: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """See FlowMatching."""
        told = self.text.embed(conditioning) if TOKENS in conditioning else conditioning
        denoiser: Any = self.denoiser
        dtype, device = self.dtype, noised.device
        rows, (height, width) = len(noised), noised.shape[-2:]
        words = told[WORDS].to(dtype)
        given: Tensor = denoiser(
            hidden_states=noised.flatten(2).mT.to(dtype),
            timestep=sigmas,
            guidance=self.guidance(noised),
            encoder_hidden_states=words,
            txt_ids=places(1, 1, words.shape[1]).to(device).expand(rows, -1, -1),
            img_ids=places(height, width, 1).to(device).expand(rows, -1, -1),
            return_dict=False,
        )[0]
        latents: Tensor = given.mT.unflatten(2, (height, width))
        return latents


def folded(latents: Tensor) -> Tensor:
    """Two by two latents in the channels of one: [b, c, 2 h, 2 w] -> [b, 4 c, h, w]."""
    return torch.nn.functional.pixel_unshuffle(latents, 2)


def unfolded(latents: Tensor) -> Tensor:
    """The inverse of ``folded``."""
    return torch.nn.functional.pixel_shuffle(latents, 2)


def places(height: int, width: int, length: int) -> Tensor:
    """(time, row, column, word) of each place: [height width length, 4]."""
    return torch.cartesian_prod(*(torch.arange(n) for n in (1, height, width, length)))


def shift(tokens: int, num_inference_steps: int) -> float:
    """The pipeline's mu: a line in the steps between those of 10 and 200, each a line in the image's tokens."""
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return many
    few = 8.73809524e-05 * tokens + 1.89833333
    return few + (many - few) * (num_inference_steps - 10) / 190


def read(folder: Path, given: str, variant: str | None, file: str | None = None) -> Parts:
    """The parts of a folder; see ``read_parts``."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    networks = {"vae": AutoencoderKLFlux2, "transformer": Flux2Transformer2DModel, "text_encoder": Qwen3ForCausalLM}
    return read_parts(folder, given, variant, networks, {"tokenizer": AutoTokenizer}, file)


def build(parts: Parts, name: str, weights_digest: str) -> Flux2Klein:
    """The model of these parts."""
    text = Flux2Text(parts.networks["text_encoder"], parts.tokenizers["tokenizer"])
    networks = parts.networks
    return Flux2Klein(networks["vae"], text, networks["transformer"], parts.scheduler, name, "", weights_digest)
