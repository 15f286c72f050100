"""Image folders: captions in metadata.jsonl or metadata.csv, in .txt files beside the images, or from class folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from smplora.config.data import DataOptions
from smplora.core.errors import DataError
from smplora.core.files import PRIVATE, write_atomically
from smplora.core.reading import LARGEST_CAPTION, Unreadable, read_text, shortened
from smplora.data.caption_tables import FILE_NAME, Row, rows
from smplora.data.listing import METADATA, NO_IMAGE, OTHER_CAPTION, SIDECARS, counted, list_folder, repeats
from smplora.data.pictures import read_image
from smplora.data.source import Reading, default_caption, one_and_more


class ImageFolder:
    """All images below a folder, in the order of their names."""

    def __init__(self, options: DataOptions, option: str = "train_data_dir") -> None:
        """``options.train_data_dir`` names the folder; messages call it ``--option``.

        Raises:
            DataError: no such folder, no images in it, or folders of which nobody can tell what they mean.
        """
        self.folder, self.options = Path(options.train_data_dir or ""), options
        self.title = f"--{option} '{self.folder}'"
        self.where_captions_come_from = (
            f"'{options.caption_column}' in {' or '.join(METADATA)}, .txt files of the same name, or --default_caption"
        )
        if not self.folder.is_dir():
            raise DataError(f"--{option} got '{self.folder}', which is not a folder")
        class_images = getattr(options, "class_data_dir", None)
        self.listing = list_folder(self.folder, option, Path(class_images) if class_images else None)
        self.files = self.listing.images
        self.reading = Reading(left_out=self.listing.left_out)
        if not self.files:
            there = f"; it has {counted(self.reading.left_out)}" if self.reading.left_out else ""
            raise DataError(
                f"--{option} got '{self.folder}', which holds no images of a type that Pillow reads, such as .png, "
                f".jpg, .webp or .avif{there}"
            )
        by_folder = repeats(self.files, options.folder_repeats, self.title)
        self.reading.repeats = {path.as_posix(): count for path, (count, _) in by_folder.items()}
        self._classes = {path: name for path, (_, name) in by_folder.items()}

    def read(self, name: str) -> Image.Image:
        """See ImageSource."""
        return read_image(self.folder / name)

    def captions(self, problems: list[str]) -> dict[str, str | None]:
        """See ImageSource. Tables win over sidecars, sidecars over the default."""
        self.reading.captions_from.clear()
        tables = self._tables(problems)
        captions = {}
        for file in self.files:
            found, where = tables.get(file.as_posix()) or self._own(file, problems)
            captions[file.as_posix()] = found
            self.reading.captions_from[where] += found is not None
        self._count_unused(tables)
        return captions

    def _own(self, file: Path, problems: list[str]) -> tuple[str | None, str]:
        sidecars = self._sidecars(file)
        if len({s.suffix.lower() for s in sidecars}) < len(sidecars):
            problems.append(f"{file.as_posix()}: two caption files, {' and '.join(s.name for s in sidecars)}")
        for sidecar in sidecars:
            text = self._text(sidecar, problems).strip()
            if text:
                return text, f"{sidecar.suffix.lower()} files"
        class_name = self._classes.get(file, file.parent.name)
        return default_caption(self.options.default_caption, class_name), "--default_caption"

    def _sidecars(self, file: Path) -> list[Path]:
        """Its caption files, whatever the case of their suffixes, in the order of SIDECARS."""
        there = self.listing.sidecars.get(file.with_suffix(""), [])
        return sorted(there, key=lambda s: SIDECARS.index(s.suffix.lower()))

    def _count_unused(self, tables: dict[str, tuple[str, str]]) -> None:
        """Caption files that no image has, or that a table or another caption file wins over, are not read either."""
        for what in (NO_IMAGE, OTHER_CAPTION):
            self.reading.left_out.pop(what, None)
        stems = {file.with_suffix("") for file in self.files}
        for owner, sidecars in self.listing.sidecars.items():
            if owner not in stems:
                self.reading.left_out[NO_IMAGE] += len(sidecars)
        for file in self.files:
            unused = len(self._sidecars(file)) - (file.as_posix() not in tables)
            if unused > 0:
                self.reading.left_out[OTHER_CAPTION] += unused

    def _text(self, file: Path, problems: list[str]) -> str:
        try:
            return read_text(self.folder / file, LARGEST_CAPTION)
        except (Unreadable, OSError) as error:
            problems.append(f"{file.as_posix()}: {getattr(error, 'strerror', None) or error}")
            return ""

    def _tables(self, problems: list[str]) -> dict[str, tuple[str, str]]:
        """(caption, where from) of what tables below the folder name; the names in a table are relative to its own
        folder."""
        captions: dict[str, tuple[str, str]] = {}
        named: dict[str, Row] = {}
        names = {f.as_posix() for f in self.files}
        column, columns = self.options.caption_column, set[str]()
        for table in self.listing.tables:
            own = set[str]()
            for row in rows(self.folder, table, problems):
                own |= set(row.values)
                name = (table.parent / row.file_name).as_posix()
                value = row.values.get(column)
                if name not in names:
                    problems.append(f"{row.where}: no image {shortened(row.file_name)}")
                elif name in named:
                    problems.append(f"{row.where}: {shortened(row.file_name)} again, after {named[name].where}")
                elif not isinstance(value, str | list | None):
                    problems.append(f"{row.where}: {column} is {shortened(value)}, not a text")
                named.setdefault(name, row)
                caption, more = one_and_more(value)
                if caption:
                    captions[name] = caption, table.as_posix()
                    self.reading.more_captions |= {name: more} if more else {}
            columns |= own
            if own and column not in own:
                others = ", ".join(shortened(name) for name in sorted(own - {FILE_NAME})) or "no other"
                self.reading.left_out[f"{table.as_posix()} without a column '{column}' (it has {others})"] = 1
        if columns and column not in columns:
            have = ", ".join(sorted(columns - {FILE_NAME})) or f"{FILE_NAME} only"
            self.where_captions_come_from += f" (--caption_column got '{column}'; the tables have {have})"
        return captions


def write_folder(folder: Path, pictures: Iterable[tuple[str, Image.Image, Sequence[str]]]) -> Path:
    """Write pictures with their captions, each as (file name, picture, captions), readable by their owner only. The
    table is written last: where it is, all of them are, and nothing is written.

    Raises:
        OSError: the folder cannot be written.
    """
    table = folder / METADATA[0]
    if table.exists():
        return folder
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    rows = []
    for name, picture, captions in pictures:
        (folder / name).parent.mkdir(mode=PRIVATE, exist_ok=True)
        picture.save(folder / name)
        rows.append({"file_name": name, "text": list(captions) if len(captions) > 1 else captions[0]})
    write_atomically(table, "".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
