"""Reads small files that may come from anybody: texts and JSON; YAML is in ``yaml_text``.

Regular files only, of bounded size and depth; no key twice, no number that is not finite. Whatever else is wrong is one
line that says where.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from smplora.core.errors import CheckpointError

MEGABYTE = 2**20
LARGEST_JSON, LARGEST_TABLE, LARGEST_CAPTION = 256 * MEGABYTE, 1024 * MEGABYTE, MEGABYTE
DEEPEST = 64  # brackets within brackets; the deepest of our own files has 9
LONGEST_NUMBER = 40  # digits; 64 bits have 20
_BOTH_BYTE_ORDERS = (b"\xff\xfe", b"\xfe\xff")
_LOST_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # may be half of a surrogate pair
_TEXT_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


class Unreadable(ValueError):
    """Why a file cannot be used, in one line without its name."""


def read_bytes(path: Path, most: int) -> bytes:
    """A regular file's content; a pipe or a device is not waited for.

    Raises:
        FileNotFoundError, OSError: it is not there or may not be read.
        Unreadable: no regular file, or larger than ``most`` bytes.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Unreadable(f"it is larger than {most // MEGABYTE} MB")
    return content


def open_regular(path: Path) -> BinaryIO:
    """A regular file, to read; whoever may write to a pipe is not waited for.

    Raises:
        FileNotFoundError, OSError: it is not there or may not be read.
        Unreadable: a folder, a pipe or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        raise Unreadable("its name holds a character that no name can have") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise Unreadable(f"it is {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}, not a file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path, most: int = LARGEST_JSON) -> str:
    """A text in UTF-8, or in UTF-16 where its first two bytes say so, as Excel and Notepad write it.

    Raises:
        OSError, Unreadable: as ``read_bytes``; another encoding.
    """
    return decoded(read_bytes(path, most))


def decoded(content: bytes) -> str:
    """Bytes as text; see ``read_text``.

    Raises:
        Unreadable: neither UTF-8 nor UTF-16 with a byte order mark.
    """
    encoding = "utf-16" if content.startswith(_BOTH_BYTE_ORDERS) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"line {line}: not {'UTF-16' if encoding == 'utf-16' else 'UTF-8'}") from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        OSError, Unreadable: as ``read_text`` and ``parse_json``.
    """
    return parse_json(read_text(path))


def read_object(path: Path, keys: Sequence[str], remedy: str) -> dict[str, Any]:
    """A JSON file that holds an object with ``keys``.

    Args:
        remedy: what to do where it does not, for the end of the message.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise Unreadable("no JSON object")
        if missing := [key for key in keys if key not in content]:
            raise Unreadable(f"it lacks {', '.join(missing)}")
        return content
    except (OSError, Unreadable) as error:
        raise CheckpointError(f"{path} is damaged ({getattr(error, 'strerror', None) or error}); {remedy}") from error


def parse_json(text: str) -> Any:
    """A JSON text.

    Raises:
        Unreadable: no JSON, too deep, a key twice, a number that is not finite or very long, half a surrogate pair.
    """
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(text)
    odd: list[str] = []

    def constant(name: str) -> float:
        odd.append(name)
        return math.nan

    try:
        content = json.loads(
            text, object_pairs_hook=_once_each, parse_int=whole, parse_float=_finite, parse_constant=constant
        )
    except json.JSONDecodeError as error:
        raise Unreadable(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise Unreadable(f"more than {DEEPEST} brackets within each other") from error
    if odd:
        place = _place_of_nan(content)
        raise Unreadable(f"{f'{place}: ' if place else ''}{odd[0]} is not a number")
    if _LOST_HALF.search(text):
        _check_characters(content)
    return content


def _check_depth(text: str) -> None:
    depth = 0
    for match in _TEXT_OR_BRACKET.finditer(text):
        depth += (match[1] is not None) - (match[2] is not None)
        if depth > DEEPEST:
            line = text.count("\n", 0, match.start()) + 1
            raise Unreadable(f"line {line}: more than {DEEPEST} brackets within each other")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Unreadable(f"the key {shortened(twice)} is there twice")
    return content


def whole(digits: str) -> int:
    """A whole number.

    Raises:
        Unreadable: too many digits to be meant.
    """
    if len(digits) > LONGEST_NUMBER:
        raise Unreadable(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Unreadable(f"{shortened(digits)} is larger than any number that a computer calculates with")
    return value


def _place_of_nan(content: Any) -> str | None:
    """The keys that lead to the first, "a.b"; "" where there are none."""
    if isinstance(content, dict):
        inner = ((key, _place_of_nan(value)) for key, value in content.items())
        return next(
            (".".join(filter(None, [shortened(key)[1:-1], place])) for key, place in inner if place is not None), None
        )
    if isinstance(content, list):
        return next((place for place in map(_place_of_nan, content) if place is not None), None)
    return "" if isinstance(content, float) and math.isnan(content) else None


def _check_characters(content: Any) -> None:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Unreadable("an escaped character is half of a surrogate pair") from error


def json_lines(text: str) -> Iterator[tuple[int, Any]]:
    """The lines of a file of JSON lines that hold something, with their numbers; in place of a line that cannot be used
    the ``Unreadable`` that says why. Only line feeds end a line: JSON may hold any other separator."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except Unreadable as error:
                yield number, Unreadable(re.sub(r"^line 1, ", "", str(error)))


def shortened(value: object, most: int = 60) -> str:
    """What messages quote of a value from outside: its representation, cut; of a container the beginning alone, so
    that one that is huge when written out costs nothing."""
    import reprlib

    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    text = short.repr(value)
    return text if len(text) <= 2 * most else f"{text[: 2 * most]}..."
