"""Tables of captions, as people and programs write them: metadata.jsonl, and metadata.csv with any usual separator.

A row that cannot be meant is a problem with its number.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.core.reading import LARGEST_TABLE, Unreadable, json_lines, read_text, shortened

FILE_NAME = "file_name"
SEPARATORS = ",;\t"
MOST_IN_A_FIELD = 2**20


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    where: str  # "metadata.csv line 3"
    values: dict[str, object]

    @property
    def file_name(self) -> str:
        """Of the image, relative to the table's folder."""
        return str(self.values[FILE_NAME])


def rows(folder: Path, table: Path, problems: list[str]) -> Iterator[Row]:
    """The rows of ``table``, a path in ``folder``, that name a file; what is wrong with others is added to
    ``problems``."""
    name = table.as_posix()
    try:
        text = read_text(folder / table, LARGEST_TABLE)
    except (Unreadable, OSError) as error:
        problems.append(f"{name}: {getattr(error, 'strerror', None) or error}")
        return
    read = _json_rows(text) if table.suffix.lower() == ".jsonl" else _csv_rows(text)
    for number, row in read:
        where = f"{name} line {number}" if number else name
        if isinstance(row, str):
            problems.append(f"{where}: {row}")
        elif not isinstance(row.get(FILE_NAME), str):
            problems.append(f"{where}: no {FILE_NAME}, but {_some(row)}")
        else:
            yield Row(where, row)


def _some(row: dict[str, object]) -> str:
    return ", ".join(shortened(key) for key in list(row)[:5]) or "nothing"


Read = Iterator[tuple[int, dict[str, object] | str]]  # (number of the line or 0, the row or what is wrong)


def _json_rows(text: str) -> Read:
    for number, row in json_lines(text):
        if isinstance(row, Unreadable):
            yield number, f"not an object with a {FILE_NAME} ({row})"
        elif not isinstance(row, dict):
            yield number, f"not an object with a {FILE_NAME}"
        else:
            yield number, row


def _csv_rows(text: str) -> Read:
    text = re.sub(r"\r\n?", "\n", text)  # old Macs' line ends too
    header = text.lstrip("\n").partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    before = csv.field_size_limit(MOST_IN_A_FIELD)
    try:
        yield from _records(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator))
    finally:
        csv.field_size_limit(before)


def _records(reader: Any) -> Read:
    names: list[str] | None = None
    start = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            yield start, "a quote that is not closed" if unclosed else f"not a row of CSV ({error})"
            return
        if fields is None:
            return
        here, start = start, reader.line_num + 1
        if not any(field.strip() for field in fields):
            continue
        if names is None:
            names = [field.strip() for field in fields]
            wrong = _header(names)
            if wrong:
                yield here, wrong
                return
        elif len(fields) > len(names):
            more = f"{len(fields)} fields, and the header has {len(names)}"
            yield here, f"{more}; put texts that hold a separator into double quotes"
        elif len(fields) < len(names):
            yield here, f"{len(fields)} field{'s' * (len(fields) != 1)}, and the header has {len(names)}"
        else:
            yield here, dict(zip(names, fields, strict=True))


def _header(names: list[str]) -> str | None:
    """What is wrong with the first line."""
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        return f"the column {shortened(twice)} is there twice"
    if FILE_NAME not in names:
        there = ", ".join(shortened(name) for name in names[:8])
        return f"the first line has no column {FILE_NAME}; its columns are {there}"
    return None
