"""Stable Diffusion 1.x, 2.x and SDXL through the one contract: small random checkpoints in diffusers format, the noised
prediction against a stock pipeline's own call, training, adapters that reload."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

from checkpoints import CPU, FAMILIES, build, stock
from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE, KOHYA_FILE
from smplora.core.errors import CheckpointError
from smplora.experiments.tasks import train
from smplora.models.load import load_model
from smplora.runs.subject import load_subject


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
