"""The parts of a base model in diffusers format: a folder, or an id in the local hub cache. Nothing is downloaded."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from smplora.core.errors import CheckpointError, nearest
from smplora.core.files import BUNDLED
from smplora.core.tensor_files import Header, read_header
from smplora.models.stated import (
    PipelineIndex,
    ScheduleSettings,
    ShardIndex,
    TextSettings,
    TokenizerSettings,
    UNetSettings,
    VaeSettings,
    building,
    checked,
    read_text_file,
    unusable,
)

INDEX = "model_index.json"
OPTION = "pretrained_model_name_or_path"
STEMS = dict.fromkeys(("unet", "transformer", "vae"), "diffusion_pytorch_model")  # of weight files; others have
TEXT_STEM = "model"
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # files of a tokenizer, the one or the others
WEIGHTS = ".safetensors"
INTEGERS = ("position_ids", "num_updates", "num_batches_tracked")  # how the names of what is counted end
ADAPTER = "adapter_config.json"
KNOWN = ("StableDiffusion", "StableDiffusionXL", "LatentConsistencyModel")  # how names of pipelines begin
KNOWN_TITLES = (
    "Stable Diffusion 1.x, 2.x, SDXL, Stable Diffusion 3 and 3.5, Chroma, FLUX.1, FLUX.2 klein, FLUX.2 dev, "
    "Qwen-Image, Z-Image"
)
OTHER_FAMILIES = {  # how those of other families begin -> what people call them
    "StableDiffusion3": "Stable Diffusion 3", "Flux": "FLUX", "StableCascade": "Stable Cascade", "PixArt": "PixArt",
    "Kandinsky": "Kandinsky", "Kolors": "Kolors", "HunyuanDiT": "Hunyuan-DiT", "Sana": "Sana", "Lumina": "Lumina",
    "AuraFlow": "AuraFlow", "IF": "DeepFloyd IF", "Wuerstchen": "Wuerstchen", "QwenImage": "Qwen-Image",
}  # fmt: skip
OTHER_HALF = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")  # of CLIP, beside its text side


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


def folder_of(name: str, revision: str | None = None) -> Path:
    """The folder that is named, that of a bundled model, or that of a hub id in the local cache.

    Raises:
        OSError, ValueError: there is none.
    """
    if name in BUNDLED:
        return BUNDLED[name][1]
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, local_files_only=True))


def pipeline_class(folder: Path, given: str) -> str | None:
    """The class that model_index.json names, if it is a text.

    Args:
        given: "--option got 'x'".

    Raises:
        FileNotFoundError: it is not there.
        CheckpointError: it is damaged.
    """
    return _class_name(read_text_file(folder / INDEX, f"{given}, whose {INDEX}"))


def stated_settings(folder: Path, given: str) -> dict[str, Any]:
    """What model_index.json says beside the parts, such as ``is_distilled`` of FLUX.2 klein; see ``pipeline_class``."""
    index = read_text_file(folder / INDEX, f"{given}, whose {INDEX}")
    return {name: value for name, value in index.items() if not name.startswith("_") and not isinstance(value, list)}


def _class_name(index: Any) -> str | None:
    name = index.get("_class_name") if isinstance(index, dict) else None
    return name if isinstance(name, str) else None


def read_index(folder: Path, given: str) -> PipelineIndex:
    """What model_index.json says.

    Args:
        given: "--option got 'x'".

    Raises:
        FileNotFoundError: it is not there.
        CheckpointError: it is damaged, or of a model that smplora does not know.
    """
    whose = f"{given}, whose {INDEX}"
    content = read_text_file(folder / INDEX, whose)
    if name := _class_name(content):
        others = [title for start, title in OTHER_FAMILIES.items() if name.startswith(start)]
        if others or not name.startswith(KNOWN):
            family = f" ({others[0]})" if others else ""
            raise CheckpointError(f"{whose} names a {name}{family}; smplora knows {KNOWN_TITLES}")
        parts = ("unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        content = {k: v for k, v in content.items() if not (k in parts and v in (None, [None, None]))}
    if isinstance(content, dict):
        content = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    return checked(content, PipelineIndex, whose)


def read_settings(folder: Path, given: str, second: bool) -> None:
    """Check what the files of every part say, weights apart.

    Args:
        second: there is another text encoder.

    Raises:
        FileNotFoundError: a part is not there.
        CheckpointError: a file that is damaged, or says what cannot be.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    ends = ("", "_2") if second else ("",)
    for part in (
        "unet",
        "vae",
        "scheduler",
        *(f"{kind}{end}" for end in ends for kind in ("text_encoder", "tokenizer")),
    ):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"it has no folder {part}")
        for path in sorted((folder / part).iterdir()):
            whose = f"{given}, whose {part}/{path.name}"
            if not (path.is_file() or path.is_dir()):
                raise CheckpointError(f"{whose} is neither a file nor a folder")
            if path.name == ADAPTER:  # the library would load another model by it
                raise CheckpointError(f"{whose} is of an adapter; merge it into its model")
            if path.suffix == ".json":
                content = read_text_file(path, whose)
                if ".safetensors.index." in path.name:
                    checked(content, ShardIndex, whose)
    whose = f"{given}, whose unet/config.json"
    unet = checked(read_text_file(folder / "unet" / "config.json", whose), UNetSettings, whose, UNet2DConditionModel)
    whose = f"{given}, whose vae/config.json"
    vae = checked(read_text_file(folder / "vae" / "config.json", whose), VaeSettings, whose, AutoencoderKL)
    channels = (unet.in_channels, unet.out_channels, vae.latent_channels)
    if len(set(channels)) > 1:
        raise CheckpointError(
            f"{given}, whose unet/config.json has in_channels {channels[0]} and out_channels {channels[1]} where its "
            f"vae/config.json has latent_channels {channels[2]}; models for inpainting and the like are not read"
        )
    for end in ends:
        whose = f"{given}, whose text_encoder{end}/config.json"
        content = read_text_file(folder / f"text_encoder{end}" / "config.json", whose)
        inner = content.get("text_config") if isinstance(content, dict) else None
        checked(content if inner is None else inner, TextSettings, whose)
        path = folder / f"tokenizer{end}" / "tokenizer_config.json"
        if path.exists():
            whose = f"{given}, whose tokenizer{end}/{path.name}"
            checked(read_text_file(path, whose), TokenizerSettings, whose)
    check_scheduler(folder, given)


