"""Options of the base model, of images and captions, and of the split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from smplora.config.checks import at_least, at_most, existing_folder, needed, with_sizes
from smplora.core.files import BUNDLED_MODEL, PICKLED_MODEL, no_pickle
from smplora.core.surroundings import real

FEWEST_CANARIES = 100  # fewer prove next to nothing
TWO_KINDS = "--num_canaries and --canaries_dir are both given; give one of them"
TWO_SOURCES = "--train_data_dir and --dataset_name are both given; give one of them"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    pretrained_model_name_or_path: str = BUNDLED_MODEL
    """Base model: SD, SDXL, FLUX, Qwen-Image or Z-Image as a diffusers folder or hub id, SD or SDXL in one file, 'tiny' or 'tiny-flow'. See docs/base-models.md."""
    model_config: Optional[str] = None
    """For a base model in one .safetensors file: a diffusers folder with its configuration; of flow matching, with all its other parts. Default: the standard one."""
    prediction_type: Optional[Literal["epsilon", "v_prediction"]] = None
    """What the base model predicts. Default: what the model states; of SD 2.x in one file, what it is seen to predict."""
    variant: Optional[str] = None
    """Variant of the weight files of a folder or model id, such as 'fp16'."""
    revision: Optional[str] = None
    """Revision of a model id in the local hub cache: branch, tag or commit."""
    allow_download: bool = False
    """Fetch a model id (or a --dataset_name) that is not in the local hub cache from the hub. Without it nothing is downloaded."""
    resolution: Optional[int] = None
    """Edge length in pixels; images are resized (shorter side) and cropped at the centre. Default: the model's own."""
    device: str = "auto"
    """Where to compute: 'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1', 'mps'."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    train_data_dir: Optional[str] = None
    """Folder of images with captions: in metadata.jsonl ({"file_name": .., "text": ..}) or metadata.csv, in a .txt file beside each image, or from --default_caption."""
    dataset_name: Optional[str] = None
    """In place of a folder: a data set of the datasets library (needs smplora[datasets]), as a save_to_disk folder, parquet files, or a hub id in the local cache."""
    dataset_config_name: Optional[str] = None
    """Configuration of the data set, where it has several."""
    dataset_split: str = "train"
    """Split of the data set whose images are the pool."""
    image_column: str = "image"
    """Column of the images in --dataset_name."""
    caption_column: str = "text"
    """Key of the caption in metadata.jsonl or metadata.csv, or its column in --dataset_name."""
    folder_repeats: Optional[bool] = None
    """A folder '10_sks dog' means, as in kohya's scripts: train on its images 10 times a pass; {class} is 'sks dog'. Default: true, unless it may be a numbering."""
    default_caption: Optional[str] = None
    """Caption for images that have none; without it such images are an error. '{class}' stands for an image's folder or class label, as in 'a photo of a {class}'."""
    canaries_dir: Optional[str] = None
    """Folder of further pictures as canaries, in place of --num_canaries: each is put into training or not by a fair coin."""


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    center_crop: Optional[bool] = None
    """Crop at the centre: the default. With 'false', as with --random_crop, training also sees other crops."""
    random_crop: bool = False
    """Train on several crops of each image. Audits and evaluations see the centre."""
    num_crops: int = 4
    """How many, the centre among them. Each is encoded once; a step takes one of them at random."""
    random_flip: bool = False
    """Train on mirrored images too, every other time."""
    augmentation: Literal["none", "cutout", "randaugment"] = "none"
    """Train on changed pictures too: 'cutout' covers a square with grey, 'randaugment' changes colour or place twice. The adapter learns to draw those too."""
    num_augmentations: int = 4
    """How many variants of each picture (of each of its crops), the unchanged one among them. Each is encoded once; a step takes one of them at random."""
    enable_bucket: bool = False
    """Keep aspect ratios, roughly: each image gets the nearest of a few shapes with as many pixels as the square of --resolution. A batch has one shape."""
    bucket_reso_steps: int = 64
    """Heights and widths of these shapes are multiples of this."""
    min_bucket_reso: Optional[int] = None
    """Shortest side of a shape. Default: no limit."""
    max_bucket_reso: Optional[int] = None
    """Longest side of a shape. Default: no limit."""
    bucket_no_upscale: bool = False
    """Images with fewer pixels keep their own size, rounded down to --bucket_reso_steps, and are not enlarged."""
    shuffle_caption: bool = False
    """Train with the tags of a caption (what commas separate) in several orders. Audits see the caption as written."""
    keep_tokens: int = 0
    """So many tags at the beginning keep their places."""
    num_caption_shuffles: int = 4
    """How many orders, the one as written among them. Each is embedded once; a step takes one of them at random."""
    caption_dropout_rate: float = 0.0
    """How often training takes the empty caption in place of an image's own, between 0 and 1."""

    @property
    def crops_at_random(self) -> bool:
        """Whether training sees more than the centre."""
        return self.random_crop or self.center_crop is False


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    cache_latents_to_disk: bool = True
    """Keep latents, embeddings, generated images and signals of audits in a private folder for later commands. Images can be decoded from it; see docs/data.md."""
    cache_dir: Optional[str] = None
    """Where they are kept. Default: the environment variable SMPLORA_CACHE, or ~/.cache/smplora."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Say where latents, text embeddings, generated images and signals of audits are kept, and how large they are. With --clear they are removed."""

    cache_dir: Optional[str] = None
    """The folder. Default: the environment variable SMPLORA_CACHE, or ~/.cache/smplora."""
    clear: bool = False
    """Remove all of them. Nothing else in the folder is touched."""
    json: bool = False
    """Print the result as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return []


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    split_protocol: Literal["fixed", "coin"] = "fixed"
    """'fixed': cells of given sizes, as in the paper. 'coin': a fair coin per image decides membership, another one aux or test; one-run epsilon bounds need this."""
    aux_size: Optional[int] = None
    """With --split_protocol fixed: images in each of the two aux cells (members, non-members). Default: about a fifth of the pool, at most 100."""
    test_size: Optional[int] = None
    """With --split_protocol fixed: images in each of the two test cells. Default: as aux_size."""
    test_nonmember_size: Optional[int] = None
    """With --split_protocol fixed: images in the cell of test non-members, where it is to differ. Default: as test_size."""
    reference_size: Optional[int] = None
    """Held-out images that no cell touches, for quality. Default: all that are left ('fixed') or a fifth of the pool ('coin')."""
    num_canaries: Optional[int] = None
    """So many images become canaries (100 or more; 400 prove more): a fair coin puts each into training or not. The audit says what epsilon they prove."""
    split_seed: int = 0
    """Seed of the split alone, apart from --seed."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig(DataOptions, SplitOptions):
    """Divide images into sealed cells: aux and test members (the training set), aux and test non-members, held-out reference."""

    output_dir: str = "runs/split"
    """Where split.json is written. It holds file names: keep it private."""
    allow_download: bool = False
    """Fetch a --dataset_name that is not in the local cache from the hub. Without it nothing is downloaded."""
    json: bool = False
    """Print the result as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return data_problems(self) + split_problems(self)


def cache_problems(config: CacheOptions, images: str | None) -> list[str]:
    """Latents can be decoded into images, and folders of images are copied and shared: the two stay apart."""
    if not config.cache_dir or not images or not real(config.cache_dir).is_relative_to(real(images)):
        return []
    return [f"--cache_dir got '{config.cache_dir}', which is inside of the images' folder; give a folder elsewhere"]


def model_problems(config: ModelOptions) -> list[str]:
    """What is wrong with the options of the base model."""
    name = config.pretrained_model_name_or_path
    pickled = no_pickle(name, "pretrained_model_name_or_path", PICKLED_MODEL)
    if pickled:
        return pickled
    single = name.lower().endswith(".safetensors")
    only_files = [f"--model_config is for base models in one .safetensors file, and '{name}' is none"]
    never_files = [
        f"--{option} got '{value}'; a base model in one .safetensors file has none"
        for option, value in (("variant", config.variant), ("revision", config.revision))
        if value
    ]
    return [
        *existing_folder(config.model_config, "model_config"),
        *(never_files if single else only_files if config.model_config else []),
    ]


def data_problems(config: DataOptions) -> list[str]:
    """Problems of the options that name images."""
    return [
        *needed(
            config.train_data_dir or config.dataset_name,
            "train_data_dir",
            "a folder of images with captions (or a data set with --dataset_name)",
        ),
        *([TWO_SOURCES] if config.train_data_dir and config.dataset_name else []),
        *existing_folder(config.train_data_dir, "train_data_dir"),
        *existing_folder(config.canaries_dir, "canaries_dir"),
    ]


def split_problems(config: SplitOptions) -> list[str]:
    """Problems of the options of a new split."""
    sizes = ("aux_size", "test_size", "test_nonmember_size")
    set_sizes = [
        f"--{n} got {getattr(config, n)}; --split_protocol coin has no fixed sizes"
        for n in sizes
        if getattr(config, n) is not None
    ]
    return [
        *(set_sizes if config.split_protocol == "coin" else at_least(config, sizes, 2)),
        *at_least(config, ("reference_size", "split_seed"), 0),
        *at_least(config, ("num_canaries",), FEWEST_CANARIES),
        *([TWO_KINDS] if config.num_canaries and getattr(config, "canaries_dir", None) else []),
    ]


def preparation_problems(config: PreparationOptions) -> list[str]:
    """Problems of the options that say how images and captions are prepared."""
    both = ["--center_crop and --random_crop exclude each other; give one of them"]
    step = config.bucket_reso_steps
    return [
        *(both if config.center_crop and config.random_crop else []),
        *at_least(
            config, ("num_crops", "num_augmentations", "num_caption_shuffles", "min_bucket_reso", "max_bucket_reso"), 1
        ),
        *at_least(config, ("keep_tokens", "caption_dropout_rate"), 0),
        *at_most(config, ("caption_dropout_rate",), 1),
        *([f"--bucket_reso_steps got {step}; allowed: multiples of 8"] if step < 8 or step % 8 else []),
    ]
