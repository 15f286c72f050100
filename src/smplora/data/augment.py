"""Changed pictures, for training only: cutout and RandAugment. What is drawn is a function of (kind, seed)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageEnhance, ImageOps

from smplora.core.random_streams import generator

GREY = (127, 127, 127)  # about 0 of the model's [-1, 1]
CUTOUT = 0.5  # edge of the square, as a share of the picture's shorter side
OPERATIONS, MAGNITUDE = 2, 0.3  # RandAugment's N, and its M as a share of the largest (9 of 30)

Change = Callable[[Image.Image, float], Image.Image]  # of a picture, by m: how far, with its sign


def augmented(picture: Image.Image, kind: str, seed: int) -> Image.Image:
    """``picture`` (RGB) changed by "cutout" or "randaugment"."""
    rng = generator(kind, seed)
    return KINDS[kind](picture, rng)


def cutout(picture: Image.Image, rng: torch.Generator) -> Image.Image:
    """A grey square anywhere, over the edge too (DeVries & Taylor 2017)."""
    half = round(CUTOUT * min(picture.size) / 2)
    x, y = (int(torch.randint(length, (), generator=rng)) for length in picture.size)
    changed = picture.copy()
    changed.paste(GREY, (max(0, x - half), max(0, y - half), x + half, y + half))
    return changed


def randaugment(picture: Image.Image, rng: torch.Generator) -> Image.Image:
    """Two operations out of thirteen, each of the same size and a random sign (Cubuk et al. 2020); grey comes in where
    the picture moves away."""
    for number in torch.randint(len(CHANGES), (OPERATIONS,), generator=rng).tolist():
        sign = 1 if torch.rand((), generator=rng) < 0.5 else -1
        picture = CHANGES[number](picture, sign * MAGNITUDE)
    return picture


def _moved(picture: Image.Image, *matrix: float) -> Image.Image:
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=GREY
    )


# largest changes: those of the paper, but translation by a third of the side and solarising down from white
CHANGES: tuple[Change, ...] = (
    lambda p, m: ImageOps.autocontrast(p),
    lambda p, m: ImageOps.equalize(p),
    lambda p, m: p.rotate(30 * m, resample=Image.Resampling.BILINEAR, fillcolor=GREY),
    lambda p, m: ImageOps.posterize(p, 8 - round(4 * abs(m))),
    lambda p, m: ImageOps.solarize(p, round(256 * (1 - abs(m)))),
    lambda p, m: ImageEnhance.Color(p).enhance(1 + 0.9 * m),
    lambda p, m: ImageEnhance.Contrast(p).enhance(1 + 0.9 * m),
    lambda p, m: ImageEnhance.Brightness(p).enhance(1 + 0.9 * m),
    lambda p, m: ImageEnhance.Sharpness(p).enhance(1 + 0.9 * m),
    lambda p, m: _moved(p, 1, 0.3 * m, 0, 0, 1, 0),
    lambda p, m: _moved(p, 1, 0, 0, 0.3 * m, 1, 0),
    lambda p, m: _moved(p, 1, 0, m * p.width / 3, 0, 1, 0),
    lambda p, m: _moved(p, 1, 0, 0, 0, 1, m * p.height / 3),
)
KINDS = {"cutout": cutout, "randaugment": randaugment}
