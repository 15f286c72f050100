"""What every result is: a frozen dataclass, read from JSON and checked by pydantic, and written back the same."""

from __future__ import annotations

import json
from dataclasses import field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from smplora.core.errors import CheckpointError
from smplora.core.files import write_json
from smplora.core.reading import Unreadable, parse_json, read_text, shortened

ABSENT = "absent"  # metadata of a field that is left out of the file where it is None


def plain(value: Any) -> str:
    """Text on one line, without the control characters that terminals obey and XML forbids."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


Line = Annotated[str, AfterValidator(plain)]
"""Text that people are shown, on one line."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A probability, a rate or an AUC."""
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Record:
    """Base of all results. Numbers must be finite and types exact; keys that a later version added are passed over."""

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", use_attribute_docstrings=True)


Result = TypeVar("Result", bound=Record)


def absent() -> Any:
    """Default of a field that a file may lack: None, and then not written."""
    return field(default=None, metadata={ABSENT: True})


def adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads, checks and describes a kind of result."""
    return _adapter(kind)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def as_json(result: Any) -> Any:
    """A result as JSON's types: what its file holds."""
    if is_dataclass(result):
        named = ((f, getattr(result, f.name)) for f in fields(result))
        return {f.name: as_json(value) for f, value in named if not (value is None and f.metadata.get(ABSENT))}
    if isinstance(result, dict):
        return {name: as_json(value) for name, value in result.items()}
    return [as_json(value) for value in result] if isinstance(result, (list, tuple)) else result


def from_plain(kind: type[Result], content: Any) -> Result:
    """A result from JSON's types.

    Raises:
        ValidationError: something is missing or of another type.
    """
    result: Result = adapter(kind).validate_json(json.dumps(content))
    return result


def write(path: Path, result: Record) -> None:
    """Write a result, whole or not at all.

    Raises:
        ValueError: a number that is not finite.
        OSError: as ``files.write_atomically``.
    """
    write_json(path, as_json(result))


def read(path: Path, kind: type[Result], remedy: str, *formats: str) -> Result:
    """Read a result.

    Args:
        remedy: the command that writes it anew.
        formats: those that it may have; none: the file names none.

    Raises:
        CheckpointError: whatever is wrong with the file, in one line that ends with the command ``remedy``.
    """
    try:
        return parse(path, kind, *formats)
    except WrongFormat as error:
        raise CheckpointError(f"{path} has format {error}; {remedy} again") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy} again") from error


class WrongFormat(ValueError):
    """A file of another version, or of something else."""


def parse(path: Path, kind: type[Result], *formats: str) -> Result:
    """As ``read``, for callers that have words of their own.

    Raises:
        ValueError: what is wrong, in one line.
    """
    try:
        text = read_text(path)
        content = parse_json(text)
        if formats and content.get("format") not in formats:
            raise WrongFormat(f"{shortened(content.get('format'))} instead of {formats[0]!r}")
        result: Result = adapter(kind).validate_json(text)
        return result
    except (WrongFormat, Unreadable):
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(": ".join(filter(None, (plain(where), plain(first["msg"]))))) from error
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {plain(error)}") from error


def schema(kind: type[Record]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a kind of result."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **adapter(kind).json_schema()}
