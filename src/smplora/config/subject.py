"""Options of adapters that another program made: what a run folder of 'smplora train' would know by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

from smplora.config.checks import at_least, existing_folder, sizes
from smplora.config.data import CacheOptions, model_problems, preparation_problems
from smplora.config.train import TrainConfig
from smplora.core.files import PICKLED_ADAPTER, no_pickle
from smplora.core.surroundings import real

RUN = "config.yaml"  # what every run folder holds
POOLS = ("members", "nonmembers")


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    members: Optional[str] = None
    """Of an adapter made elsewhere: folder of images (with captions) that it was trained on. A random half of them is aux."""
    nonmembers: Optional[str] = None
    """Of an adapter made elsewhere: folder of images (with captions) of the same source that it was not trained on."""
    pretrained_model_name_or_path: Optional[str] = None
    """Of an adapter made elsewhere: the base model that it was trained on, given as for 'smplora train'. A run knows its own."""
    model_config: Optional[str] = None
    """For a base model in one .safetensors file, as for 'smplora train'."""
    prediction_type: Optional[Literal["epsilon", "v_prediction"]] = None
    """What the base model predicts, where it does not say."""
    variant: Optional[str] = None
    """Variant of the base model's weight files, such as 'fp16'."""
    revision: Optional[str] = None
    """Revision of a model id in the local hub cache."""
    allow_download: Optional[bool] = None
    """Fetch the base model from the hub where it is not in the local cache."""
    resolution: Optional[int] = None
    """Of an adapter made elsewhere: edge length in pixels that it was trained at. Default: what the file says, else the base model's own."""
    clip_skip: Optional[int] = None
    """Of an adapter made elsewhere: layer of the text encoder, counted from the end. Default: what the file says, else 1."""
    max_token_length: Optional[Literal[75, 150, 225]] = None
    """Of an adapter made elsewhere: tokens of a caption that were read. Default: what the file says, else 75."""
    enable_bucket: Optional[bool] = None
    """Of an adapter made elsewhere: it was trained on several shapes. Default: what the file says, else false."""
    bucket_reso_steps: Optional[int] = None
    """Heights and widths of these shapes are multiples of this. Default: 64."""
    min_bucket_reso: Optional[int] = None
    """Shortest side of a shape. Default: no limit."""
    max_bucket_reso: Optional[int] = None
    """Longest side of a shape. Default: no limit."""
    bucket_no_upscale: Optional[bool] = None
    """Smaller images kept their size. Default: what the file says, else false."""
    placeholder_token: Optional[str] = None
    """Of learned embeddings: the word for them in the captions; where no caption has it, it goes in front of each. Default: what the file says, else its name."""
    initializer_token: Optional[str] = None
    """Of learned embeddings: the word that they began as, which stands in the captions for the base model. Default: '*'."""
    caption_column: Optional[str] = None
    """Key of the caption in metadata.jsonl or metadata.csv. Default: text."""
    folder_repeats: Optional[bool] = None
    """Of an adapter made elsewhere: folders such as '10_sks dog' are kohya's, as for 'smplora train'. Default: yes, unless it may be a numbering."""
    default_caption: Optional[str] = None
    """Caption for images that have none, as the adapter was trained with; '{class}' stands for the name of the image's folder."""


@dataclass(frozen=True, kw_only=True)
class SubjectOptions(FileOptions, CacheOptions):
    fetches_for_runs: ClassVar[bool] = False  # whether --allow_download is for more than the base model

    adapter: Optional[str] = None
    """A run folder of 'smplora train', one of its checkpoints, or a LoRA or learned embeddings of any trainer (.safetensors; docs/auditing.md says what else to give)."""
    train_data_dir: Optional[str] = None
    """The images, if they moved since training; of an adapter made elsewhere those of --split_manifest."""
    dataset_name: Optional[str] = None
    """The data set, if it moved since training."""
    canaries_dir: Optional[str] = None
    """The canaries, if they moved since training."""
    split_manifest: Optional[str] = None
    """A split.json to use in place of the run's, with the same members. Of an adapter made elsewhere: who is who, in place of --members and --nonmembers."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Precision of a flow-matching base model: 'bf16' halves the memory that transformer and text encoders take; the adapter stays fp32."""
    seed: int = 0
    """Seed of noise and classifiers; generated image i starts from the noise of seed + i, for every adapter."""
    device: str = "auto"
    """Where to compute: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'."""
    json: bool = False
    """Print the result as JSON on standard output."""


