"""Pictures as they are meant to be seen, and as the model takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from smplora.core.errors import DataError
from smplora.core.strips import png
from smplora.data.augment import augmented


class UnreadableImage(DataError):
    """A picture that cannot be used; the text says why, without the name."""


def read_image(file: Path | bytes) -> Image.Image:
    """The picture upright, in RGB, transparency on white.

    Raises:
        UnreadableImage: empty, not a picture, or a truncated one.
    """
    try:
        content = file if isinstance(file, bytes) else file.read_bytes()
        if not content:
            raise UnreadableImage("empty file")
        with Image.open(BytesIO(content)) as picture:
            return upright(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"not a readable image ({type(error).__name__})") from error


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF data says, in 8-bit RGB, transparency on white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bit; Pillow's own conversion clips everything above 255
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def pixel_digest(picture: Image.Image) -> str:
    """SHA-256 of size and RGB pixels: the same picture in another container is the same image."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()


@dataclass(frozen=True)
class Framing:
    """How a picture becomes the model's input: resized until it covers ``height`` x ``width`` pixels, cropped, perhaps
    mirrored, perhaps changed by an augmentation (augment.py) that is drawn with ``seed``. ``x`` and ``y`` say where the
    crop lies in what is too much: 0 left or top, 0.5 the centre, 1 right or bottom."""

    height: int
    width: int
    x: float = 0.5
    y: float = 0.5
    flipped: bool = False
    augmentation: str = ""
    seed: int = 0


def frame(picture: Image.Image, framing: Framing) -> Tensor:
    """[3, height, width] in [-1, 1]."""
    size = (framing.width, framing.height)
    cropped = ImageOps.fit(picture, size, Image.Resampling.BICUBIC, centering=(framing.x, framing.y))
    shown = ImageOps.mirror(cropped) if framing.flipped else cropped
    if framing.augmentation:
        shown = augmented(shown, framing.augmentation, framing.seed)
    return torch.from_numpy(np.asarray(shown).copy()).permute(2, 0, 1).float() / 127.5 - 1


def load_pixels(pictures: Iterable[Image.Image], resolution: int) -> Tensor:
    """Several pictures, framed in the centre of a square: [n, 3, resolution, resolution] in [-1, 1]."""
    return torch.stack([frame(p, Framing(resolution, resolution)) for p in pictures])


def strip(images: Tensor) -> bytes:
    """Images [n, 3, H, W] in [0, 1] side by side, as PNG without metadata."""
    row = torch.cat(list(images), dim=2).permute(1, 2, 0).mul(255).round().byte().numpy()
    return png(Image.fromarray(np.ascontiguousarray(row)))
