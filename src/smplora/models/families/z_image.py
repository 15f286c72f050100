"""Z-Image and Z-Image-Turbo (Tongyi-MAI, 2025): one language model for captions, no guidance input.

What is its own: the transformer takes lists of samples, the time as 1 - sigma, and gives the negative velocity.
Captions are put into the chat template of their language model, and each keeps its own length, on which the places of
the image depend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from smplora.models.diffusion import ATTENTION
from smplora.models.families.language import MASK, LanguageText
from smplora.models.families.parts import Parts, read_parts
from smplora.models.families.renaming import renamed, rule
from smplora.models.flow import FlowMatching
from smplora.models.text import TOKENS

NAME, TITLE, TAG = "z_image", "Z-Image", "z-image"
PIPELINES = ("ZImagePipeline",)
EMBEDDED, KNOWN = "prompt_embeds", "prompt_mask"
LAYER = -2  # of the language model's hidden states
ORIGINAL = (
    rule(r"attention([._])qkv\.", *(rf"attention\1to_{letter}." for letter in "qkv")),
    rule(r"attention([._])out\.", r"attention\1to_out\g<1>0."),
)


class ZImageText(LanguageText):
    """The last but one hidden states of Qwen3, of the tokens that a caption has."""

    thinks: ClassVar[bool] = True

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"prompt_embeds": [b, 512, d], "prompt_mask": [b, 512]}; what is no caption's is 0."""
        mask = tokens[MASK]
        states = self.encoder(input_ids=tokens[TOKENS], attention_mask=mask, output_hidden_states=True).hidden_states
        return {EMBEDDED: states[LAYER].float() * mask[..., None], KNOWN: mask}


@dataclass
class ZImage(FlowMatching):
    """See FlowMatching."""

    pipeline: ClassVar[str] = PIPELINES[0]
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": ATTENTION,
        "all": (*ATTENTION, "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    }

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    def converted_adapter(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """See FlowMatching; names of the original checkpoint too, where queries, keys and values are one matrix.

        Raises:
            ValueError: see FlowMatching; a layer under two names.
        """
        return super().converted_adapter(renamed(tensors, ORIGINAL))

    def velocity(self, noised: Tensor, sigmas: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """See FlowMatching."""
        told = conditioning if EMBEDDED in conditioning else self.text.embed(conditioning)
        captions = list(told[EMBEDDED])
        if not isinstance(told[KNOWN].any(), FakeTensor):  # else nobody knows how many: training/memory.py, at most all
            captions = [rows[known] for rows, known in zip(captions, told[KNOWN], strict=True)]
        dtype = self.dtype
        images = list(noised.to(dtype).unsqueeze(2))  # one frame each
        given = self.denoiser(images, 1 - sigmas, [c.to(dtype) for c in captions], return_dict=False)[0]
        return -torch.stack(list(given)).squeeze(2)


def read(folder: Path, given: str, variant: str | None, file: str | None = None) -> Parts:
    """The parts of a folder; see ``read_parts``."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import AutoTokenizer, Qwen3Model

    networks = {"vae": AutoencoderKL, "transformer": ZImageTransformer2DModel, "text_encoder": Qwen3Model}
    return read_parts(folder, given, variant, networks, {"tokenizer": AutoTokenizer}, file)


def build(parts: Parts, name: str, weights_digest: str) -> ZImage:
    """The model of these parts."""
    text = ZImageText(parts.networks["text_encoder"], parts.tokenizers["tokenizer"])
    networks = parts.networks
    return ZImage(networks["vae"], text, networks["transformer"], parts.scheduler, name, "", weights_digest)
