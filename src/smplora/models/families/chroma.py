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

from smplora.models.families.flux import Flux
from smplora.models.families.language import MASK, LanguageText
from smplora.models.families.parts import Parts, read_parts
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
class Chroma(Flux):
    """See FlowMatching."""

    pipeline: ClassVar[str] = PIPELINES[0]

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    def besides(self, told: Mapping[str, Tensor], image: Tensor) -> dict[str, Tensor | None]:
        """Which words [b, 512] and places [b, h w] are attended to, side by side; see ``Flux.besides``."""
        return {"attention_mask": torch.cat([told[ATTENDED].to(image.dtype), torch.ones_like(image[..., 0])], 1)}


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
