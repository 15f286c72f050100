"""Random checkpoints of flow-matching families in a few hundred KB, by diffusers' and transformers' own classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel

from smplora.core.files import BUNDLED_FOLDER

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHANNELS = 4


def qwen_tokenizer() -> Any:
    """Letters only, and a chat template."""
    from transformers import Qwen2Tokenizer

    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token="<|endoftext|>", eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "pad_token": "<|endoftext|>"})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def small_vae() -> Any:
    """Four pixels a latent, with a shift."""
    from diffusers import AutoencoderKL

    blocks = 3
    return AutoencoderKL(
        block_out_channels=(8, 16, 16), down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks, latent_channels=CHANNELS, norm_num_groups=4, shift_factor=0.1,
        scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def z_image(folder: Path) -> Path:
    """Z-Image's pipeline."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    language = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=600, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        dim=48, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32, axes_dims=[8, 8, 8],
        in_channels=CHANNELS,
    )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if "pad_token" in name:  # whatever was in memory
            torch.nn.init.normal_(parameter, std=0.02)
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=small_vae(),
        text_encoder=Qwen3Model(language),
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def flux(folder: Path) -> Path:
    """FLUX.1's pipeline, guidance-distilled, with a schedule that shifts by resolution."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

    torch.manual_seed(0)
    words = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER / "tokenizer")
    letters = [(piece, -1.0) for piece in ("<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz")]
    pieces = T5TokenizerFast(vocab=letters, extra_ids=0)
    width = 16
    clip = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    t5 = T5Config(vocab_size=len(pieces), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = FluxTransformer2DModel(
        in_channels=4 * CHANNELS, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=width, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=small_vae(),
        text_encoder=CLIPTextModel(clip),
        tokenizer=words,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=pieces,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {"flux": flux, "z_image": z_image}
