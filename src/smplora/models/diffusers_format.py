"""The parts of a base model in diffusers format: a folder, or an id in the local hub cache. Nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.core.tensor_files import read_header

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")  # those with weights


@dataclass(frozen=True)
class Components:
    """The parts of a base model. Stable Diffusion 1.x and 2.x have one text encoder, SDXL two."""

    vae: Any
    unet: Any
    text_encoders: list[Any]
    tokenizers: list[Any]
    scheduler: Any  # diffusers' DDPMScheduler
    zeros_for_empty: bool  # diffusers' force_zeros_for_empty_prompt
    states_prediction: bool = True  # False: nothing says what the U-Net predicts

    @property
    def models(self) -> list[tuple[str, Any]]:
        """Everything that has weights, with its name."""
        names = ("text_encoder", "text_encoder_2")
        return [("vae", self.vae), ("unet", self.unet), *zip(names, self.text_encoders, strict=False)]


def read_folder_model(path: str, variant: str | None = None, revision: str | None = None) -> Components:
    """The parts that model_index.json names.

    Args:
        path: folder, or hub id in the local cache.
        variant: suffix of the weight files, such as "fp16".
        revision: of a hub id: branch, tag or commit.

    Raises:
        CheckpointError: a file of weights is something else, or damaged.
        OSError, ValueError, KeyError: a part is missing or cannot be read.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    local: dict[str, Any] = {"local_files_only": True, "revision": revision}
    weights = local | {"variant": variant, "use_safetensors": True}
    for part in Path(path).glob("*/"):
        if any(part.glob("*.bin")) and not any(part.glob("*.safetensors")):
            raise ValueError(
                f"{part.name}/ holds pickles, which can run any program when read; take .safetensors files"
            )
    for file in sorted(f for part in PARTS for f in Path(path, part).glob("*.safetensors")):
        if (f".{variant}" in file.name) if variant else ("." not in file.stem):
            read_header(file, f"--pretrained_model_name_or_path got '{path}', whose {file.parent.name}/{file.name}")
    index = DiffusionPipeline.load_config(path, **local)
    if "unet" not in index or "text_encoder" not in index:
        raise ValueError(f"{index.get('_class_name', 'this pipeline')} has no U-Net with CLIP text encoders")
    encoders = [CLIPTextModel.from_pretrained(path, subfolder="text_encoder", **weights)]
    tokenizers = [CLIPTokenizer.from_pretrained(path, subfolder="tokenizer", **local)]
    if "text_encoder_2" in index:
        encoders.append(CLIPTextModelWithProjection.from_pretrained(path, subfolder="text_encoder_2", **weights))
        tokenizers.append(CLIPTokenizer.from_pretrained(path, subfolder="tokenizer_2", **local))
    return Components(
        vae=AutoencoderKL.from_pretrained(path, subfolder="vae", **weights),
        unet=UNet2DConditionModel.from_pretrained(path, subfolder="unet", **weights),
        text_encoders=encoders,
        tokenizers=tokenizers,
        scheduler=DDPMScheduler.from_pretrained(path, subfolder="scheduler", **local),
        zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", False)),
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No notes about torchvision or progress bars for single files from the libraries."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers_logging.set_verbosity(before[0])
        transformers_logging.set_verbosity(before[1])
