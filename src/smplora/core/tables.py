"""Tables in CSV as people and programs write them: commas, semicolons or tabs, any line ends, names with spaces.

A row that cannot be meant is a problem with the number of its line.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field

from smplora.core.reading import shortened

SEPARATORS = ",;\t"
MOST_IN_A_FIELD = 2**20  # characters


@dataclass
class CsvTable:
    """What a text in CSV holds."""

    names: list[str] = field(default_factory=list)  # of its columns
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # each with the line that it begins in
    problems: list[tuple[int, str]] = field(default_factory=list)  # likewise


def parse_csv(text: str) -> CsvTable:
    """The table of a text whose first line names the columns; empty lines are passed over."""
    text = re.sub(r"\r\n?", "\n", text)  # old Macs' line ends too
    header = text.lstrip("\n").partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    before = csv.field_size_limit(MOST_IN_A_FIELD)
    table, start = CsvTable(), 1
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
        for fields in reader:
            if any(value.strip() for value in fields):
                _add(table, start, fields)
            start = reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        table.problems.append((start, "a quote that is not closed" if unclosed else f"not a row of CSV ({error})"))
    finally:
        csv.field_size_limit(before)
    return table


def _add(table: CsvTable, line: int, fields: list[str]) -> None:
    if not table.names:
        table.names = [value.strip() for value in fields]
        twice = next((name for i, name in enumerate(table.names) if name in table.names[:i]), None)
        if twice is not None:
            table.problems.append((line, f"the column {shortened(twice)} is there twice"))
        return
    if len(fields) == len(table.names):
        table.rows.append((line, dict(zip(table.names, fields, strict=True))))
        return
    counts = f"{len(fields)} field{'s' * (len(fields) != 1)}, and the header has {len(table.names)}"
    advice = "; put texts that hold a separator into double quotes" if len(fields) > len(table.names) else ""
    table.problems.append((line, counts + advice))
