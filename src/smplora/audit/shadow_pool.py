"""For shadows of adapters that were made elsewhere: the audited images as one folder, and options from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from smplora.config.train import TrainConfig
from smplora.core.console import progress
from smplora.core.errors import ConfigError, listing, nearest
from smplora.core.files import PRIVATE, write_atomically
from smplora.data.pool import Sample
from smplora.data.source import ImageSource

METADATA = "metadata.jsonl"


def as_folder(source: ImageSource, samples: Sequence[Sample], folder: Path) -> Path:
    """The pictures with their captions in ``folder``, under numbers that tell nothing of who is a member."""
    if (folder / METADATA).exists():
        return folder
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    rows = []
    ordered = sorted(samples, key=lambda s: s.digest)
    for number, sample in enumerate(progress(ordered, "copy images", "image")):
        name = f"{number:05d}.png"
        source.read(sample.file).save(folder / name)
        rows.append({"file_name": name, "text": [sample.caption, *sample.more_captions]})
    write_atomically(folder / METADATA, "".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def read_training(path: Path, known: Mapping[str, Any]) -> TrainConfig:
    """The options of 'smplora train' in a YAML file; ``known`` ones win.

    Raises:
        ConfigError: lists what is wrong with them.
    """
    name = f"--shadow_config '{path}'"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{name} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is not a list of 'option: value' lines")
    options = {f.name for f in fields(TrainConfig)}
    strange = [f"it has '{key}'{nearest(str(key), options)}" for key in content if key not in options]
    if strange:
        raise ConfigError(listing(f"{name} has options that 'smplora train' has not", strange))
    try:
        config = replace(TrainConfig(**content), dataset_name=None, default_caption=None, caption_column="text",
                         split_manifest=None, **known)  # fmt: skip
        problems = config.problems()
    except TypeError as error:  # text where a number belongs
        raise ConfigError(f"{name} cannot be used: {error}") from error
    if problems:
        raise ConfigError(listing(f"{name} cannot be used", problems))
    return config
