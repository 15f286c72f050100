"""Image folders: captions in metadata.jsonl or metadata.csv, in .txt files beside the images, or from class folders."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from smplora.config.data import DataOptions
from smplora.core.errors import DataError
from smplora.core.files import PRIVATE, write_atomically
from smplora.data.pictures import read_image
from smplora.data.source import default_caption, one_and_more

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
METADATA = ("metadata.jsonl", "metadata.csv")
SIDECARS = (".txt", ".caption")


class ImageFolder:
    """All images below a folder, in the order of their names."""

    def __init__(self, options: DataOptions, option: str = "train_data_dir") -> None:
        """``options.train_data_dir`` names the folder; messages call it ``--option``.

        Raises:
            DataError: no such folder, or no images in it.
        """
        self.folder, self.options = Path(options.train_data_dir or ""), options
        self.more_captions: dict[str, tuple[str, ...]] = {}
        self.title = f"--{option} '{self.folder}'"
        self.where_captions_come_from = (
            f"'{options.caption_column}' in {' or '.join(METADATA)}, .txt files of the same name, or --default_caption"
        )
        if not self.folder.is_dir():
            raise DataError(f"--{option} got '{self.folder}', which is not a folder")
        self.files = sorted(p for p in self._visible() if p.suffix.lower() in SUFFIXES)
        if not self.files:
            known = ", ".join(sorted(SUFFIXES))
            raise DataError(f"--{option} got '{self.folder}', which holds no images; known types: {known}")

    def _visible(self) -> Iterator[Path]:
        """Files, relative to the folder."""
        for path in self.folder.rglob("*"):
            relative = path.relative_to(self.folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                yield relative

    def read(self, name: str) -> Image.Image:
        """See ImageSource."""
        return read_image(self.folder / name)

    def captions(self, problems: list[str]) -> dict[str, str | None]:
        """See ImageSource. Tables win over sidecars, sidecars over the default."""
        tables = self._tables(problems)
        return {f.as_posix(): tables.get(f.as_posix()) or self._own(f, problems) for f in self.files}

    def _own(self, file: Path, problems: list[str]) -> str | None:
        for sidecar in (file.with_suffix(suffix) for suffix in SIDECARS):
            if (self.folder / sidecar).is_file():
                text = self._text(sidecar, problems).strip()
                if text:
                    return text
        return default_caption(self.options.default_caption, file.parent.name)

    def _text(self, file: Path, problems: list[str]) -> str:
        content = (self.folder / file).read_bytes()
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            problems.append(f"{file.as_posix()}: not UTF-8")
            return content.decode("utf-8-sig", errors="replace")

    def _tables(self, problems: list[str]) -> dict[str, str]:
        """Captions of all tables below the folder; the names in a table are relative to its own folder."""
        captions: dict[str, str] = {}
        names = {f.as_posix() for f in self.files}
        column, columns = self.options.caption_column, set[str]()
        for table in sorted(p for p in self._visible() if p.name in METADATA):
            rows = _json_rows if table.suffix == ".jsonl" else _csv_rows
            for number, row in rows(self._text(table, problems)):
                where = f"{table.as_posix()} line {number}"
                if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
                    problems.append(f"{where}: not {'an object' if rows is _json_rows else 'a row'} with a file_name")
                    continue
                columns |= {str(key) for key in row}
                name = (table.parent / row["file_name"]).as_posix()
                caption, more = one_and_more(row.get(column))
                if name not in names:
                    problems.append(f"{where}: no image '{row['file_name']}'")
                elif caption:
                    captions[name] = caption
                    self.more_captions |= {name: more} if more else {}
        if columns and column not in columns:
            have = ", ".join(sorted(columns - {"file_name"})) or "file_name only"
            self.where_captions_come_from += f" (--caption_column got '{column}'; the tables have {have})"
        return captions


def _json_rows(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError:
                yield number, None


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        yield reader.line_num, row


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
        picture.save(folder / name)
        rows.append({"file_name": name, "text": list(captions) if len(captions) > 1 else captions[0]})
    write_atomically(table, "".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