def given_options(config: FileOptions) -> dict[str, Any]:
    """Those that were given."""
    values = {f.name: getattr(config, f.name) for f in fields(FileOptions)}
    return {name: value for name, value in values.items() if value is not None}


def _of_files_alone(config: SubjectOptions) -> list[str]:
    """Options that were given and that a run has no use for."""
    return [name for name in given_options(config) if name != "allow_download" or not config.fetches_for_runs]


def in_a_run(adapter: str) -> bool:
    """Whether a path is a run folder, a checkpoint (maybe one that is gone), or a file in one."""
    path = real(adapter)
    folder = path.parent if path.is_file() else path
    return (folder / RUN).exists() or (folder.name.startswith("checkpoint-") and (folder.parents[1] / RUN).exists())


def is_foreign(config: SubjectOptions) -> bool:
    """Whether the adapter is to be read without a run: the options say so, or there is none."""
    return bool(_of_files_alone(config)) or (
        Path(config.adapter or "").is_file() and not in_a_run(config.adapter or "")
    )


def as_training(config: SubjectOptions, recorded: Mapping[str, Any]) -> TrainConfig:
    """How the adapter was trained, as far as it is known.

    Args:
        recorded: what the file says; options that are given win.
    """
    known = {**recorded, **given_options(config)}
    options = {name: value for name, value in known.items() if name not in POOLS}
    places = {name: getattr(config, name) for name in ("train_data_dir", "dataset_name", "canaries_dir")}
    return TrainConfig(**places, **options)


def file_problems(config: SubjectOptions, output_dir: str | None) -> list[str]:
    """Problems of an adapter that is to be read without a run."""
    adapter = config.adapter or ""
    pickled = no_pickle(adapter, "adapter", PICKLED_ADAPTER)
    if pickled:
        return pickled
    set_options = [f"--{name}" for name in _of_files_alone(config)]
    if set_options and Path(adapter).is_dir() and in_a_run(adapter):
        return [
            f"{', '.join(set_options)}: '{adapter}' is a run, which knows its own; leave out, or give one of its files"
        ]
    if not is_foreign(config):
        return []
    options = as_training(config, {})
    return [
        *([] if not adapter or Path(adapter).exists() else [f"--adapter got '{adapter}', which does not exist"]),
        *_missing(config, output_dir),
        *(p for name in (*POOLS, "canaries_dir") for p in existing_folder(getattr(config, name), name)),
        *model_problems(options),
        *told_problems(options),
    ]


def told_problems(options: TrainConfig) -> list[str]:
    """Problems of what options, or a file's header, tell of the training of an adapter made elsewhere."""
    return [
        *sizes(options),
        *preparation_problems(options),
        *at_least(options, ("resolution",), 8),
        *at_least(options, ("clip_skip",), 1),
    ]


def _missing(config: SubjectOptions, output_dir: str | None) -> list[str]:
    """What must be known of an adapter made elsewhere, in one line."""
    folders = [name for name in POOLS if getattr(config, name)]
    source = config.train_data_dir or config.dataset_name
    if folders and (source or config.split_manifest):
        return [f"--{folders[0]} and --split_manifest are two ways to name the images; give one of them"]
    if config.canaries_dir and not config.split_manifest:
        return ["--canaries_dir: --split_manifest says who is in, as 'smplora split' writes it; give that too"]
    images = (
        [] if config.split_manifest and source
        else ["train_data_dir"] if config.split_manifest
        else [name for name in POOLS if name not in folders]
    )  # fmt: skip
    lacking = [
        *([] if config.pretrained_model_name_or_path else ["pretrained_model_name_or_path"]),
        *images,
        *([] if output_dir else ["output_dir"]),
    ]
    if not lacking:
        return []
    instead = "" if folders or config.split_manifest else " (or --split_manifest and --train_data_dir)"
    return [
        f"'{config.adapter}' is no run of 'smplora train', so that more must be known: give "
        f"{', '.join(f'--{name}' for name in lacking)}{instead if images else ''}"
    ]