def check_scheduler(folder: Path, given: str) -> None:
    """As ``read_settings``, for the noise schedule: of any class that adds noise by betas."""
    import diffusers
    from diffusers.schedulers import KarrasDiffusionSchedulers

    whose = f"{given}, whose scheduler/scheduler_config.json"
    stated = checked(read_text_file(folder / "scheduler" / "scheduler_config.json", whose), ScheduleSettings, whose)
    name, common = stated.class_name, [*KarrasDiffusionSchedulers.__members__]
    if name in common:
        return
    known = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if known is None or "beta_start" not in signature(known).parameters:
        raise CheckpointError(
            f"{whose} has _class_name '{name}'{nearest(name, common)}; allowed: schedulers of diffusers that have betas"
        )


def check_weight_files(folder: Path, part: str, variant: str | None, given: str) -> None:
    """The weights of a part are there, and floating-point numbers: a library would round others without a word.

    Raises:
        FileNotFoundError: there is no weight file of the variant.
        CheckpointError: only pickles; a damaged file; weights of another type.
    """
    paths = [path for path in (folder / part).iterdir() if path.is_file()]
    names = [path.name for path in paths]
    if not any(n.endswith(WEIGHTS) for n in names) and any(n.endswith(".bin") for n in names):
        raise CheckpointError(
            f"{given}, whose {part}/ holds pickles, which can run any program when read; take .safetensors files"
        )
    stem = STEMS.get(part, TEXT_STEM)
    plain = (stem + WEIGHTS, f"{stem}{WEIGHTS}.index.json")
    if not any(f".{variant}." in n and n.startswith(stem) if variant else n in plain for n in names):
        wanted = f"{stem}.{variant}{WEIGHTS}" if variant else f"{stem}{WEIGHTS}; --variant names another"
        raise FileNotFoundError(f"{part}/ has no {wanted}")
    for path in paths:
        if path.suffix == WEIGHTS and (f".{variant}" in path.name if variant else "." not in path.stem):
            whose = f"{given}, whose {part}/{path.name}"
            check_types(read_header(path, whose), whose)


