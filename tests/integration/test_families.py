"""Stable Diffusion 1.x, 2.x and SDXL through the one contract: small random checkpoints in diffusers format, the noised
prediction against a stock pipeline's own call, training, adapters that reload."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from conftest import short_config
from smplora.errors import CheckpointError
from smplora.export import ADAPTER_FILE, KOHYA_FILE
from smplora.models import BUNDLED_FOLDER, load_model
from smplora.subject import load_subject
from smplora.train import train

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


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_the_stock_pipelines(family: str, tmp_path: Path) -> None:
    """Captions, pooled embeddings, time ids, guidance, prediction type and schedule all enter here."""
    folder = build(family, tmp_path)
    model, pipeline = load_model(str(folder), CPU), stock(family, folder)
    assert model.resolution == 32
    for guidance in (1.0, 4.0):
        rngs = [torch.Generator().manual_seed(i) for i in (5, 6)]
        size = {"height": 32, "width": 32}
        theirs = pipeline(
            ["a red cat", "two dogs"],
            num_inference_steps=4,
            guidance_scale=guidance,
            generator=rngs,
            output_type="np",
            **size,
        ).images
        ours = model.generate(
            ["a red cat", "two dogs"], [5, 6], resolution=32, num_inference_steps=4, guidance_scale=guidance
        )
        np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy(), theirs, atol=5e-4)


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, PNDMScheduler])
def test_any_published_scheduler_samples_alike(scheduler: Any, tmp_path: Path) -> None:
    """Folders name the scheduler of their demo; only its noise schedule matters, and latents are never clipped."""
    first, second = build("sd1", tmp_path / "a"), build("sd1", tmp_path / "b")
    config = DDIMScheduler.from_pretrained(first, subfolder="scheduler").config
    kept = {k: config[k] for k in ("beta_start", "beta_end", "beta_schedule", "steps_offset", "prediction_type")}
    more = {"set_alpha_to_one": False} if scheduler is PNDMScheduler else {}
    shutil.rmtree(second / "scheduler")
    scheduler(**kept, timestep_spacing="leading", **more).save_pretrained(second / "scheduler")
    settings: dict[str, Any] = {"resolution": 32, "num_inference_steps": 4, "guidance_scale": 1.0}
    images = [load_model(str(f), CPU).generate(["a red cat"], [5], **settings) for f in (first, second)]
    np.testing.assert_allclose(images[0], images[1], atol=1e-5)


def test_unknown_prediction_type(tmp_path: Path) -> None:
    folder = build("sd1", tmp_path)
    DDIMScheduler(prediction_type="sample").save_pretrained(folder / "scheduler")
    with pytest.raises(CheckpointError, match="predicts 'sample'; smplora knows epsilon and v_prediction"):
        load_model(str(folder), CPU)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("file", [ADAPTER_FILE, KOHYA_FILE])
def test_train_and_reload_in_the_stock_pipeline(family: str, file: str, tmp_path: Path, image_folder: Path) -> None:
    folder = build(family, tmp_path / "model")
    config = short_config(
        image_folder,
        tmp_path / "run",
        pretrained_model_name_or_path=str(folder),
        max_train_steps=3,
        lora_alpha=8,
        lora_targets="all",
    )
    run = train(config, progress=False)
    model = load_subject(str(run), None, "cpu").model
    told = model.encode_captions(["a red cat"], 32)
    z, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    pipeline = stock(family, folder)
    with torch.no_grad():
        ours = model.predict(z, t, told)
        model.denoiser = pipeline.unet
        base = model.predict(z, t, told)
        pipeline.load_lora_weights(run, weight_name=file)
        theirs = model.predict(z, t, told)
    assert (ours - base).norm() > 1e-5
    assert (theirs - ours).norm() / (ours - base).norm() < 1e-5
