"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): two CLIP encoders and T5, which a checkpoint may leave out.

What is its own: the timestep unscaled, the sampler's own levels, and, as in diffusers' training script, a loss on z0 in
place of the velocity, sigma^2 times that, with levels drawn by the logit-normal distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from smplora.core.console import say_once
from smplora.models.diffusion import ATTENTION
from smplora.models.families.parts import Parts, padded_ids, read_parts
from smplora.models.families.renaming import renamed, rule
from smplora.models.flow import FlowMatching, resolution_shift
from smplora.models.text import TOKENS

NAME, TITLE, TAG = "sd3", "Stable Diffusion 3", "stable-diffusion-3"
PIPELINES = ("StableDiffusion3Pipeline",)
LONGEST = 256  # tokens that T5 reads, as the pipeline has it
LAYER = -2  # of CLIP's hidden states
_BLOCK = r"^lora_unet_joint_blocks_(\d+)_"
_NEW = r"transformer.transformer_blocks.\1."
ORIGINAL = (  # kohya's names, which diffusers does not convert; of modulations it changes the order: they are refused
    rule(rf"{_BLOCK}x_block_attn_qkv\.", *(f"{_NEW}attn.to_{letter}." for letter in "qkv")),
    rule(rf"{_BLOCK}x_block_attn2_qkv\.", *(f"{_NEW}attn2.to_{letter}." for letter in "qkv")),
    rule(rf"{_BLOCK}context_block_attn_qkv\.", *(f"{_NEW}attn.add_{letter}_proj." for letter in "qkv")),
    rule(rf"{_BLOCK}x_block_(attn2?)_proj\.", rf"{_NEW}\2.to_out.0."),
    rule(rf"{_BLOCK}context_block_attn_proj\.", f"{_NEW}attn.to_add_out."),
    rule(rf"{_BLOCK}x_block_mlp_fc1\.", f"{_NEW}ff.net.0.proj."),
    rule(rf"{_BLOCK}x_block_mlp_fc2\.", f"{_NEW}ff.net.2."),
    rule(rf"{_BLOCK}context_block_mlp_fc1\.", f"{_NEW}ff_context.net.0.proj."),
    rule(rf"{_BLOCK}context_block_mlp_fc2\.", f"{_NEW}ff_context.net.2."),
    rule(r"^diffusion_model\.(?=transformer_blocks)", "transformer."),
)
JOINT = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(frozen=True)
class StableDiffusion3Text:
    """The last but one hidden states of both CLIP encoders side by side, filled up to T5's width, T5's below them."""

    clips: tuple[Any, Any]
    t5: Any | None
    tokenizers: tuple[Any, ...]
    width: int  # of what the transformer reads
    chunks: int = 1
    clip_skip: int = 1

    @property
    def encoders(self) -> dict[str, Any]:
        """See TextConditioning."""
        third = {} if self.t5 is None else {"text_encoder_3": self.t5}
        return {"text_encoder": self.clips[0], "text_encoder_2": self.clips[1], **third}

    @property
    def longest(self) -> int:
        """Tokens that T5 is given, or CLIP where there is no T5."""
        return self.tokenizers[0].model_max_length if self.t5 is None else LONGEST

    def cut(self, captions: Sequence[str]) -> int:
        """See TextConditioning."""
        return sum(len(ids) > self.longest for ids in self.tokenizers[-1](list(captions)).input_ids)

    def tokens(self, captions: Sequence[str], resolution: int) -> dict[str, Tensor]:
        """{"input_ids": [b, 77], "input_ids_2": [b, 77], "input_ids_3": [b, 256]}."""
        device, length = self.clips[0].device, self.tokenizers[0].model_max_length
        lengths = (length, length, LONGEST)
        ends = ("", "_2", "_3")
        return {
            f"{TOKENS}{end}": padded_ids(tokenizer, captions, longest).to(device)
            for tokenizer, longest, end in zip(self.tokenizers, lengths, ends, strict=False)
        }

    def embed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"encoder_hidden_states": [b, 77 + 256, d], "pooled_projections": [b, d1 + d2]}."""
        seen = [
            clip(tokens[name], output_hidden_states=True)
            for clip, name in zip(self.clips, (TOKENS, f"{TOKENS}_2"), strict=True)
        ]
        words = torch.cat([one.hidden_states[LAYER].float() for one in seen], -1)
        words = torch.nn.functional.pad(words, (0, self.width - words.shape[-1]))
        if self.t5 is None:
            more = torch.zeros(len(words), LONGEST, self.width, device=words.device)
        else:
            more = self.t5(tokens[f"{TOKENS}_3"]).last_hidden_state.float()
        return {
            "encoder_hidden_states": torch.cat([words, more], 1),
            "pooled_projections": torch.cat([one.text_embeds.float() for one in seen], -1),
        }

    def empty(self, count: int, resolution: int) -> dict[str, Tensor]:
        """The empty caption."""
        return self.embed(self.tokens([""] * count, resolution))


@dataclass
class StableDiffusion3(FlowMatching):
    """See FlowMatching."""

    pipeline: ClassVar[str] = PIPELINES[0]
    usual_weighting: ClassVar[str] = "logit_normal"
    learns_latents: ClassVar[bool] = True
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": JOINT,
        "all": (*JOINT, "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    }

    @property
    def family(self) -> str:
        """See LatentDiffusion."""
        return NAME

    def converted_adapter(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """See FlowMatching; kohya's names too.

        Raises:
            ValueError: see FlowMatching; a layer under two names.
        """
        return super().converted_adapter(renamed(tensors, ORIGINAL))

    def schedule(self, sampler: str, num_inference_steps: int, size: int) -> Any:
        """As the pipeline sets it."""
        schedule = self.sampler(sampler)
        dynamic = schedule.config.use_dynamic_shifting
        shift = resolution_shift(schedule.config, (size // self.patch) ** 2) if dynamic else None
        schedule.set_timesteps(num_inference_steps, mu=shift, device=self.device)
        return schedule

    def velocity(self, noised: Tensor, sigmas: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """See FlowMatching."""
        told = self.text.embed(conditioning) if TOKENS in conditioning else conditioning
        dtype = self.dtype
        given: Tensor = self.denoiser(
            hidden_states=noised.to(dtype),
            timestep=sigmas * self.num_train_timesteps,
            encoder_hidden_states=told["encoder_hidden_states"].to(dtype),
            pooled_projections=told["pooled_projections"].to(dtype),
            return_dict=False,
        )[0]
        return given


def read(folder: Path, given: str, variant: str | None, file: str | None = None) -> Parts:
    """The parts of a folder; see ``read_parts``."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    networks = {"vae": AutoencoderKL, "transformer": SD3Transformer2DModel}
    networks |= dict.fromkeys(("text_encoder", "text_encoder_2"), CLIPTextModelWithProjection)
    tokenizers = dict.fromkeys(("tokenizer", "tokenizer_2"), CLIPTokenizer)
    if (folder / "text_encoder_3").is_dir():
        networks["text_encoder_3"] = T5EncoderModel
        tokenizers["tokenizer_3"] = T5TokenizerFast
    else:
        say_once(f"{given}: it has no T5 (text_encoder_3); captions are read by CLIP alone, their first 75 tokens")
    return read_parts(folder, given, variant, networks, tokenizers, file)


def build(parts: Parts, name: str, weights_digest: str) -> StableDiffusion3:
    """The model of these parts."""
    networks = parts.networks
    text = StableDiffusion3Text(
        (networks["text_encoder"], networks["text_encoder_2"]),
        networks.get("text_encoder_3"),
        tuple(parts.tokenizers.values()),
        networks["transformer"].config.joint_attention_dim,
    )
    return StableDiffusion3(networks["vae"], text, networks["transformer"], parts.scheduler, name, "", weights_digest)
