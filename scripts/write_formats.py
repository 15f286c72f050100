"""Write the tables of docs/formats.md that follow from the code: the fields of audit.json, quality.json and others.

python scripts/write_formats.py            writes them
python scripts/write_formats.py --check    exits with 1 where they are not as the code has them
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from smplora.results.audit import Audit
from smplora.results.certificate import Certificate
from smplora.results.gallery import ExposedImages, Memorised
from smplora.results.manifest import Manifest
from smplora.results.properties import Properties
from smplora.results.quality import Quality
from smplora.results.record import ABSENT, Count, Line, Positive, Share, adapter
from smplora.results.run import BaseModel, CheckpointState, Done, Privacy, Prompts
from smplora.results.theory import TheorySummary

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
FILES: dict[str, type] = {
    "audit.json": Audit,
    "quality.json": Quality,
    "properties.json": Properties,
    "exposed.json": ExposedImages,
    "memorised.json": Memorised,
    "DONE.json": Done,
    "state.json": CheckpointState,
    "model.json": BaseModel,
    "split.json": Manifest,
    "privacy.json": Privacy,
    "prompts.json": Prompts,
    "theory.json": TheorySummary,
    "certificate.html": Certificate,
}
WORDS = {Share: "number in [0, 1]", Count: "whole number", Positive: "whole number, 1 or more", Line: "text"}
PLAIN = {str: "text", float: "number", int: "whole number", bool: "true or false", NoneType: "null", Any: "anything"}


def described(kind: Any) -> str:
    """A type for people: "[text, ...]", "number or null"."""
    for known, words in WORDS.items():
        if kind == known:
            return words
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return described(inner[0])
    if origin is Literal:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(described(one) for one in inner)
    if origin is tuple:
        return f"[{described(inner[0])}, ...]"
    if origin is dict:
        keys = ", ".join(f'"{name}"' for name in get_args(inner[0])) or "name"
        return f"{{{keys}: {described(inner[1])}}}"
    return kind.__name__ if is_dataclass(kind) else PLAIN[kind]


def inside(kind: Any) -> list[type]:
    """The records that a type is made of."""
    if inspect.isclass(kind) and is_dataclass(kind):
        return [kind]
    return [record for one in get_args(kind) for record in inside(one)]


def reached(file: type) -> list[type]:
    """A file's record and all that stand in it, each once, in the order of their first appearance."""
    found: list[type] = []
    waiting = [file]
    while waiting:
        record = waiting.pop(0)
        if record not in found:
            found.append(record)
            waiting += [one for kind in get_type_hints(record, include_extras=True).values() for one in inside(kind)]
    return found


def table(record: type, file: str | None = None) -> list[str]:
    """One record's fields as a table."""
    hints = get_type_hints(record, include_extras=True)
    schema = adapter(record).json_schema()
    properties = schema["properties"]
    lines = [f"**{file or record.__name__}**: {inspect.cleandoc(record.__doc__ or '')}".replace("\n", " "), ""]
    lines += ["| field | what | |", "|---|---|---|"]
    for f in fields(record):
        kind = described(hints[f.name]).replace(" or null", " or absent" if f.metadata.get(ABSENT) else " or null")
        note = " ".join(properties[f.name].get("description", "").split())
        lines.append(f"| `{f.name}` | {kind} | {note} |".replace("|AUC - 0.5|", "\\|AUC - 0.5\\|"))
    return [*lines, ""]


def block(file: str, known: set[type]) -> str:
    """All tables of a file; records that stood in an earlier one are not repeated."""
    lines: list[str] = []
    for number, record in enumerate(reached(FILES[file])):
        if record not in known:
            known.add(record)
            lines += table(record, f"`{file}`" if number == 0 else None)
    return "\n".join(lines)


def written(text: str) -> str:
    """The document with its tables as the code has them."""
    known: set[type] = set()
    for file in FILES:
        begin, end = f"<!-- {file}: written by scripts/write_formats.py -->", f"<!-- end of {file} -->"
        content = f"{begin}\n{block(file, known)}{end}"
        text, count = re.subn(re.escape(begin) + ".*?" + re.escape(end), lambda _, c=content: c, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{DOCUMENT} has no place for {file}: it needs '{begin}' and '{end}'")
    return text


def main() -> int:
    """See the module's text."""
    before = DOCUMENT.read_text(encoding="utf-8")
    after = written(before)
    if "--check" in sys.argv:
        return int(before != after)
    DOCUMENT.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
