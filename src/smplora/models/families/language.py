"""Captions as a chat with a language model, whose hidden states the transformer reads: FLUX.2, Qwen-Image, Z-Image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from smplora.models.text import TOKENS

MASK = "attention_mask"  # which token ids are a caption's


@dataclass(frozen=True)
class LanguageText:
    """One language model; what of it is read is the family's."""

    longest: ClassVar[int] = 512  # tokens that are read, those of the template among them
    thinks: ClassVar[bool] = False  # ``enable_thinking`` of the chat template
    side: ClassVar[str | None] = "right"  # of a caption, where it is filled up; None: the tokenizer's own
    encoder: Any
    tokenizer: Any
    chunks: int = 1
    clip_skip: int = 1

    @property
    def encoders(self) -> dict[str, Any]:
        """See TextConditioning."""
        return {"text_encoder": self.encoder}

    def written(self, captions: Sequence[str]) -> list[str]:
        """Each caption in the model's chat template."""
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": self.thinks}
        told = ([{"role": "user", "content": caption}] for caption in captions)
        return [self.tokenizer.apply_chat_template(one, **options) for one in told]

    def read(self, captions: Sequence[str], **options: Any) -> Any:
        """What the tokenizer makes of them; a template that begins with the token for it gets no second one."""
        texts, begin = self.written(captions), self.tokenizer.bos_token
        begun = begin is not None and any(text.startswith(begin) for text in texts)
        return self.tokenizer(texts, add_special_tokens=not begun, **options)

    def cut(self, captions: Sequence[str]) -> int:
        """How many captions have more tokens than are read."""
        return sum(len(ids) > self.longest for ids in self.read(captions).input_ids)

    def tokens(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """Token ids and which of them are a caption's: both [b, longest]."""
        options = {"padding": "max_length", "max_length": self.longest, "truncation": True, "padding_side": self.side}
        read = self.read(captions, return_tensors="pt", **options)
        device = self.encoder.device
        return {TOKENS: read.input_ids.to(device), MASK: read.attention_mask.bool().to(device)}

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the transformer is told, [b, ...] by the names that ``velocity`` reads."""
        raise NotImplementedError

    def empty(self, count: int, resolution: int) -> dict[str, Tensor]:
        """The empty caption."""
        return self.embed(self.tokens([""] * count, resolution))
