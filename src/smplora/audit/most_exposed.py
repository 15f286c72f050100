"""The members that an audit's strongest attack is surest of: a ranked gallery, for the owner of the images only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from smplora.audit.conclusion import ScoredAttack
from smplora.core.files import write_atomically
from smplora.core.strips import grid
from smplora.results.gallery import EXPOSED, ExposedImage, ExposedImages
from smplora.results.record import write
from smplora.runs.subject import Loaded

SHOWN = 12


def ranked_members(attack: ScoredAttack, sizes: dict[str, int]) -> list[tuple[str, int, float]]:
    """The SHOWN most exposed members: cell, index in it, and the share of that group's non-members that score lower.

    Equal shares are ordered by the score's distance from the non-members' mean in standard deviations.
    """
    ranks = []
    for kind, reading in (("test", attack.test), ("aux", attack.aux)):
        if reading is None:
            continue
        count = sizes[f"{kind}_member"]
        members, others = reading.scores[:count], reading.scores[count:]
        spread = max(float(others.std()), 1e-12)
        for index, score in enumerate(members):
            distance = (float(score) - float(others.mean())) / spread
            ranks.append((float((others < score).mean()), distance, f"{kind}_member", index))
    first = sorted(ranks, key=lambda f: f[:2], reverse=True)[:SHOWN]
    return [(cell, index, share) for share, _, cell, index in first]


def write_exposed(folder: Path, loaded: Loaded, attack: ScoredAttack) -> None:
    """Write exposed.png, one row of square pictures, and exposed.json with their names and ranks. Private."""
    pictures, images = [], []
    for cell, index, beats in ranked_members(attack, loaded.split.sizes):
        sample = loaded.split.cells[cell][index]
        pixels = loaded.pixels([sample])[0]  # one by one: their shapes may differ
        picture = ((pixels.permute(1, 2, 0).numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        pictures.append(Image.fromarray(picture))
        images.append(ExposedImage(cell, beats, sample.file, sample.caption))
    write_atomically(folder / f"{EXPOSED}.png", grid([pictures]))
    write(folder / f"{EXPOSED}.json", ExposedImages(attack.name, tuple(images)))
