"""Adapters that other programs made: a file of any layout, or a whole fine-tuned model, put onto its base model.

There is no run to ask, so that options and the file's header tell how it was trained, and folders who is a member.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from smplora.adapters.files.read import AdapterFile, named_as, read_adapter
from smplora.adapters.files.write import ADAPTER_FILE, OURS
from smplora.adapters.full import FullAdaptation
from smplora.adapters.lora import LoRAAdaptation
from smplora.config.dreambooth import CAPTION
from smplora.config.subject import POOLS, SubjectOptions, as_training, is_foreign
from smplora.config.train import TrainConfig
from smplora.core.cache import Cache
from smplora.core.device import choose_device
from smplora.core.errors import CheckpointError
from smplora.core.files import files_sha256
from smplora.data.folder import ImageFolder
from smplora.data.pool import open_source, read_samples
from smplora.data.source import ImageSource, Reading
from smplora.data.split import Split, read_split, split_pools
from smplora.models.adapted import Adaptation, Adapted
from smplora.models.diffusion import LatentDiffusion
from smplora.models.text import configured
from smplora.runs.base_model import fetch_model, load_base
from smplora.runs.other_embeddings import attach_embeddings, is_inversion, read_inversion
from smplora.runs.subject import Foreign, Loaded, load_subject

USUAL_FILES = (ADAPTER_FILE, "adapter_model.safetensors")  # what diffusers and peft write into a folder
WHOLE_MODEL = "model.diffusion_model."  # how the U-Net's keys begin in a checkpoint in one file
HEADER = {  # what kohya's scripts and smplora write into a file's header -> the option that it sets
    "ss_clip_skip": "clip_skip",
    "ss_max_token_length": "max_token_length",
    "ss_resolution": "resolution",
    "ss_enable_bucket": "enable_bucket",
    "ss_bucket_no_upscale": "bucket_no_upscale",
    f"{OURS}resolution": "resolution",
}


def load_any(config: SubjectOptions, cache: Cache | None) -> Loaded:
    """What ``--adapter`` names, from a run or not.

    Raises:
        UserError: anything that the user can mend.
    """
    if is_foreign(config):
        return load_foreign(config, cache)
    return load_subject(
        config.adapter or "", config.train_data_dir, config.device, config.split_manifest, config.dataset_name, cache
    )


def load_foreign(config: SubjectOptions, cache: Cache | None = None) -> Loaded:
    """An adapter without a run, on its base model.

    Raises:
        UserError: the adapter is damaged, does nothing or does not fit the model; images that cannot be used.
    """
    path = Path(config.adapter or "")
    options = as_training(config, {})
    whole, inversion = _is_whole_model(path), is_inversion(path)
    if not whole and not inversion:
        _file_in(path)  # what is wrong with a folder is said before the model is loaded
    fetch_model(options)
    model = load_base(options, choose_device(config.device))
    embeddings = read_inversion(path) if inversion else None
    adaptation: Adaptation
    word = ""
    if embeddings:
        base = options.pretrained_model_name_or_path
        learned = attach_embeddings(
            embeddings, path, model, base, word=config.placeholder_token, initializer=config.initializer_token
        )
        adaptation, word = learned, learned.placeholder_token
        kind, known, sha256 = "textual_inversion", _known_training(embeddings.metadata, model), embeddings.sha256
    elif whole:
        adaptation = _attach_weights(path, model, options)
        kind, known, sha256 = "full", dict[str, Any](), files_sha256(_weights(path))
    else:
        layers: Any = model.denoiser.config
        file = read_adapter(_file_in(path), layers.layers_per_block)
        adaptation = attach_file(file, path, model, options.pretrained_model_name_or_path)
        kind, known, sha256 = "lora", _known_training(file.metadata, model), file.sha256
    options = as_training(config, known)
    options = replace(options, resolution=options.resolution or model.resolution)
    model.text = configured(model.text, options.clip_skip, options.max_token_length)
    source, split = _images(config, options)
    if word and not any(word in s.caption for samples in split.cells.values() for s in samples):
        split = split.worded(f"{word} {CAPTION}")
    subject, resolution = Foreign(path, options, kind), options.resolution or model.resolution
    return Loaded(subject, Adapted(model, adaptation), split, source, resolution, sha256, cache)


@dataclass(frozen=True)
class FileAdaptation(LoRAAdaptation):
    """Low-rank adapters of exactly the modules that a file names, "unet.mid_block...", each with its rank and alpha."""

    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def components(self, model: LatentDiffusion) -> list[str]:
        """Those that the file has modules of."""
        return [name for name in ("unet", *model.text.encoders) if any(m.startswith(f"{name}.") for m in self.ranks)]

    def peft_config(self, component: str) -> LoraConfig:
        """Exact names; one pattern for each rank and each alpha, since peft tries all patterns on every module."""
        ranks, alphas = (_of(component, values) for values in (self.ranks, self.alphas))
        return LoraConfig(
            target_modules=_any_of(ranks),
            rank_pattern={_any_of(names): rank for rank, names in _grouped(ranks).items()},
            alpha_pattern={_any_of(names): alpha for alpha, names in _grouped(alphas).items()},
            use_dora=self.use_dora,
        )


def _of(component: str, values: Mapping[str, Any]) -> dict[str, Any]:
    start = f"{component}."
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def _any_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)


def _grouped(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return groups


def attach_file(file: AdapterFile, path: Path, model: LatentDiffusion, base: str) -> FileAdaptation:
    """Give the model the file's adapter, under the adaptation that is returned.

    Args:
        path, base: what messages call them.

    Raises:
        CheckpointError: it does not fit, or changes nothing.
    """
    modules = _layers(model)
    names = named_as({module: module for module in file.ranks}, modules)  # the model's -> the file's
    misfit = f"--adapter: {path} does not fit {base}: "
    lost = [name for name in names if name not in modules]
    if lost:
        raise CheckpointError(f"{misfit}it has no layer {lost[0]} ({len(lost)} of the file's {len(names)} are missing)")
    shapes = {name: (_shape(modules[name]), _shape_in(file, file_name)) for name, file_name in names.items()}
    other = [name for name, (ours, file_name) in shapes.items() if ours != file_name]
    if other:
        ours, file_name = shapes[other[0]]
        raise CheckpointError(
            f"{misfit}{other[0]} maps {ours[0]} numbers to {ours[1]}, the file's {file_name[0]} to {file_name[1]} "
            f"({len(other)} of {len(names)} layers differ)"
        )
    magnitudes = [name for name, file_name in names.items() if f"{file_name}.lora_magnitude_vector" in file.state]
    if magnitudes and len(magnitudes) < len(names):
        raise CheckpointError(
            f"--adapter: {path} holds DoRA magnitudes for {len(magnitudes)} of its {len(names)} layers; all or none"
        )
    adaptation = FileAdaptation(
        use_dora=bool(magnitudes),
        ranks={name: file.ranks[file_name] for name, file_name in names.items()},
        alphas={name: file.alphas[file_name] for name, file_name in names.items()},
    )
    adaptation.attach(model)
    state = {
        f"{name}.{part}": _shaped(file.state[f"{file_name}.{part}"], part, modules[name])
        for name, file_name in names.items()
        for part in ("lora_A.weight", "lora_B.weight", *(("lora_magnitude_vector",) if magnitudes else ()))
    }
    before = adaptation.state_dict(model)
    moved = any(
        state[f"{m}.lora_A.weight"].any() and state[f"{m}.lora_B.weight"].any() and adaptation.alphas[m] for m in names
    )
    if not moved and all(torch.allclose(state[n], before[n]) for n in state if n.endswith("magnitude_vector")):
        raise CheckpointError(
            f"--adapter: {path} changes nothing: every product of its halves is zero; was it saved before training?"
        )
    adaptation.load_state_dict(model, state)
    return adaptation


def _layers(model: LatentDiffusion) -> dict[str, Any]:
    """Everything that a low-rank adapter can sit on, by full name."""
    return {
        f"{component}.{name}": module
        for component in ("unet", *model.text.encoders)
        for name, module in model.component(component).named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def _shape(layer: Any) -> tuple[int, int]:
    """Numbers in and out; a convolution over several pixels has more in."""
    return layer.weight[0].numel(), len(layer.weight)


def _shape_in(file: AdapterFile, module: str) -> tuple[int, int]:
    return file.state[f"{module}.lora_A.weight"].shape[1], len(file.state[f"{module}.lora_B.weight"])


def _shaped(tensor: Tensor, part: str, layer: Any) -> Tensor:
    """Linear layers and convolutions over one pixel are the same; programs store either as the other."""
    convolution = isinstance(layer, nn.Conv2d)
    if part == "lora_magnitude_vector":
        return tensor.reshape((1, -1, 1, 1) if convolution else (-1,))
    return tensor.reshape(*tensor.shape[:2], *((1, 1) if convolution else ()))


def _file_in(path: Path) -> Path:
    """A file, or the adapter in a folder.

    Raises:
        CheckpointError: none, or several.
    """
    if not path.is_dir():
        return path
    usual = [path / name for name in USUAL_FILES if (path / name).exists()]
    files = usual or sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise CheckpointError(f"--adapter got '{path}', a folder with {len(files)} .safetensors files; name one file")
    return files[0]


def _is_whole_model(path: Path) -> bool:
    """A folder in diffusers format, or a checkpoint in one file."""
    if path.is_dir():
        return (path / "unet").is_dir()
    try:
        with safe_open(path, "pt") as file:
            return any(key.startswith(WHOLE_MODEL) for key in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False  # the reader of adapters says what is wrong


def _weights(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*.safetensors") if p.parent.name != "vae")


def _attach_weights(path: Path, model: LatentDiffusion, options: TrainConfig) -> FullAdaptation:
    """The weights of a whole model in place of the base model's, which are kept to compare with. Its VAE is not used.

    Raises:
        CheckpointError: it cannot be read, is of another kind, or the same.
    """
    try:
        other = load_base(replace(options, pretrained_model_name_or_path=str(path), revision=None), torch.device("cpu"))
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("--pretrained_model_name_or_path", "--adapter")) from error
    base = options.pretrained_model_name_or_path
    names = ("unet", *model.text.encoders)
    differs = {}
    for name in names:
        ours = dict(model.component(name).named_parameters())
        weights = dict(other.component(name).named_parameters()) if name in ("unet", *other.text.encoders) else {}
        shapes = [{n: p.shape for n, p in parameters.items()} for parameters in (ours, weights)]
        wrong = [n for n in sorted({*ours, *weights}) if shapes[0].get(n) != shapes[1].get(n)]
        if wrong:
            raise CheckpointError(f"--adapter: {path} does not fit {base}: they differ in {name}.{wrong[0]}")
        differs[name] = any(not torch.equal(ours[n].cpu(), weights[n]) for n in ours)
    if not any(differs.values()):
        raise CheckpointError(f"--adapter: {path} changes nothing: its U-Net and text encoders are those of {base}")
    adaptation = FullAdaptation(train_text_encoder=any(differs[name] for name in model.text.encoders))
    adaptation.attach(model)
    trained = adaptation.components(model)
    state = {f"{c}.{n}": p.detach() for c in trained for n, p in other.component(c).named_parameters()}
    adaptation.load_state_dict(model, state)
    return adaptation


def _known_training(metadata: Mapping[str, str], model: LatentDiffusion) -> dict[str, Any]:
    """Options that the file's header states; what it says in another form is as if it said nothing."""
    known: dict[str, Any] = {}
    for key, option in HEADER.items():
        text = metadata.get(key, "")
        if option in ("enable_bucket", "bucket_no_upscale"):
            if text in ("True", "False"):
                known[option] = text == "True"
        elif len(numbers := {int(n) for n in re.findall(r"\d+", text)}) == 1:
            known[option] = numbers.pop()
    if known.get("max_token_length") not in (75, 150, 225):
        known.pop("max_token_length", None)
    if len(model.text.encoders) > 1:  # SDXL always reads the same layers, whatever kohya's header says
        known.pop("clip_skip", None)
    return known


