"""The base model that options name."""

from __future__ import annotations

from pathlib import Path

import torch

from smplora.config.data import ModelOptions
from smplora.core.device import check_type
from smplora.core.errors import ConfigError
from smplora.core.files import BUNDLED
from smplora.models.diffusion import LatentDiffusion
from smplora.models.hub import UNUSED, fetching
from smplora.models.load import is_flow, load_model
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


def not_here(dtype: torch.dtype) -> ConfigError:
    """For subjects whose base model is not kept as ``dtype``."""
    return ConfigError(f"--mixed_precision {_name(dtype)} is for LoRA on flow-matching models; leave it out here")


def _name(dtype: torch.dtype) -> str:
    return next(name for name, kind in DTYPES.items() if kind is dtype)


def check_precision(options: ModelOptions, device: torch.device, dtype: torch.dtype, *, exact: bool) -> None:
    """See that a subject's base model can be kept as ``dtype``, before it is loaded.

    Args:
        exact: its weights are as they were, and the adapter beside them.

    Raises:
        ConfigError: of another model, of one whose weights were trained, or on such a device.
    """
    if dtype is torch.float32:
        return
    flow = is_flow(options.pretrained_model_name_or_path, options.model_config, options.revision)
    if flow is False or not exact:
        raise not_here(dtype)
    check_type(device, dtype, f"--mixed_precision {_name(dtype)}")


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
