"""The members that an audit's strongest attack is surest of: a ranked gallery, for the owner of the images only."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from smplora.audit.conclusion import Tried
from smplora.core.files import write_atomically, write_json
from smplora.runs.subject import Loaded

SHOWN = 12
TILE = 128  # pixels
FILES = ("exposed.png", "exposed.json")


def ranked_members(tried: Tried, sign: int, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """The SHOWN most exposed members: cell, index in it, and the share of that group's non-members that score lower.

    Equal shares are ordered by the score's distance from the non-members' mean in standard deviations.
    """
    found = []
    for kind, scores in (("test", tried.judged.test), ("aux", tried.judged.aux.scores)):
        count = sizes[f"{kind}_member"]
        members, others = sign * scores[:count], sign * scores[count:]
        spread = max(float(others.std()), 1e-12)
        for index, score in enumerate(members):
            distance = (float(score) - float(others.mean())) / spread
            found.append((float((others < score).mean()), distance, f"{kind}_member", index))
    return [
        {"cell": cell, "index": index, "beats": share}
        for share, _, cell, index in sorted(found, key=lambda f: f[:2], reverse=True)[:SHOWN]
    ]


def write_exposed(folder: Path, loaded: Loaded, tried: Tried, sign: int) -> None:
    """Write exposed.png, one row of square pictures, and exposed.json with their names and ranks. Private."""
    ranked = ranked_members(tried, sign, loaded.split.sizes)
    samples = [loaded.split.cells[entry["cell"]][entry["index"]] for entry in ranked]
    strip = Image.new("RGB", (TILE * len(samples), TILE))
    for number, sample in enumerate(samples):  # one by one: their shapes may differ
        pixels = loaded.pixels([sample])[0]
        picture = ((pixels.permute(1, 2, 0).numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        scaling = Image.Resampling.NEAREST if picture.shape[0] < TILE else Image.Resampling.LANCZOS
        strip.paste(ImageOps.fit(Image.fromarray(picture), (TILE, TILE), scaling), (TILE * number, 0))
    buffer = BytesIO()
    strip.save(buffer, format="PNG")
    write_atomically(folder / FILES[0], buffer.getvalue())
    images = [
        {"cell": entry["cell"], "beats": entry["beats"], "file": sample.file, "caption": sample.caption}
        for entry, sample in zip(ranked, samples, strict=True)
    ]
    write_json(folder / FILES[1], {"attack": tried.name, "images": images})
