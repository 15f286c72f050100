"""What the denoiser is told: captions -> token ids -> conditioning, for one CLIP text encoder or two.

Token ids stand between, so that a text encoder that is trained too can be run anew at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from smplora.core.errors import ConfigError

TOKENS = "input_ids"  # of the first encoder; the second one's are "input_ids_2"
TIME_IDS = "time_ids"  # SDXL's six numbers on size and crop
TOKENS_PER_CHUNK = 75  # of CLIP: 77 without the marks of beginning and end


class TextConditioning(Protocol):
    """Captions -> what the denoiser is told, one row per caption, under the names that ``predict`` takes."""

    @property
    def chunks(self) -> int:
        """Passages of 75 tokens that are read."""
        ...

    @property
    def clip_skip(self) -> int:
        """Which layer is read, from the end."""
        ...

    @property
    def encoders(self) -> dict[str, Any]:
        """The text encoders, under diffusers' names of pipeline components."""
        ...

    @property
    def longest(self) -> int:
        """Tokens of a caption that are read."""
        ...

    def cut(self, captions: Sequence[str]) -> int:
        """How many captions are longer than what is read."""
        ...

    def tokens(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """Token ids "input_ids" [b, chunks, tokens] (and "input_ids_2"), with whatever does not depend on weights."""
        ...

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """tau(y): the token ids in ``tokens`` replaced by their embeddings; differentiable."""
        ...

    def empty(self, count: int, resolution: int) -> dict[str, Tensor]:
        """The embedded unconditional side of classifier-free guidance, ``count`` rows."""
        ...


def configured(text: TextConditioning, clip_skip: int, max_token_length: int) -> TextConditioning:
    """``text`` with other settings.

    Args:
        clip_skip: which layer of SD 1.x's encoder is read, counted from the end: 1 the last, 2 the one before (kohya's
            and A1111's count; diffusers' pipelines count from 0).
        max_token_length: 75, 150 or 225 tokens.

    Raises:
        ConfigError: SDXL, which is defined by its last but one layers, with a clip skip; more skipped than there is;
            either with text encoders that are no CLIP.
    """
    if not isinstance(text, (ClipText, SdxlText)):
        if clip_skip != 1 or max_token_length != TOKENS_PER_CHUNK:
            given = f"--clip_skip got {clip_skip}" if clip_skip != 1 else f"--max_token_length got {max_token_length}"
            raise ConfigError(f"{given}, which is of CLIP; the text encoder of this base model is none: leave it out")
        return text
    if clip_skip != 1 and isinstance(text, SdxlText):
        raise ConfigError(f"--clip_skip got {clip_skip}; SDXL always reads the last but one layer: leave it at 1")
    layers = text.encoders["text_encoder"].config.num_hidden_layers
    if clip_skip > layers:
        raise ConfigError(f"--clip_skip got {clip_skip}; allowed: 1 to {layers}, the layers of this text encoder")
    settings: Any = text
    changed: TextConditioning = replace(settings, clip_skip=clip_skip, chunks=max_token_length // TOKENS_PER_CHUNK)
    return changed


def token_ids(tokenizer: Any, captions: Sequence[str], chunks: int, device: torch.device) -> Tensor:
    """[b, chunks, tokens]: passages of at most the encoder's length, each with its own marks of beginning and end, as
    in kohya's scripts and A1111; what is longer than ``chunks`` passages is cut."""
    length = tokenizer.model_max_length
    rows = []
    for ids in tokenizer(list(captions), add_special_tokens=False, truncation=False).input_ids:
        passages = [ids[k * (length - 2) : (k + 1) * (length - 2)] for k in range(chunks)]
        marked = [[tokenizer.bos_token_id, *p, tokenizer.eos_token_id] for p in passages]
        rows.append([p + [tokenizer.pad_token_id] * (length - len(p)) for p in marked])
    return torch.tensor(rows, device=device)


def count_cut(tokenizer: Any, captions: Sequence[str], longest: int) -> int:
    """How many captions have more tokens than ``longest``."""
    ids = tokenizer(list(captions), add_special_tokens=False, truncation=False).input_ids
    return sum(len(i) > longest for i in ids)


def joined_passages(states: Tensor, chunks: int) -> Tensor:
    """[b * chunks, tokens, d] -> [b, 2 + chunks (tokens - 2), d]: the first mark of beginning, every passage without
    its marks, the last mark of end (kohya's order); one passage stays as it is."""
    if chunks == 1:
        return states
    parts = states.unflatten(0, (-1, chunks))
    return torch.cat([parts[:, 0, :1], parts[:, :, 1:-1].flatten(1, 2), parts[:, -1, -1:]], 1)


@dataclass(frozen=True)
class ClipText:
    """SD 1.x and 2.x: the hidden state of one CLIP text encoder."""

    encoder: Any
    tokenizer: Any
    chunks: int = 1
    clip_skip: int = 1

    @property
    def encoders(self) -> dict[str, Any]:
        """See TextConditioning."""
        return {"text_encoder": self.encoder}

    @property
    def longest(self) -> int:
        """See TextConditioning."""
        return int(self.chunks * (self.tokenizer.model_max_length - 2))

    def cut(self, captions: Sequence[str]) -> int:
        """See TextConditioning."""
        return count_cut(self.tokenizer, captions, self.longest)

    def tokens(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """See TextConditioning."""
        return {TOKENS: token_ids(self.tokenizer, captions, self.chunks, self.encoder.device)}

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"encoder_hidden_states": [b, tokens, d]}."""
        ids = tokens[TOKENS].flatten(0, 1)
        if self.clip_skip == 1:
            states = self.encoder(ids).last_hidden_state
        else:
            skipped = self.encoder(ids, output_hidden_states=True).hidden_states[-self.clip_skip]
            states = getattr(self.encoder, "text_model", self.encoder).final_layer_norm(skipped)
        return {"encoder_hidden_states": joined_passages(states.float(), self.chunks)}

    def empty(self, count: int, resolution: int) -> dict[str, Tensor]:
        """The empty caption."""
        return self.embed(self.tokens([""] * count, resolution))


@dataclass(frozen=True)
class SdxlText:
    """SDXL: the last but one hidden states of two encoders side by side, the second one's pooled embedding, and the
    six size and crop numbers (Podell et al. 2023, section 2.2): trained as if images had the size they are seen at.
    The pooled embedding is that of a caption's first passage."""

    first: Any
    second: Any
    tokenizers: tuple[Any, Any]
    zeros_for_empty: bool  # diffusers' force_zeros_for_empty_prompt
    chunks: int = 1
    clip_skip: int = 1

    @property
    def encoders(self) -> dict[str, Any]:
        """See TextConditioning."""
        return {"text_encoder": self.first, "text_encoder_2": self.second}

    @property
    def longest(self) -> int:
        """See TextConditioning."""
        return int(self.chunks * (self.tokenizers[0].model_max_length - 2))

    def cut(self, captions: Sequence[str]) -> int:
        """See TextConditioning."""
        return count_cut(self.tokenizers[0], captions, self.longest)

    def tokens(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """See TextConditioning; also "time_ids" [b, 6]."""
        device = self.second.device
        sizes = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]], device=device)
        ids = (token_ids(tokenizer, captions, self.chunks, device) for tokenizer in self.tokenizers)
        return {
            **dict(zip((TOKENS, f"{TOKENS}_2"), ids, strict=True)),
            TIME_IDS: sizes.float().expand(len(captions), -1),
        }

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"encoder_hidden_states": [b, tokens, d1 + d2], "text_embeds": [b, d2], TIME_IDS: [b, 6]}."""
        outputs = [
            encoder(tokens[name].flatten(0, 1), output_hidden_states=True)
            for encoder, name in ((self.first, TOKENS), (self.second, f"{TOKENS}_2"))
        ]
        states = torch.cat([o.hidden_states[-2].float() for o in outputs], -1)
        return {
            "encoder_hidden_states": joined_passages(states, self.chunks),
            "text_embeds": outputs[1].text_embeds.float()[:: self.chunks],
            TIME_IDS: tokens[TIME_IDS],
        }

    def empty(self, count: int, resolution: int) -> dict[str, Tensor]:
        """The empty caption, or zeros where the model was made for them."""
        embedded = self.embed(self.tokens([""] * count, resolution))
        texts = ("encoder_hidden_states", "text_embeds")
        return {n: torch.zeros_like(v) if self.zeros_for_empty and n in texts else v for n, v in embedded.items()}
