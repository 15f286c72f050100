"""Base models in one .safetensors file, as Stability AI, CivitAI and A1111 lay them out; no network.

diffusers converts the weights. Configurations of SD 1.x, 2.x and SDXL and CLIP's vocabulary come with smplora
(assets/), so that a file alone is enough.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smplora.core import tensor_files
from smplora.core.errors import CheckpointError
from smplora.core.files import ASSETS, PICKLED_MODEL, PICKLES, no_pickle
from smplora.models.diffusers_format import Components, check_types, read_index, read_settings
from smplora.models.stated import building, first_line, unusable

CONFIGS = ASSETS / "configs"
SUFFIX = ".safetensors"
FAMILIES = {"v1": "sd1", "v2": "sd2", "xl_base": "sdxl"}  # diffusers' name of the layout -> folder in CONFIGS
END = "<|endoftext|>"
PADDING = {"sd1": (END,), "sd2": ("!",), "sdxl": (END, "!")}  # what each tokenizer of the family pads with
TEXT_KEYS = ("cond_stage_model.", "conditioner.embedders.")
UNET_PREFIX = "model.diffusion_model."
UNET_KEY = f"{UNET_PREFIX}input_blocks.0.0.weight"
VAE_KEY = "first_stage_model."
OF_TRANSFORMERS = "a flow-matching transformer, if --model_config names the diffusers folder with all its other parts"
BASE_SAMPLE_SIZE = 64  # SD 2.x that predicts noise was made for 512 pixels, with v-prediction for 768
V_PREDICTION_KEYS = ("v_pred",)  # an empty tensor of this name marks v-prediction, "ztsnr" a schedule ending at SNR 0
ZERO_SNR_KEY = "ztsnr"


def is_single_file(name: str) -> bool:
    """Whether ``name`` is meant as a file rather than a folder or a hub id."""
    return Path(name).is_file() or Path(name).suffix.lower() in (SUFFIX, *PICKLES)


def is_transformer(name: str) -> bool:
    """Whether a file has no U-Net.

    Raises:
        CheckpointError: it cannot be read.
    """
    return not any(key.startswith(f"{UNET_PREFIX}input_blocks") for key in read_header(name)[0])


def read_single_file(name: str, config: str | None = None) -> Components:
    """The parts of the model in one file.

    Args:
        name: the file.
        config: a folder in diffusers format whose configuration and tokenizer are used (weights are not needed);
            None: the standard configuration of the family that the file's keys show.

    Raises:
        CheckpointError: no such file, not safetensors, damaged, incomplete, or of an unknown family.
        OSError: ``config`` lacks a file.
    """
    from diffusers import DDPMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    prefix = f"--pretrained_model_name_or_path got '{name}', which"
    shapes, metadata = read_header(name)
    family = family_of_file(shapes, prefix)
    folder = Path(config or CONFIGS / family)
    index = read_index(folder, f"--model_config got '{folder}'")
    second = index.text_encoder_2 is not None
    if config:
        read_settings(folder, f"--model_config got '{config}'", second)
    pipeline_class = StableDiffusionXLPipeline if second else StableDiffusionPipeline
    others: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
    others |= {"add_watermarker": False} if second else {"safety_checker": None, "requires_safety_checker": False}
    if config is None:
        names = ("tokenizer", "tokenizer_2")
        others |= {n: clip_tokenizer(pad) for n, pad in zip(names, PADDING[family], strict=False)}

    def wrong(error: Exception) -> CheckpointError:
        if isinstance(error, NotImplementedError):  # raised where a tensor that was never filled is moved
            return CheckpointError(f"{prefix} lacks weights of the U-Net or the VAE; a whole checkpoint is needed")
        return CheckpointError(
            f"{prefix} does not fit the configuration in {folder if config else f'use for {family}'} "
            f"({first_line(error)}); --model_config takes a folder in diffusers format with the right one"
        )

    with building(wrong):
        parts = pipeline_class.from_single_file(name, config=str(folder), local_files_only=True, **others)
    components = Components(
        vae=parts.vae,
        unet=parts.unet,
        text_encoders=[parts.text_encoder, *([parts.text_encoder_2] if second else [])],
        tokenizers=[parts.tokenizer, *([parts.tokenizer_2] if second else [])],
        scheduler=DDPMScheduler.from_config(parts.scheduler.config, **stated_schedule(shapes, metadata)),
        zeros_for_empty=index.force_zeros_for_empty_prompt,
        states_prediction=bool(config or family != "sd2" or stated_schedule(shapes, metadata)),
    )
    for part, model in components.models:
        missing = [key for key, tensor in model.state_dict().items() if tensor.is_meta]
        if missing:
            raise CheckpointError(f"{prefix} lacks {len(missing)} weights of the {part}, such as {missing[0]}")
    return components


def read_header(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor's name and shape (without its values), and the file's metadata.

    Raises:
        CheckpointError: no such file, no safetensors file, or weights that are no floating-point numbers.
    """
    prefix = f"--pretrained_model_name_or_path got '{name}', which"
    pickled = no_pickle(name, "pretrained_model_name_or_path", PICKLED_MODEL)
    if pickled:
        raise CheckpointError(pickled[0])
    header = tensor_files.read_header(Path(name), prefix)
    check_types(header, prefix, (UNET_PREFIX, VAE_KEY, *TEXT_KEYS))
    return {key: torch.empty(shape, device="meta") for key, shape in header.shapes.items()}, header.metadata


def family_of_file(shapes: Mapping[str, Tensor], prefix: str) -> str:
    """ "sd1", "sd2" or "sdxl", from the names and shapes of a file's tensors.

    Raises:
        CheckpointError: something else, or only a part of a model.
    """
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    with building(unusable(prefix)):
        kind = infer_diffusers_model_type(shapes)  # "v1" for everything that it does not know
    if kind not in FAMILIES:
        raise CheckpointError(
            f"{prefix} holds '{kind}'; smplora knows Stable Diffusion 1.x, 2.x and SDXL base in one file, and "
            f"{OF_TRANSFORMERS}"
        )
    parts = {"U-Net": (UNET_KEY,), "VAE": (VAE_KEY,), "text encoder": TEXT_KEYS}
    missing = [part for part, starts in parts.items() if not any(key.startswith(starts) for key in shapes)]
    if len(missing) == len(parts):
        example = next(iter(shapes), "nothing")
        raise CheckpointError(f"{prefix} is not a Stable Diffusion checkpoint (it holds {example}); {OF_TRANSFORMERS}")
    if missing:
        raise CheckpointError(f"{prefix} has no {' and no '.join(missing)}; a whole checkpoint is needed")
    return FAMILIES[kind]


def stated_schedule(shapes: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file says of its noise schedule, as options of a diffusers scheduler; empty if it says nothing.

    Sources: the marker keys that ComfyUI reads, and ``modelspec.prediction_type`` of the Stability model
    specification, which kohya's scripts write ("epsilon" or "v").
    """
    stated: dict[str, Any] = {}
    spec = metadata.get("modelspec.prediction_type")
    if spec in ("epsilon", "v"):
        stated["prediction_type"] = {"epsilon": "epsilon", "v": "v_prediction"}[spec]
    if any(key in shapes for key in V_PREDICTION_KEYS):
        stated["prediction_type"] = "v_prediction"
    if ZERO_SNR_KEY in shapes:
        stated |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return stated


def clip_tokenizer(pad: str) -> Any:
    """CLIP's tokenizer (77 tokens), which all Stable Diffusion models use, padding with the token ``pad``."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    lines = gzip.decompress((ASSETS / "clip" / "merges.txt.gz").read_bytes()).decode().splitlines()
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)
