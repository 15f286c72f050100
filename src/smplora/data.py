"""Captioned image folders: found, checked as a whole before anything expensive, encoded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from smplora.config import DataOptions
from smplora.contracts import Batch
from smplora.diffusion import LatentDiffusion
from smplora.errors import DataError, listing
from smplora.progress import progress

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Sample:
    """One image of the pool."""

    file: str  # relative to the folder
    caption: str
    digest: str  # SHA-256 of size and RGB pixels: the same picture in another container is the same image


def read_image(path: Path) -> Image.Image:
    """The picture upright, in RGB, transparency on white.

    Raises:
        OSError: not a picture, or a truncated one.
    """
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith("I"):  # 16 bit; Pillow's own conversion clips everything above 255
            picture = Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")


def read_folder(options: DataOptions) -> list[Sample]:
    """All images below ``train_data_dir`` with their captions, in the order of their names.

    Raises:
        DataError: one message with every unreadable, empty, duplicate or caption-less image.
    """
    folder = Path(options.train_data_dir or "")
    if not folder.is_dir():
        raise DataError(f"--train_data_dir got '{folder}', which is not a folder")
    files = sorted(
        p.relative_to(folder)
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES
        and p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )
    if not files:
        raise DataError(
            f"--train_data_dir got '{folder}', which holds no images; known types: {', '.join(sorted(SUFFIXES))}"
        )
    problems: list[str] = []
    captions = _metadata_captions(folder, options.caption_column, {f.as_posix() for f in files}, problems)
    samples: list[Sample] = []
    first_with: dict[str, str] = {}
    for relative in progress(files, "read images", "image"):
        name = relative.as_posix()
        if (folder / relative).stat().st_size == 0:
            problems.append(f"{name}: empty file")
            continue
        try:
            picture = read_image(folder / relative)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.append(f"{name}: not a readable image ({type(error).__name__})")
            continue
        try:
            caption = captions.get(name) or _sidecar_caption(folder / relative) or options.default_caption
        except UnicodeDecodeError:
            problems.append(f"{relative.with_suffix('.txt').as_posix()}: not UTF-8")
            continue
        if not caption:
            problems.append(f"{name}: no caption")
            continue
        digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
        if digest in first_with:
            problems.append(f"{name}: the same picture as {first_with[digest]}")
            continue
        first_with[digest] = name
        samples.append(Sample(name, caption, digest))
    if problems:
        advice = (
            f"; captions come from '{options.caption_column}' in {METADATA}, from .txt files of the same name, "
            "or from --default_caption"
            if any(p.endswith("no caption") for p in problems)
            else "; remove or mend them"
        )
        raise DataError(listing(f"--train_data_dir '{folder}' has images that cannot be used", problems) + advice)
    return samples


def _metadata_captions(folder: Path, column: str, files: set[str], problems: list[str]) -> dict[str, str]:
    path = folder / METADATA
    if not path.exists():
        return {}
    captions: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        problems.append(f"{METADATA}: not UTF-8")
        return {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, caption = str(row["file_name"]), row.get(column)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            problems.append(f"{METADATA} line {number}: not an object with a file_name")
            continue
        if name not in files:
            problems.append(f"{METADATA} line {number}: no image '{name}'")
        elif isinstance(caption, str) and caption.strip():
            captions[name] = caption.strip()
    return captions


def _sidecar_caption(image: Path) -> str | None:
    path = image.with_suffix(".txt")
    return path.read_text(encoding="utf-8-sig").strip() or None if path.exists() else None


def pixels(path: Path, resolution: int) -> Tensor:
    """Shorter side resized to ``resolution``, centre crop: [3, resolution, resolution] in [-1, 1]."""
    picture = ImageOps.fit(read_image(path), (resolution, resolution), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 127.5 - 1


def load_pixels(folder: Path, samples: Sequence[Sample], resolution: int) -> Tensor:
    """``pixels`` of several images: [n, 3, resolution, resolution]."""
    return torch.stack([pixels(folder / s.file, resolution) for s in samples])


def encode(
    model: LatentDiffusion, folder: Path, samples: Sequence[Sample], resolution: int, batch_size: int = 16
) -> Batch:
    """Latents as (mean, std), so that training still samples the posterior, and one text embedding per distinct
    caption; on the model's device. Length ``len(samples)``."""
    starts = range(0, len(samples), batch_size)
    parts = [
        model.encode_images(load_pixels(folder, samples[i : i + batch_size], resolution))
        for i in progress(starts, "encode images", "batch")
    ]
    distinct = list(dict.fromkeys(s.caption for s in samples))
    rows = torch.tensor([distinct.index(s.caption) for s in samples], device=model.device)
    embedded = [
        model.encode_captions(distinct[i : i + batch_size], resolution) for i in range(0, len(distinct), batch_size)
    ]
    return Batch(
        mean=torch.cat([mean for mean, _ in parts]),
        std=torch.cat([std for _, std in parts]),
        conditioning={name: torch.cat([e[name] for e in embedded])[rows] for name in embedded[0]},
        digests=tuple(s.digest for s in samples),
    )
