"""Small random checkpoints in diffusers format, with the classes and quirks of the true ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from smplora.core.files import BUNDLED_FOLDER

FAMILIES = ["sd1", "sd2_v", "sdxl"]
CPU = torch.device("cpu")


def text_config(width: int, vocabulary: int, layers: int, tokens: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=tokens, projection_dim=24, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip


def build(family: str, folder: Path, vocabulary: int = 700, text_layers: int = 3, tokens: int = 16) -> Path:
    """A random checkpoint of a family with the true classes and quirks, 32 x 32 pixels."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=32,
    )  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER / "tokenizer")
    prediction = "v_prediction" if family == "sd2_v" else "epsilon"
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction,
    )  # fmt: skip
    more: dict[str, Any] = {"cross_attention_dim": 32}
    if family == "sdxl":
        more = {
            "cross_attention_dim": 32 + 16, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24 + 6 * 8, "use_linear_projection": True,
        }  # fmt: skip
    if family == "sd2_v":
        more["use_linear_projection"] = True
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, attention_head_dim=4, norm_num_groups=8,
        **more,
    )  # fmt: skip
    common = {
        "vae": vae,
        "unet": unet,
        "scheduler": scheduler,
        "text_encoder": CLIPTextModel(text_config(32, vocabulary, text_layers, tokens)),
        "tokenizer": tokenizer,
    }
    if family == "sdxl":
        second = CLIPTextModelWithProjection(text_config(16, vocabulary, text_layers, tokens))
        pipeline: Any = StableDiffusionXLPipeline(
            **common, text_encoder_2=second, tokenizer_2=tokenizer, add_watermarker=False
        )
    else:
        pipeline = StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)
    return folder


def stock(family: str, folder: Path) -> Any:
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
