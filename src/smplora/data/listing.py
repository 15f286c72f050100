"""What lies in a folder of images: images, tables of captions, caption files, and all that is none of these, counted.

Links are followed, each folder read once. What trainers put beside images is known: masks (OneTrainer), regularization
images and ``10_name`` folders (kohya's scripts).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from smplora.core.errors import DataError
from smplora.data.pictures import suffixes

METADATA = ("metadata.jsonl", "metadata.csv")
SIDECARS = (".txt", ".caption")  # the first wins
REGULARIZATION = re.compile(r"reg|(reg|regulari[sz]ation|class)[ _-]?(images?|data|imgs?|dir)|regulari[sz]ation", re.I)
MASKS = re.compile(r"masks?|conditioning", re.I)
_MASK = re.compile(r"(.+?)(?:-masklabel|-condlabel|[._-]mask)", re.I)
_NUMBERED = re.compile(r"(\d+)_(.*\S.*)")
OF_A_RUN = {"config.yaml", "model.json"}  # files of a run of smplora, whose pictures are drawn ones
MOST_REPEATS = 1000
NO_IMAGE, OTHER_CAPTION = "caption file of no image", "caption file of an image that has another caption"
_SEVERAL = {
    "mask": "masks",
    "broken link": "broken links",
    "folder of a run": "folders of runs",
    "pipe or device": "pipes or devices",
    "link to a folder that was read already": "links to folders that were read already",
    "link to a folder that holds this one": "links to folders that hold this one",
    NO_IMAGE: "caption files of no image",
    OTHER_CAPTION: "caption files of images that have another caption",
}


@dataclass
class Listing:
    """Paths relative to the folder, in the order of their names."""

    images: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    sidecars: dict[Path, list[Path]] = field(default_factory=dict)  # image's name without suffix -> its caption files
    left_out: Counter[str] = field(default_factory=Counter)  # what is not read -> how many


def counted(left_out: Counter[str]) -> str:
    """What was not read, for people: "2 .heic, 1 mask"."""
    named = ((count, _SEVERAL.get(what, what) if count > 1 else what) for what, count in sorted(left_out.items()))
    return ", ".join(f"{count} {what}" for count, what in named if count)


def list_folder(folder: Path, option: str, class_images: Path | None = None) -> Listing:
    """Look through a folder.

    Args:
        option: that names it, for messages.
        class_images: a folder of DreamBooth's class images, whose files are no images of this one.

    Raises:
        DataError: a folder that cannot be read, or one of regularization images that nobody said what to do with.
    """
    found = Listing()
    pictures: list[Path] = []
    regularization: dict[str, int] = {}
    resolved = class_images.resolve() if class_images else None
    for path in sorted(_files(folder, option, found.left_out)):
        suffix = path.suffix.lower()
        owner = next((p for p in path.parents if REGULARIZATION.fullmatch(p.name)), None)
        if resolved and (folder / path).resolve().is_relative_to(resolved):
            found.left_out["of --class_data_dir"] += 1
        elif path.name.lower() in METADATA:
            found.tables.append(path)
        elif suffix in SIDECARS:
            found.sidecars.setdefault(path.with_suffix(""), []).append(path)
        elif suffix not in suffixes():
            found.left_out[suffix or "without a suffix"] += 1
        elif owner:
            regularization[owner.as_posix()] = regularization.get(owner.as_posix(), 0) + 1
        else:
            pictures.append(path)
    if regularization:
        name, count = next(iter(regularization.items()))
        raise DataError(
            f"--{option} '{folder}' holds '{name}' ({count} images), which trainers take for regularization images, "
            f"not for images to train on. Are they? Then move the folder, or give --class_data_dir '{folder / name}' "
            "--with_prior_preservation true and --class_prompt. If they are to be trained on, rename it"
        )
    masks = _masks(pictures)
    found.images = [path for path in pictures if path not in masks]
    if masks:
        found.left_out["mask"] = len(masks)
    return found


def _files(folder: Path, option: str, left_out: Counter[str]) -> Iterator[Path]:
    """Regular files below ``folder``; real folders come before those that links lead to."""
    seen: set[tuple[int, int]] = set()
    links: list[Path] = []
    waiting = [Path()]
    root = folder.resolve()
    while waiting or links:
        relative = waiting.pop() if waiting else links.pop(0)
        try:
            status = os.stat(folder / relative)
            place = (status.st_dev, status.st_ino)
            if place in seen:
                left_out["link to a folder that was read already"] += 1
                continue
            if relative.parts and root.is_relative_to((folder / relative).resolve()):
                left_out["link to a folder that holds this one"] += 1
                continue
            seen.add(place)
            with os.scandir(folder / relative) as found:
                entries = sorted(found, key=lambda e: e.name)
            if relative.parts and {entry.name for entry in entries} >= OF_A_RUN:
                left_out["folder of a run"] += 1
                continue
            for entry in entries:
                path = relative / entry.name
                if entry.name.startswith("."):
                    left_out["hidden"] += 1
                elif entry.is_dir():
                    (links if entry.is_symlink() else waiting).append(path)
                elif entry.is_file():
                    yield path
                else:
                    left_out["broken link" if entry.is_symlink() else "pipe or device"] += 1
        except OSError as error:
            raise DataError(f"--{option} '{folder}': '{relative}' cannot be read: {error.strerror}") from error


def _masks(images: list[Path]) -> set[Path]:
    """Images that say where something is in another one: by the end of their names, or all of a folder of masks."""
    names = {path.with_suffix("") for path in images}
    masks = {
        path for path in images if (match := _MASK.fullmatch(path.stem)) and path.with_name(match[1]) in names
    }  # fmt: skip
    for folder in {path.parent for path in images if MASKS.fullmatch(path.parent.name)}:
        inside = [path for path in images if path.parent == folder]
        if all((folder.parent / path.stem) in names for path in inside):
            masks |= set(inside)
    return masks


def repeats(images: list[Path], wanted: bool | None, title: str) -> dict[Path, tuple[int, str]]:
    """How often images of folders such as ``10_sks dog`` are trained on, and their class, as kohya's scripts mean it.

    Args:
        wanted: whether names mean that; None: yes, unless they look like a numbering.
        title: of the folder, for messages.

    Raises:
        DataError: nobody said, and the names may be a numbering.
    """
    if wanted is False:
        return {}
    numbered = {
        folder: match
        for folder in dict.fromkeys(parent for path in images for parent in path.parents)
        if (match := _NUMBERED.fullmatch(folder.name))
    }
    given = {folder: int(match[1]) for folder, match in numbered.items() if len(match[1]) < 10}
    if wanted is None and numbered and _like_a_numbering([match[1] for match in numbered.values()]):
        shown = ", ".join(f"'{folder.as_posix()}'" for folder in list(numbered)[:3])
        raise DataError(
            f"{title} has folders such as {shown}: is the number how often their images are trained on (kohya's "
            "scripts; --folder_repeats true), or a numbering (--folder_repeats false)?"
        )
    wrong = [f for f, match in numbered.items() if not 1 <= given.get(f, 0) <= MOST_REPEATS]
    if wrong:
        raise DataError(f"{title} has the folder '{wrong[0].as_posix()}'; repeats may be 1 to {MOST_REPEATS}")
    by_image = {path: next((p for p in path.parents if p in numbered), None) for path in images}
    return {path: (given[folder], numbered[folder][2]) for path, folder in by_image.items() if folder}


def _like_a_numbering(numbers: list[str]) -> bool:
    """0 or 1 and so on without a gap, leading zeros, or more than anybody repeats."""
    values = sorted(int(number[:10]) for number in numbers)
    counted = len(values) > 1 and values[0] <= 1 and values == list(range(values[0], values[0] + len(values)))
    return counted or values[-1] > MOST_REPEATS or any(number.startswith("0") for number in numbers)