def _images(config: SubjectOptions, options: TrainConfig) -> tuple[ImageSource, Split]:
    """The images and who is a member: by folders, or by a manifest."""
    if config.split_manifest:
        source = open_source(options)
        return source, read_split(Path(config.split_manifest), read_samples(source))
    folders = {
        name: ImageFolder(replace(options, train_data_dir=getattr(config, name), dataset_name=None), name)
        for name in POOLS
    }
    pools = {
        name: [replace(s, file=f"{name}/{s.file}") for s in read_samples(folder)] for name, folder in folders.items()
    }
    return Pools(folders), split_pools(pools["members"], pools["nonmembers"], config.seed)


@dataclass
class Pools:
    """Folders as one source; the names of images begin with that of their folder's option, "members/0001.png"."""

    folders: Mapping[str, ImageFolder]
    title: str = "--members and --nonmembers"
    where_captions_come_from: str = "each folder"
    reading: Reading = field(default_factory=Reading)

    def captions(self, problems: list[str]) -> dict[str, str | None]:
        """See ImageSource."""
        for n, folder in self.folders.items():
            self.reading.more_captions |= {f"{n}/{k}": more for k, more in folder.reading.more_captions.items()}
        return {f"{n}/{k}": c for n, folder in self.folders.items() for k, c in folder.captions(problems).items()}

    def read(self, name: str) -> Image.Image:
        """See ImageSource."""
        pool, _, rest = name.partition("/")
        return self.folders[pool].read(rest)
