"""Chroma (lodestones, 2025): FLUX.1 schnell's transformer with a smaller part for the time, T5 alone, no guidance.

What is its own: T5 is told which tokens are a caption's, and the transformer attends to those and one more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from smplora.models.families.flux import FLUX_TARGETS, places
from smplora.models.families.language import MASK, LanguageText
from smplora.models.families.packing import packed, unpacked
from smplora.models.families.parts import Parts, read_parts
from smplora.models.flow import FlowMatching
from smplora.models.text import TOKENS

NAME, TITLE, TAG = "chroma", "Chroma", "chroma"
PIPELINES = ("ChromaPipeline",)
WORDS, ATTENDED = "encoder_hidden_states", "attended"


class ChromaText(LanguageText):
    """The last hidden states of T5."""

    def written(self, captions: Sequence[str]) -> list[str]:
        """As they are: T5 has no chat."""
        return list(captions)

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"encoder_hidden_states": [b, 512, d], "attended": [b, 512]}: 1 where the transformer looks, else 0."""
        mask = tokens[MASK]
        attended = torch.arange(mask.shape[1], device=mask.device) <= mask.sum(1, keepdim=True)
        words = self.encoder(tokens[TOKENS], attention_mask=mask).last_hidden_state
        return {WORDS: words.float(), ATTENDED: attended.float()}


@dataclass
class Chroma(FlowMatching):
    """See FlowMatching."""

    pipeline: ClassVar[str] = PIPELINES[0]
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = FLUX_TARGETS

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    def velocity(self, noised: Tensor, sigmas: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """See FlowMatching."""
        told = self.text.embed(conditioning) if TOKENS in conditioning else conditioning
        dtype, device = self.dtype, noised.device
        height, width = (edge // self.patch for edge in noised.shape[-2:])
        words, image = told[WORDS].to(dtype), packed(noised).to(dtype)
        given = self.denoiser(
            hidden_states=image,
            timestep=sigmas,
            encoder_hidden_states=words,
            txt_ids=torch.zeros(words.shape[1], 3, device=device, dtype=dtype),
            img_ids=places(height, width).to(device, dtype),
            attention_mask=torch.cat([told[ATTENDED].to(dtype), torch.ones_like(image[..., 0])], 1),
            return_dict=False,
        )[0]
        return unpacked(given, height, width)


def read(folder: Path, given: str, variant: str | None, file: str | None = None) -> Parts:
    """The parts of a folder; see ``read_parts``."""
    from diffusers import AutoencoderKL, ChromaTransformer2DModel
    from transformers import T5EncoderModel, T5TokenizerFast

    networks = {"vae": AutoencoderKL, "transformer": ChromaTransformer2DModel, "text_encoder": T5EncoderModel}
    return read_parts(folder, given, variant, networks, {"tokenizer": T5TokenizerFast}, file)


def build(parts: Parts, name: str, weights_digest: str) -> Chroma:
    """The model of these parts."""
    networks = parts.networks
    text = ChromaText(networks["text_encoder"], parts.tokenizers["tokenizer"])
    return Chroma(networks["vae"], text, networks["transformer"], parts.scheduler, name, "", weights_digest)
