"""Adapters that other programs made: a file of any layout, or a whole fine-tuned model, put onto its base model.

There is no run to ask, so that options and the file's header tell how it was trained, and folders who is a member.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from smplora.adapters.files.names import is_part
from smplora.adapters.files.read import read_adapter
from smplora.adapters.files.settings import PEFT_FILE
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.adapters.foreign.attach import attach_file
from smplora.adapters.full import FullAdaptation
from smplora.config.dreambooth import CAPTION
from smplora.config.subject import POOLS, SubjectOptions, as_training, is_foreign
from smplora.config.train import TrainConfig
from smplora.core.cache import Cache
from smplora.core.console import say
from smplora.core.device import choose_device
from smplora.core.errors import CheckpointError, ConfigError, SplitError
from smplora.core.files import files_sha256
from smplora.core.tensor_files import Header, read_header
from smplora.data.folder import ImageFolder
from smplora.data.pool import open_source, read_samples
from smplora.data.prepare import check_edges
from smplora.data.source import ImageSource, JoinedSources
from smplora.data.split import Split, read_split, split_pools
from smplora.models.adapted import Adaptation, Adapted
from smplora.models.diffusion import LatentDiffusion
from smplora.models.flow import FlowMatching
from smplora.models.text import configured
from smplora.runs.base_model import DTYPES, check_precision, fetch_model, load_base, not_here
from smplora.runs.header_settings import Told, told_training
from smplora.runs.other_embeddings import attach_embeddings, is_inversion, read_inversion
from smplora.runs.subject import Foreign, Loaded, load_subject

USUAL_FILES = (ADAPTER_FILE, PEFT_FILE)  # what diffusers and peft write into a folder
WHOLE_MODEL = "model.diffusion_model."  # how the U-Net's keys begin in a checkpoint in one file


def load_any(config: SubjectOptions, cache: Cache | None) -> Loaded:
    """What ``--adapter`` names, from a run or not.

    Raises:
        UserError: anything that the user can mend.
    """
    dtype = DTYPES[config.mixed_precision]
    if is_foreign(config):
        loaded = load_foreign(config, cache, dtype)
    else:
        moved = {name: getattr(config, name) for name in ("train_data_dir", "dataset_name", "canaries_dir")}
        loaded = load_subject(config.adapter or "", moved, config.device, config.split_manifest, cache, dtype)
    adaptation = loaded.adapted.adaptation
    if not (dtype is torch.float32 or adaptation is None or adaptation.freezes_base):  # whole differences in a file
        raise not_here(dtype)
    return loaded


def load_foreign(config: SubjectOptions, cache: Cache | None = None, dtype: torch.dtype = torch.float32) -> Loaded:
    """An adapter without a run, on its base model, which is kept as ``dtype`` where ``load_model`` does.

    Raises:
        UserError: the adapter is damaged, does nothing or does not fit the model; images that cannot be used.
    """
    path = Path(config.adapter or "")
    options = as_training(config, {})
    pipeline = path.is_dir() and any((path / name).is_dir() for name in ("unet", "transformer"))
    header = Header({}, {}, {}) if pipeline else read_header(_file_in(path), f"--adapter: {_file_in(path)}")
    whole = pipeline or any(_of_whole_model(key) for key in header.shapes)
    inversion = path.is_file() and is_inversion(header.shapes)
    fetch_model(options)
    device = choose_device(config.device)
    check_precision(options, device, dtype, exact=not whole)
    model = load_base(options, device, dtype)
    embeddings = read_inversion(path) if inversion else None
    adaptation: Adaptation
    word = ""
    if embeddings:
        base = options.pretrained_model_name_or_path
        learned = attach_embeddings(
            embeddings, path, model, base, word=config.placeholder_token, initializer=config.initializer_token
        )
        adaptation, word = learned, learned.placeholder_token
        kind, sha256 = "textual_inversion", embeddings.sha256
    elif whole:
        adaptation = _attach_weights(path, model, options)
        kind, sha256 = "full", files_sha256(_weights(path))
    else:
        flow = model if isinstance(model, FlowMatching) else None
        convert = flow.converted_adapter if flow else None
        file = read_adapter(_file_in(path), model.layers_per_block, transformer=flow is not None, convert=convert)
        adaptation = attach_file(file, path, model, options.pretrained_model_name_or_path)
        kind, sha256 = "lora", file.sha256
        if file.embeddings:
            words = ", ".join(f"'{word}'" for word in file.embeddings)
            say(
                f"{path} also holds {len(file.embeddings)} learned embeddings ({words}), which are not used: captions "
                "with these words are read without them"
            )
    told = (
        Told({}, {})
        if whole
        else told_training(config, path, header.metadata, skips_layers=len(model.text.encoders) == 1)
    )
    options = as_training(config, told.options)
    options = replace(options, resolution=options.resolution or model.resolution)
    check_edges(options.resolution, options.bucket_reso_steps if options.enable_bucket else None, model.multiple)
    try:
        model.text = configured(model.text, options.clip_skip, options.max_token_length)
    except ConfigError as error:
        raise told.complaint(path, str(error)) or error from error
    source, split = _images(config, options)
    if word and not any(word in s.caption for samples in split.cells.values() for s in samples):
        split = split.worded(f"{word} {CAPTION}")
    subject, resolution = Foreign(path, options, kind), options.resolution or model.resolution
    return Loaded(subject, Adapted(model, adaptation), split, source, resolution, sha256, cache)


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


def _of_whole_model(key: str) -> bool:
    """Whether a tensor is one of a checkpoint in one file, and no change to it: ComfyUI's adapters begin alike."""
    return key.startswith(WHOLE_MODEL) and not is_part(key)


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
    names = model.component_names
    differs = {}
    for name in names:
        ours = dict(model.component(name).named_parameters())
        weights = dict(other.component(name).named_parameters()) if name in other.component_names else {}
        shapes = [{n: p.shape for n, p in parameters.items()} for parameters in (ours, weights)]
        wrong = [n for n in sorted({*ours, *weights}) if shapes[0].get(n) != shapes[1].get(n)]
        if wrong:
            raise CheckpointError(f"--adapter: {path} does not fit {base}: they differ in {name}.{wrong[0]}")
        differs[name] = any(not torch.equal(ours[n].cpu(), weights[n]) for n in ours)
    if not any(differs.values()):
        raise CheckpointError(
            f"--adapter: {path} changes nothing: its {model.denoiser_name} and text encoders are those of {base}"
        )
    adaptation = FullAdaptation(train_text_encoder=any(differs[name] for name in model.text.encoders))
    adaptation.attach(model)
    trained = adaptation.components(model)
    state = {f"{c}.{n}": p.detach() for c in trained for n, p in other.component(c).named_parameters()}
    adaptation.load_state_dict(model, state)
    return adaptation


def _images(config: SubjectOptions, options: TrainConfig) -> tuple[ImageSource, Split]:
    """The images and who is a member: by folders, or by a manifest."""
    if config.split_manifest:
        source = open_source(options)
        split = read_split(Path(config.split_manifest), read_samples(source))
        if config.canaries_dir and not split.canaries:
            raise SplitError(
                f"--canaries_dir got '{config.canaries_dir}', but --split_manifest '{config.split_manifest}' has no "
                "canaries; leave it out, or give the manifest that 'smplora split --canaries_dir' wrote before training"
            )
        return source, split
    folders = {
        name: ImageFolder(replace(options, train_data_dir=getattr(config, name), dataset_name=None), name)
        for name in POOLS
    }
    pools = {
        name: [replace(s, file=f"{name}/{s.file}") for s in read_samples(folder)] for name, folder in folders.items()
    }
    joined = JoinedSources({f"{name}/": folder for name, folder in folders.items()}, "--members and --nonmembers")
    return joined, split_pools(pools["members"], pools["nonmembers"], config.seed)
