"""Tables of captions, as people and programs write them: metadata.jsonl, and metadata.csv with any usual separator.

A row that cannot be meant is a problem with its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smplora.core.reading import LARGEST_TABLE, Unreadable, json_lines, read_text, shortened
from smplora.core.tables import parse_csv

FILE_NAME = "file_name"


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    where: str  # "metadata.csv line 3"
    values: Mapping[str, object]

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


def _some(row: Mapping[str, object]) -> str:
    return ", ".join(shortened(key) for key in list(row)[:5]) or "nothing"


Read = Iterator[tuple[int, Mapping[str, object] | str]]  # (number of the line or 0, the row or what is wrong)


def _json_rows(text: str) -> Read:
    for number, row in json_lines(text):
        if isinstance(row, Unreadable):
            yield number, f"not an object with a {FILE_NAME} ({row})"
        elif not isinstance(row, dict):
            yield number, f"not an object with a {FILE_NAME}"
        else:
            yield number, row


def _csv_rows(text: str) -> Read:
    table = parse_csv(text)
    if table.names and FILE_NAME not in table.names:
        there = ", ".join(shortened(name) for name in table.names[:8])
        yield 0, f"its first line has no column {FILE_NAME}; the columns are {there}"
        return
    lines: list[tuple[int, Mapping[str, object] | str]] = [*table.rows, *table.problems]
    yield from sorted(lines, key=lambda row: row[0])
