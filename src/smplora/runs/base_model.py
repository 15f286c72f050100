"""The base model that options name."""

from __future__ import annotations

from pathlib import Path

import torch

from smplora.config.data import ModelOptions
from smplora.core.files import BUNDLED
from smplora.models.diffusion import LatentDiffusion
from smplora.models.hub import UNUSED, fetching
from smplora.models.load import load_model
from smplora.models.single_file import is_single_file

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of --mixed_precision


def load_base(
    options: ModelOptions, device: torch.device, dtype: torch.dtype = torch.float32, quantize: str | None = None
) -> LatentDiffusion:
    """``load_model`` with everything that the options say."""
    return load_model(
        options.pretrained_model_name_or_path,
        device,
        config=options.model_config,
        prediction_type=options.prediction_type,
        variant=options.variant,
        revision=options.revision,
        dtype=dtype,
        quantize=quantize,
    )


def fetch_model(options: ModelOptions) -> None:
    """Fetch what ``load_base`` needs, where the options ask for it and name a hub id. Files that are there stay.

    Raises:
        CheckpointError: no such model, no network, no safetensors files.
    """
    name = options.pretrained_model_name_or_path
    if not options.allow_download or name in BUNDLED or Path(name).exists() or is_single_file(name):
        return
    from diffusers import DiffusionPipeline

    with fetching(name):
        DiffusionPipeline.download(
            name,
            revision=options.revision,
            variant=options.variant,
            use_safetensors=True,
            **dict.fromkeys(UNUSED),
        )
