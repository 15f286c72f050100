"""``smplora dataset``: one of the paper's data sets as an image folder, with a record of what it was drawn from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.config.catalogue.paper_data_sets import ORIGINALS, SUBSETS
from smplora.config.dataset import DatasetConfig
from smplora.core.console import in_threads
from smplora.core.errors import DataError, listing, readable
from smplora.core.files import UNFINISHED, write_atomically
from smplora.core.registry import load
from smplora.core.surroundings import real
from smplora.data.listing import METADATA
from smplora.data.paper.drawing import Selection
from smplora.data.paper.files import Originals
from smplora.data.pictures import UnreadableImage, pixel_digest, read_image
from smplora.results.dataset import FORMAT, DatasetRecord, DrawnImage
from smplora.results.record import read, write

RECORD = "dataset.json"


@dataclass(frozen=True)
class TakenImage:
    """An image of the data set."""

    original: str
    group: str
    digest: str  # of its pixels, as in split.json


def dataset(config: DatasetConfig) -> Path:
    """Build the data set, or check the one that is there; returns its folder.

    Raises:
        DataError: the originals are missing, incomplete or unreadable, or the folder holds something else.
    """
    folder = Path(config.output_dir or f"data/{config.name}")
    there = (folder / RECORD).exists()
    if not there:
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"--output_dir got '{folder}', which is not empty and holds no {RECORD}; give a new folder")
        _build(config, folder)
    record = read(folder / RECORD, DatasetRecord, "delete the folder to build it", FORMAT)
    if there:
        _check(config, folder, record)
    _say(config, folder, record, there)
    return folder


def _build(config: DatasetConfig, folder: Path) -> None:
    originals: Originals = load(ORIGINALS, SUBSETS[str(config.name)].original, "name")(config)
    skipped: dict[str, str] = {}
    taken = _take(originals, originals.draws(), skipped)
    folder.parent.mkdir(parents=True, exist_ok=True)
    half_done = folder.parent / f"{UNFINISHED}{folder.name}"
    shutil.rmtree(half_done, ignore_errors=True)
    half_done.mkdir(mode=0o700)
    try:
        rows = [_place_image(originals, one, half_done, config.copy_images) for one in taken]
        captions = [
            {"file_name": row.file, "text": originals.captions[row.original]}
            for row in rows
            if row.original in originals.captions
        ]
        if captions:
            lines = "".join(json.dumps(caption, ensure_ascii=False) + "\n" for caption in captions)
            write_atomically(half_done / METADATA[0], lines)
        record = DatasetRecord(
            format=FORMAT,
            **_options_of(config),
            originals={"title": originals.title, **originals.facts},
            groups=len({one.group for one in taken}),
            captions=len(captions),
            digest=_digest(rows),
            same_pictures=skipped,
            images=tuple(rows),
        )
        write(half_done / RECORD, record)
        if folder.exists():
            folder.rmdir()  # empty
        half_done.rename(folder)
    except BaseException:
        shutil.rmtree(half_done, ignore_errors=True)
        raise


def _options_of(config: DatasetConfig) -> dict[str, Any]:
    """The options that decide what is drawn."""
    subset = SUBSETS[str(config.name)]
    choices = {
        **({"majority": config.majority} if subset.majority_groups is not None else {}),
        **({"captions_taken": config.captions} if subset.original == "mscoco" else {}),
    }
    return {"name": config.name, "title": subset.title, "seed": config.seed, **choices}


def _take(originals: Originals, draws: list[Selection], skipped: dict[str, str]) -> list[TakenImage]:
    """The first pictures of each draw that are readable and different from all before; what was the same as an earlier
    one goes to ``skipped``."""
    sources: dict[str, str] = {}
    taken: list[TakenImage] = []
    problems: list[str] = []
    first = [name for draw in draws for name in draw.candidates[: draw.wanted]]
    digests = dict(zip(first, in_threads(_locate(originals), first, "read images", "image"), strict=True))
    for draw in draws:
        written = 0
        for name in draw.candidates:
            if written == draw.wanted:
                break
            digest = digests.get(name) or _locate(originals)(name)
            if isinstance(digest, UnreadableImage):
                problems.append(f"{name}: {digest}")
                written += 1
            elif digest in sources:
                skipped[name] = sources[digest]
            else:
                sources[digest] = name
                taken.append(TakenImage(name, draw.group, digest))
                written += 1
        if written < draw.wanted:
            problems.append(f"{draw.group}: {written} different pictures, {draw.wanted} needed")
    if problems:
        raise originals.refusal(*problems)
    return taken


def _locate(originals: Originals) -> Any:
    def look(name: str) -> str | UnreadableImage:
        try:
            return pixel_digest(originals.read(name))
        except UnreadableImage as error:
            return error

    return look


def _place_image(originals: Originals, one: TakenImage, folder: Path, copy: bool) -> DrawnImage:
    """Put an image into the folder; returns its line of the record."""
    place = originals.place(one.original, one.group)
    target, source = folder / place, originals.file(one.original)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source is None:
        originals.read(one.original).save(target)
    else:
        try:
            if copy:
                raise OSError
            os.link(real(source), target)
        except OSError:  # another file system, or somebody else's files
            shutil.copyfile(source, target)
    return DrawnImage(place, one.original, one.group, one.digest)


def _digest(rows: Sequence[DrawnImage]) -> str:
    """SHA-256 of the pictures, whatever their names: two builds with the same one are the same data set."""
    return hashlib.sha256("\n".join(sorted(row.digest for row in rows)).encode()).hexdigest()


def _check(config: DatasetConfig, folder: Path, record: DatasetRecord) -> None:
    """Compare the folder with its record, and the record with what is asked for.

    Raises:
        DataError: they differ.
    """
    options = _options_of(config)
    other = [f"{key} {getattr(record, key)}" for key, value in options.items() if getattr(record, key) != value]
    if other:
        raise DataError(
            f"--output_dir got '{folder}', which holds another build ({', '.join(other)}); give another --output_dir"
        )
    rows = record.images

    def wrong(row: DrawnImage) -> Iterator[str]:
        try:
            if pixel_digest(read_image(folder / row.file)) != row.digest:
                yield f"{row.file}: not the picture that was drawn"
        except UnreadableImage as error:
            yield f"{row.file}: {error}"

    problems = [p for row in in_threads(lambda r: list(wrong(r)), rows, "check images", "image") for p in row]
    if problems:
        raise DataError(
            listing(f"'{folder}' is not as it was built", problems, "; remove the folder and build it again")
        )


def _say(config: DatasetConfig, folder: Path, record: DatasetRecord, checked: bool) -> None:
    images, captions = len(record.images), record.captions
    if config.json:
        keys = ("name", "title", "seed", "digest", "captions", "groups")
        print(json.dumps({"folder": str(folder), "images": images, **{key: getattr(record, key) for key in keys}}))
        return
    what = "is as it was built" if checked else "built"
    made = f"{images} images in {folder}, seed {record.seed}, digest {record.digest[:12]}"
    print(readable(f"{record.title} {what}: {made}"))
    if captions < images:
        print(readable(f"{images - captions} images have no caption: smplora caption {folder}"))
    next_step = f"smplora train --config configs/paper/{record.name}.yaml --train_data_dir {folder}"
    print(readable(f"next: {next_step}"))
