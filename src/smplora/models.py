"""Load base models: a diffusers folder, a cached hub id, or the bundled tiny model, which is such a folder too."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from smplora.config import BUNDLED_MODEL
from smplora.diffusion import LatentDiffusion
from smplora.errors import CheckpointError, ConfigError
from smplora.text import ClipText, SdxlText, TextConditioning

PREDICTION_TYPES = ("epsilon", "v_prediction")
BUNDLED_FOLDER = Path(__file__).parent / "assets" / "tiny"


def choose_device(name: str) -> torch.device:
    """The device of an option value; "auto" takes a GPU where there is one.

    Raises:
        ConfigError: not a device, or not one of this machine.
    """
    if name == "auto":
        if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes"):
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # of several processes each has one
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device got '{name}', which cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def load_model(name: str, device: torch.device) -> LatentDiffusion:
    """The frozen base model in fp32, evaluation mode.

    Args:
        name: "tiny", a folder in diffusers format or a model id in the local hub cache; nothing is downloaded.

    Raises:
        CheckpointError: no such model, or a component cannot be read.
    """
    bundled = name == BUNDLED_MODEL
    path = str(BUNDLED_FOLDER) if bundled else name
    try:
        with _quiet():
            parts = _components(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"--pretrained_model_name_or_path got '{name}', which is neither 'tiny', nor a folder in diffusers format "
            f"(model_index.json, vae/, unet/, text_encoder/, tokenizer/, scheduler/), nor a cached model id ({reason})"
        ) from error
    kind = parts.scheduler.config.prediction_type
    if kind not in PREDICTION_TYPES:
        raise CheckpointError(f"'{name}' predicts '{kind}'; smplora knows {' and '.join(PREDICTION_TYPES)}")
    digest = blake2b(digest_size=16)
    for part in (parts.vae, parts.unet, *parts.text_encoders):
        with _quiet():
            part.to(device).float().eval().requires_grad_(False)
        for _, tensor in sorted(part.state_dict().items()):
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
    text: TextConditioning
    if len(parts.text_encoders) == 2:
        first, second = parts.text_encoders
        text = SdxlText(first, second, (parts.tokenizers[0], parts.tokenizers[1]), parts.zeros_for_empty)
    else:
        text = ClipText(parts.text_encoders[0], parts.tokenizers[0])
    shown = "the bundled model" if bundled else Path(name).name
    return LatentDiffusion(parts.vae, text, parts.unet, parts.scheduler, shown, digest.hexdigest())


@dataclass(frozen=True)
class _Components:
    vae: Any
    unet: Any
    text_encoders: list[Any]
    tokenizers: list[Any]
    scheduler: Any
    zeros_for_empty: bool


def _components(path: str) -> _Components:
    """Stable Diffusion 1.x and 2.x have one text encoder, SDXL two; model_index.json says what a folder holds."""
    from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    local = {"local_files_only": True}
    index = DiffusionPipeline.load_config(path, **local)
    if "unet" not in index or "text_encoder" not in index:
        raise ValueError(f"{index.get('_class_name', 'this pipeline')} has no U-Net with CLIP text encoders")
    encoders = [CLIPTextModel.from_pretrained(path, subfolder="text_encoder", **local)]
    tokenizers = [CLIPTokenizer.from_pretrained(path, subfolder="tokenizer", **local)]
    if "text_encoder_2" in index:
        encoders.append(CLIPTextModelWithProjection.from_pretrained(path, subfolder="text_encoder_2", **local))
        tokenizers.append(CLIPTokenizer.from_pretrained(path, subfolder="tokenizer_2", **local))
    return _Components(
        vae=AutoencoderKL.from_pretrained(path, subfolder="vae", **local),
        unet=UNet2DConditionModel.from_pretrained(path, subfolder="unet", **local),
        text_encoders=encoders,
        tokenizers=tokenizers,
        scheduler=DDPMScheduler.from_pretrained(path, subfolder="scheduler", **local),
        zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", False)),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No notes about torchvision or progress bars for single files from the libraries."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers_logging.set_verbosity(before[0])
        transformers_logging.set_verbosity(before[1])
