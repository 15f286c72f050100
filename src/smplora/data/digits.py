"""The quickstart's images: scikit-learn's handwritten digits, written out as an ordinary captioned image folder.

The bundled model was trained on the digits 0 to 4; 5 to 9 play the private images.
Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0), shipped by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from smplora.data.folder import write_folder

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PRETRAINING_DIGITS = range(0, 5)
PRIVATE_DIGITS = range(5, 10)
RESOLUTION = 32


def digit_images(digits: Iterable[int]) -> tuple[list[Image.Image], list[int]]:
    """Handwritten digits as 32 x 32 RGB pictures, dark ink on white paper, with their labels.

    The originals are 8 x 8 with ink from 0 to 16; they are enlarged bicubically.
    """
    from sklearn.datasets import load_digits

    chosen = set(digits)
    data = load_digits()
    keep = [i for i, label in enumerate(data.target) if label in chosen]
    grey = (255 - np.round(data.images[keep] * (255 / 16))).astype(np.uint8)
    pictures = [
        Image.fromarray(g).resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC).convert("RGB") for g in grey
    ]
    return pictures, [int(data.target[i]) for i in keep]


def caption(digit: int) -> str:
    """The caption of a digit, as in pretraining: ``a handwritten five``."""
    return f"a handwritten {WORDS[digit]}"


def write_private_digits(folder: Path) -> Path:
    """Write the digits 5 to 9 with captions to ``folder`` (PNG files and ``metadata.jsonl``), unless they are there.

    Raises:
        OSError: the folder cannot be written.
    """
    digits = enumerate(zip(*digit_images(PRIVATE_DIGITS), strict=True))
    return write_folder(folder, ((f"{n:04d}.png", picture, [caption(label)]) for n, (picture, label) in digits))
