"""Random checkpoints of flow-matching families in a few hundred KB, by diffusers' and transformers' own classes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from smplora.core.files import BUNDLED_FOLDER

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRALS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content[0].text }}"
    "[/SYSTEM_PROMPT]{% else %}[INST]{{ m.content[0].text }}[/INST]{% endif %}{% endfor %}"
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


def qwen3_settings(tokenizer: Any, width: int, layers: int) -> Any:
    """Of a language model."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, head_dim=width // 2, max_position_embeddings=600,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


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
    from transformers import Qwen3Model

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
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
        text_encoder=Qwen3Model(qwen3_settings(tokenizer, 32, layers=3)),
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def letters() -> Any:
    """A tokenizer for T5."""
    from transformers import T5TokenizerFast

    pieces = ("<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz")
    return T5TokenizerFast(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)


def t5(words: Any, width: int) -> Any:
    """One layer."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=len(words), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2))


def clip_settings(words: Any, width: int) -> Any:
    """Of a text encoder of two layers."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id, projection_dim=width,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip


def flux(folder: Path) -> Path:
    """FLUX.1's pipeline, guidance-distilled, with a schedule that shifts by resolution."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    words, pieces = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER / "tokenizer"), letters()
    transformer = FluxTransformer2DModel(
        in_channels=4 * CHANNELS, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=small_vae(),
        text_encoder=CLIPTextModel(clip_settings(words, 16)),
        tokenizer=words,
        text_encoder_2=t5(pieces, 24),
        tokenizer_2=pieces,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def chroma(folder: Path) -> Path:
    """Chroma's pipeline."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    pieces = letters()
    transformer = ChromaTransformer2DModel(
        in_channels=4 * CHANNELS, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, axes_dims_rope=(4, 6, 6), approximator_num_channels=16, approximator_hidden_dim=16,
        approximator_layers=1,
    )  # fmt: skip
    ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=small_vae(),
        text_encoder=t5(pieces, 24),
        tokenizer=pieces,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def sd3(folder: Path) -> Path:
    """Stable Diffusion 3's pipeline, whole."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    words, pieces = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER / "tokenizer"), letters()
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=40, caption_projection_dim=16, pooled_projection_dim=16 + 8,
        pos_embed_max_size=16,
    )  # fmt: skip
    StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=small_vae(),
        text_encoder=CLIPTextModelWithProjection(clip_settings(words, 16)),
        tokenizer=words,
        text_encoder_2=CLIPTextModelWithProjection(clip_settings(words, 8)),
        tokenizer_2=words,
        text_encoder_3=t5(pieces, 40),
        tokenizer_3=pieces,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def sd3_without_t5(folder: Path) -> Path:
    """As people have it who lack the memory."""
    import json
    import shutil

    sd3(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {part: [None, None] for part in ("text_encoder_3", "tokenizer_3")}
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    return folder


def qwen_image(folder: Path) -> Path:
    """Qwen-Image's pipeline, with its vision-language model."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1200,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    }  # fmt: skip
    sight = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    language = Qwen2_5_VLConfig(text_config=text, vision_config=sight)
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=CHANNELS, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 2.0, 1.0],
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        in_channels=4 * CHANNELS, out_channels=CHANNELS, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(language),
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def flux2_vae() -> Any:
    """FLUX.2's, with a batch norm that has seen something."""
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=CHANNELS, norm_num_groups=4,
    )  # fmt: skip
    torch.nn.init.normal_(vae.bn.running_mean)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return vae


def flux2_transformer(told: int, guided: bool) -> Any:
    """FLUX.2's.

    Args:
        told: width of what it reads of captions.
    """
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        in_channels=4 * CHANNELS, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=told, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guided,
    )  # fmt: skip


def flux2(folder: Path) -> Path:
    """FLUX.2 klein's pipeline, the base model."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=flux2_vae(),
        text_encoder=Qwen3ForCausalLM(qwen3_settings(tokenizer, 16, layers=28)),
        tokenizer=tokenizer,
        transformer=flux2_transformer(48, guided=False),
    ).save_pretrained(folder)
    return folder


@cache
def pixtral() -> Any:
    """The library's PixtralProcessor, which it hands out only where torchvision is: with images by Pillow."""
    from transformers.models.pixtral import image_processing_pil_pixtral as by_pillow

    with patch.dict(sys.modules, {by_pillow.__name__.replace("_pil_", "_"): by_pillow}):
        from transformers.models.pixtral.processing_pixtral import PixtralProcessor
    return PixtralProcessor


def pixtral_processor() -> Any:
    """Mistral's processor of images and words, with letters only."""
    from transformers import PreTrainedTokenizerFast
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    words = Tokenizer(BPE(vocab={letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()))}, merges=[]))
    words.pre_tokenizer = ByteLevel(add_prefix_space=False)
    special = ("<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
    words.add_special_tokens([*special, "[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    words.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", words.token_to_id("<s>"))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )
    return pixtral()(PixtralImageProcessorPil(), tokenizer, chat_template=MISTRALS)


def flux2_dev(folder: Path) -> Path:
    """FLUX.2 dev's pipeline, guidance-distilled, with its vision-language model."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Pipeline
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    torch.manual_seed(0)
    processor = pixtral_processor()
    text = {
        "model_type": "mistral", "vocab_size": len(processor.tokenizer), "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 31, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 600, "rope_parameters": {"rope_type": "default", "rope_theta": 1e9},
        "sliding_window": None,
    }  # fmt: skip
    sight = {
        "model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=sight)),
        tokenizer=processor,
        transformer=flux2_transformer(48, guided=True),
    ).save_pretrained(folder)
    return folder


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    make.__name__: make for make in (chroma, flux, flux2, flux2_dev, qwen_image, sd3, z_image)
}
VARIANTS: dict[str, Callable[[Path], Path]] = {"sd3": sd3_without_t5}
