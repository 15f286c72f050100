"""Pictures as they are meant to be seen, and as the model takes them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from smplora.core.errors import DataError
from smplora.core.reading import read_bytes
from smplora.core.strips import png
from smplora.data.augment import augmented

NOTES = "notes"  # in the ``info`` of a picture that was read: what people should know of how
SEVERAL = "hold several pictures, of which the first is read"
DAMAGED_EXIF = "have damaged EXIF data, so that they may lie on their sides"
_WARNINGS = Lock()  # their filters belong to all threads
NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}  # Pillow knows them, but cannot decode them itself
MOST_PIXELS = 2**26 * 4 // 3  # as Pillow's, above which it warns of files that are small and fill the memory
LARGEST_FILE = 2**30


@cache
def formats() -> tuple[str, ...]:
    """What Pillow decodes without another program."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in NOT_PICTURES)


@cache
def suffixes() -> frozenset[str]:
    """Of files in these formats, in lower case."""
    known = formats()
    return frozenset(s.lower() for s, name in Image.registered_extensions().items() if name in known)


class UnreadableImage(DataError):
    """A picture that cannot be used; the text says why, without the name."""


def read_image(file: Path | bytes) -> Image.Image:
    """The picture upright, in RGB, transparency on white.

    Raises:
        UnreadableImage: empty, not a picture, a truncated or a huge one.
    """
    try:
        content = file if isinstance(file, bytes) else read_bytes(file, LARGEST_FILE)
        if not content:
            raise UnreadableImage("empty file")
        picture, damaged_exif = _opened(content)
        with picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise UnreadableImage(f"{picture.width} x {picture.height} pixels; allowed: {MOST_PIXELS} in all")
            notes = {SEVERAL: getattr(picture, "is_animated", False), DAMAGED_EXIF: damaged_exif}
            seen = upright(picture)
            seen.info = {NOTES: [note for note, holds in notes.items() if holds]}
            return seen
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"more than {2 * MOST_PIXELS} pixels; allowed: {MOST_PIXELS}") from error
    except Exception as error:  # decoders of damaged files end in anything
        raise UnreadableImage(f"not a readable image ({type(error).__name__})") from error


def _opened(content: bytes) -> tuple[Image.Image, bool]:
    """And whether its EXIF data is damaged, of which Pillow warns; ``read_image`` warns of large pictures itself."""
    with _WARNINGS, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        picture = Image.open(BytesIO(content), formats=formats())
        if picture.format in ("JPEG", "MPO", "TIFF", "WEBP", "AVIF"):  # others decode the picture to find any
            picture.getexif()
    return picture, any(warning.category is UserWarning for warning in warned)


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
