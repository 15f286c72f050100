"""FLUX.1: dev, schnell, Krea and what people made of them (Black Forest Labs, 2024).

What is its own: latents packed two by two with a place each, CLIP's pooled and T5's whole embedding, and the guidance
input of the distilled models (all but schnell), which training, attacks and drawing give the same value: 3.5, as
diffusers' training script and pipeline do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from smplora.models.diffusion import ATTENTION
from smplora.models.families.packing import packed, unpacked
from smplora.models.families.parts import Parts, padded_ids, read_parts
from smplora.models.flow import FlowMatching
from smplora.models.text import TOKENS

NAME, TITLE, TAG = "flux", "FLUX.1", "flux"
PIPELINES = ("FluxPipeline",)
TOKENS_2 = f"{TOKENS}_2"
LONGEST = 512  # tokens that T5 reads, as the pipeline has it
JOINT = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
GUIDANCE = 3.5  # input of guidance-distilled models


@dataclass(frozen=True)
class FluxText:
    """CLIP's pooled embedding, and the last hidden states of T5."""

    clip: Any
    t5: Any
    tokenizers: tuple[Any, Any]
    chunks: int = 1
    clip_skip: int = 1

    @property
    def encoders(self) -> dict[str, Any]:
        """See TextConditioning."""
        return {"text_encoder": self.clip, "text_encoder_2": self.t5}

    @property
    def longest(self) -> int:
        """Tokens that T5 is given; CLIP reads the first 77."""
        return LONGEST

    def cut(self, captions: Sequence[str]) -> int:
        """See TextConditioning."""
        return sum(len(ids) > self.longest for ids in self.tokenizers[1](list(captions)).input_ids)

    def tokens(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """{"input_ids": [b, 77], "input_ids_2": [b, 512]}."""
        first, second = self.tokenizers
        device = self.clip.device
        return {
            TOKENS: padded_ids(first, captions, first.model_max_length).to(device),
            TOKENS_2: padded_ids(second, captions, LONGEST).to(device),
        }

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"encoder_hidden_states": [b, 512, d], "pooled_projections": [b, d2]}."""
        return {
            "encoder_hidden_states": self.t5(tokens[TOKENS_2]).last_hidden_state.float(),
            "pooled_projections": self.clip(tokens[TOKENS]).pooler_output.float(),
        }

    def empty(self, count: int, resolution: int) -> dict[str, Tensor]:
        """The empty caption."""
        return self.embed(self.tokens([""] * count, resolution))


@dataclass
class Flux(FlowMatching):
    """See FlowMatching."""

    pipeline: ClassVar[str] = PIPELINES[0]
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": JOINT,
        "all": (*JOINT, "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),
    }

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    def velocity(self, noised: Tensor, sigmas: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """See FlowMatching."""
        told = self.text.embed(conditioning) if TOKENS in conditioning else conditioning
        dtype, device = self.dtype, noised.device
        height, width = (edge // self.patch for edge in noised.shape[-2:])
        image, words = packed(noised).to(dtype), told["encoder_hidden_states"].to(dtype)
        given = self.denoiser(
            hidden_states=image,
            timestep=sigmas,
            encoder_hidden_states=words,
            txt_ids=torch.zeros(words.shape[1], 3, device=device, dtype=dtype),
            img_ids=places(height, width).to(device, dtype),
            return_dict=False,
            **self.besides(told, image),
        )[0]
        return unpacked(given, height, width)

    def besides(self, told: Mapping[str, Tensor], image: Tensor) -> dict[str, Tensor | None]:
        """What the transformer is told beside words and places: CLIP's embedding [b, d2], and the guidance [b] if it
        has an input for it.

        Args:
            told: see ``FluxText.embed``.
            image: packed latents [b, h w, 4 c].
        """
        denoiser: Any = self.denoiser
        guided = torch.full((len(image),), GUIDANCE, device=image.device) if denoiser.config.guidance_embeds else None
        return {"guidance": guided, "pooled_projections": told["pooled_projections"].to(image.dtype)}


def places(height: int, width: int) -> Tensor:
    """(0, row, column) of each packed place: [h w, 3]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)


def read(folder: Path, given: str, variant: str | None, file: str | None = None) -> Parts:
    """The parts of a folder; see ``read_parts``."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    networks = {
        "vae": AutoencoderKL,
        "transformer": FluxTransformer2DModel,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
    }
    return read_parts(
        folder, given, variant, networks, {"tokenizer": CLIPTokenizer, "tokenizer_2": T5TokenizerFast}, file
    )


def build(parts: Parts, name: str, weights_digest: str) -> Flux:
    """The model of these parts."""
    networks, words = parts.networks, parts.tokenizers
    tokenizers = (words["tokenizer"], words["tokenizer_2"])
    text = FluxText(networks["text_encoder"], networks["text_encoder_2"], tokenizers)
    return Flux(networks["vae"], text, networks["transformer"], parts.scheduler, name, "", weights_digest)