def check_types(header: Header, whose: str, starts: tuple[str, ...] = ("",)) -> None:
    """The weights whose names begin so are floating-point numbers.

    Raises:
        CheckpointError: not so.
    """
    for name, kind in header.dtypes.items():
        if name.startswith(starts) and not kind.startswith(("F", "BF")) and not name.endswith(INTEGERS):
            raise CheckpointError(f"{whose} has {kind} numbers in {name}; allowed: floating point")


def read_folder_model(
    name: str, variant: str | None = None, revision: str | None = None, option: str = OPTION
) -> Components:
    """The parts that model_index.json names.

    Args:
        name: folder, or hub id in the local cache.
        variant: suffix of the weight files, such as "fp16".
        revision: of a hub id: branch, tag or commit.
        option: the one that named it, for messages.

    Raises:
        OSError, ValueError: there is no such model, or a file of it is missing.
        CheckpointError: a file that cannot be used.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    folder, given = folder_of(name, revision), f"--{option} got '{name}'"
    index = read_index(folder, given)
    second = index.text_encoder_2 is not None
    read_settings(folder, given, second)
    weights = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
    tokens = ["tokenizer"]
    if second:
        weights["text_encoder_2"] = CLIPTextModelWithProjection
        tokens.append("tokenizer_2")
    for part in weights:
        check_weight_files(folder, part, variant, given)
    for part in tokens:
        if not any(all((folder / part / name).is_file() for name in names) for names in VOCABULARIES):
            raise FileNotFoundError(f"{part}/ has neither tokenizer.json nor vocab.json with merges.txt")
    local: dict[str, Any] = {"local_files_only": True}
    more = local | {"variant": variant, "use_safetensors": True, "output_loading_info": True}
    models = {}
    for part, kind in weights.items():
        # transformers tells of weights of another shape if it is not to raise; diffusers' exception names the first
        told_of = {"ignore_mismatched_sizes": True} if part.startswith("text_encoder") else {}
        with building(unusable(f"{given}, whose {part}/ with its config.json")):
            model, told = kind.from_pretrained(str(folder), subfolder=part, **more, **told_of)
            check_keys(told, f"{given}, whose {part}/")
            models[part] = model
    tokenizers = []
    for part in tokens:
        with building(unusable(f"{given}, whose {part}/")):
            tokenizers.append(CLIPTokenizer.from_pretrained(str(folder), subfolder=part, **local))
    with building(unusable(f"{given}, whose scheduler/")):
        scheduler = DDPMScheduler.from_pretrained(str(folder), subfolder="scheduler", **local)
    return Components(
        vae=models["vae"],
        unet=models["unet"],
        text_encoders=[model for part, model in models.items() if part.startswith("text_encoder")],
        tokenizers=tokenizers,
        scheduler=scheduler,
        zeros_for_empty=index.force_zeros_for_empty_prompt,
    )


def check_keys(told: dict[str, Any], whose: str) -> None:
    """Every weight that the configuration has is in the files, and none besides.

    Args:
        told: what a library says of its loading.

    Raises:
        CheckpointError: not so.
    """
    missing = sorted(told["missing_keys"])
    surplus = sorted(k for k in told["unexpected_keys"] if not k.startswith(OTHER_HALF))
    other = sorted(str(k[0]) for k in told["mismatched_keys"])
    for names, what in (
        (missing, "lacks {}"),
        (other, "has {} of another shape"),
        (surplus, "has {} too many"),
    ):
        if names:
            count = f"{len(names)} weight{'s' * (len(names) > 1)}"
            raise CheckpointError(f"{whose} {what.format(count)} by its config.json, such as {names[0]}")


@contextmanager
def quiet() -> Iterator[None]:
    """No notes about torchvision, no progress bars for single files and no reports of what we raise, from libraries."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers_logging.set_verbosity(before[0])
        transformers_logging.set_verbosity(before[1])
