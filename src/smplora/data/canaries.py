"""``smplora canaries``: patterns to put into a training set by a coin. No two are alike, and nobody would miss them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from smplora.config.canaries import CanariesConfig
from smplora.core.console import progress, say
from smplora.core.errors import DataError
from smplora.core.output import output_folder
from smplora.core.random_streams import stream_seed
from smplora.data.folder import write_folder
from smplora.data.listing import METADATA

PATCHES = 4  # a side: coarse enough to survive the VAE, with 48 numbers of its own


def pattern(seed: int, number: int, resolution: int) -> Image.Image:
    """A picture of smooth colours: 4 x 4 random ones, enlarged bicubically. A function of (seed, number)."""
    rng = np.random.default_rng(stream_seed(seed, "canary", number))
    patches = Image.fromarray(rng.integers(0, 256, (PATCHES, PATCHES, 3), dtype=np.uint8))
    return patches.resize((resolution, resolution), Image.Resampling.BICUBIC)


def canaries(config: CanariesConfig) -> Path:
    """Write the pictures and their captions; returns the folder.

    Raises:
        DataError: the folder is there and is not empty.
    """
    folder = Path(config.output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"--output_dir got '{folder}', which is not empty; give a new folder")

    def pictures() -> Iterator[tuple[str, Image.Image, list[str]]]:
        for number in progress(range(config.number), "make canaries", "picture"):
            picture = pattern(config.seed, number, config.resolution)
            yield f"{number:05d}.png", picture, [f"pattern number {number}"]

    with output_folder(folder, None):
        write_folder(folder, pictures())
    what = f"{config.number} canaries in {folder}, with captions in {METADATA[0]}"
    say(f"{what}: train with --canaries_dir {folder}, then audit")
    if config.json:
        print(json.dumps({"folder": str(folder), "number": config.number}))
    return folder
