"""FLUX.2 dev (Black Forest Labs, 2025): FLUX.2 klein's latents and transformer, with a guidance input.

Captions are read with a system message, by three hidden layers of Mistral Small 3. The guidance input has one value in
training, attacks and drawing: 3.5, that of diffusers' training script (its pipeline draws with 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from smplora.models.families.flux import GUIDANCE
from smplora.models.families.flux2 import Flux2Klein, Flux2Text
from smplora.models.families.parts import Parts, read_parts

NAME, TITLE, TAG = "flux2_dev", "FLUX.2 dev", "flux2"
PIPELINES = ("Flux2Pipeline",)
SYSTEM = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)
IMAGE = "[IMG]"  # stands for an image, which a caption has none of; the pipeline leaves it out too


class Flux2DevText(Flux2Text):
    """Three hidden layers of Mistral Small 3 side by side, filling included."""

    layers: ClassVar[Sequence[int]] = (10, 20, 30)
    side: ClassVar[str | None] = None

    def written(self, captions: Sequence[str]) -> list[str]:
        """Each caption in the model's chat template, after the system message."""
        chats = ((("system", SYSTEM), ("user", caption.replace(IMAGE, ""))) for caption in captions)
        told = ([{"role": role, "content": [{"type": "text", "text": text}]} for role, text in chat] for chat in chats)
        return [self.tokenizer.apply_chat_template(one, tokenize=False) for one in told]


@dataclass
class Flux2Dev(Flux2Klein):
    """See FlowMatching."""

    pipeline: ClassVar[str] = PIPELINES[0]

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    def guidance(self, noised: Tensor) -> Tensor | None:
        """See Flux2Klein."""
        return torch.full((len(noised),), GUIDANCE, device=noised.device)


def read(folder: Path, given: str, variant: str | None, file: str | None = None) -> Parts:
    """The parts of a folder; see ``read_parts``. Its tokenizer/ is that of a processor for images and words, of which
    the half for words is read."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import Mistral3ForConditionalGeneration, PreTrainedTokenizerFast

    networks = {
        "vae": AutoencoderKLFlux2,
        "transformer": Flux2Transformer2DModel,
        "text_encoder": Mistral3ForConditionalGeneration,
    }
    return read_parts(folder, given, variant, networks, {"tokenizer": PreTrainedTokenizerFast}, file)


def build(parts: Parts, name: str, weights_digest: str) -> Flux2Dev:
    """The model of these parts."""
    networks = parts.networks
    text = Flux2DevText(networks["text_encoder"], parts.tokenizers["tokenizer"])
    return Flux2Dev(networks["vae"], text, networks["transformer"], parts.scheduler, name, "", weights_digest)
