"""Captions for images that have none, by BLIP (Li et al. 2022), as in the paper's experiments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from smplora.config.caption import CaptionConfig
from smplora.config.data import DataOptions
from smplora.core.console import bar, say
from smplora.core.device import choose_device
from smplora.core.errors import CheckpointError, ConfigError, DataError, listing
from smplora.core.files import write_atomically
from smplora.core.reading import parse_json, read_text
from smplora.data.folder import ImageFolder
from smplora.data.listing import METADATA, counted
from smplora.data.pictures import UnreadableImage
from smplora.models.diffusers_format import quiet


@dataclass(frozen=True)
class Captioner:
    """BLIP and what prepares its inputs."""

    model: Any
    tokenizer: Any
    processor: Any
    config: CaptionConfig

    @torch.no_grad()
    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        """A caption for each picture."""
        inputs = {"pixel_values": self.processor(pictures, return_tensors="pt").pixel_values.to(self.model.device)}
        if self.config.caption_prefix:
            ids = self.tokenizer([self.config.caption_prefix] * len(pictures), return_tensors="pt").input_ids
            inputs["input_ids"] = ids.to(self.model.device)  # BLIP takes off the mark of the end itself
        limits = {"max_new_tokens": self.config.max_new_tokens, "num_beams": self.config.num_beams}
        tokens = self.model.generate(**inputs, **limits, do_sample=False)
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def load_captioner(config: CaptionConfig, device: torch.device) -> Captioner:
    """``--caption_model``. The processor is the one that works without torchvision.

    Raises:
        CheckpointError: it is not there, or is no BLIP captioning model in safetensors.
    """
    from transformers import AutoTokenizer, BlipForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    name, local = config.caption_model, {"local_files_only": not config.allow_download}
    try:
        with quiet():
            model = BlipForConditionalGeneration.from_pretrained(name, use_safetensors=True, **local)
            tokenizer = AutoTokenizer.from_pretrained(name, **local)
            processor = BlipImageProcessorPil.from_pretrained(name, **local)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"--caption_model got '{name}', which is neither a folder with a BLIP captioning model in safetensors nor "
            f"such a model in the local hub cache ({type(error).__name__}); --allow_download fetches it"
        ) from error
    return Captioner(model.eval().to(device), tokenizer, processor, config)


def caption(config: CaptionConfig, *, progress: bool = True) -> dict[str, str]:
    """``smplora caption``: write what is missing; returns the new captions by file.

    Raises:
        UserError: no images, unreadable ones (after the others were captioned), no such model.
        OSError: the folder cannot be written.
    """
    device = choose_device(config.device)
    folder = ImageFolder(
        DataOptions(train_data_dir=config.train_data_dir, caption_column=config.caption_column, folder_repeats=False)
    )
    if not os.access(folder.folder, os.W_OK):
        raise ConfigError(f"{folder.title} cannot be written; captions go beside the images")
    problems: list[str] = []
    missing = [name for name, text in folder.captions(problems).items() if not text]
    if problems:
        raise DataError(listing(f"{folder.title} has captions that cannot be used", problems, "; mend them first"))
    if folder.reading.left_out:
        say(f"{folder.title}: {len(folder.files)} images; not read: {counted(folder.reading.left_out)}")
    written: dict[str, str] = {}
    if missing:
        captioner = load_captioner(config, device)
        with bar(len(missing), "caption", unit="image", show=progress) as display:
            for names, pictures in _batches(folder, missing, config.batch_size, problems):
                new = {name: text for name, text in zip(names, captioner(pictures), strict=True) if text}
                problems += [f"{name}: the model has no words for it" for name in names if name not in new]
                _write(folder.folder, new, config)
                written |= new
                display.update(len(names))
    if progress:
        say(f"{folder.folder}: {len(written)} captions written, {len(folder.files) - len(missing)} were there")
    if config.json:
        print(
            json.dumps(
                {"folder": str(folder.folder), "written": len(written), "kept": len(folder.files) - len(missing)}
            )
        )
    if problems:
        raise DataError(listing(f"{folder.title} has images that were not captioned", problems))
    return written


def _batches(
    folder: ImageFolder, names: list[str], size: int, problems: list[str]
) -> Iterator[tuple[list[str], list[Image.Image]]]:
    for start in range(0, len(names), size):
        pictures: dict[str, Image.Image] = {}
        for name in names[start : start + size]:
            try:
                pictures[name] = folder.read(name)
            except UnreadableImage as error:
                problems.append(f"{name}: {error}")
        if pictures:
            yield list(pictures), list(pictures.values())


def _write(folder: Path, captions: dict[str, str], config: CaptionConfig) -> None:
    if config.caption_format == "txt":
        for name, text in captions.items():
            sidecar = (folder / name).with_suffix(".txt")
            if not os.path.lexists(sidecar) or not sidecar.stat().st_size:  # two images may share a name
                write_atomically(sidecar, text + "\n")
        return
    table = folder / METADATA[0]
    lines = read_text(table).rstrip("\n").split("\n") if table.exists() else []
    left = dict(captions)
    for number, line in enumerate(lines):
        row = parse_json(line) if line.strip() else {}
        name = Path(row.get("file_name", "")).as_posix()
        if name in left:
            lines[number] = json.dumps({**row, config.caption_column: left.pop(name)}, ensure_ascii=False)
    lines += [
        json.dumps({"file_name": name, config.caption_column: text}, ensure_ascii=False) for name, text in left.items()
    ]
    write_atomically(table, "\n".join(lines) + "\n")
