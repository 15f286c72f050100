"""Options out of a file that a command wrote, or that names all of them: values must have their exact types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from smplora.config.checks import NotHere
from smplora.config.parsing import allowed, kinds_of
from smplora.core.errors import nearest
from smplora.core.reading import shortened

Options = TypeVar("Options")


def exactly(options: type[Options], content: Any) -> tuple[Options | None, list[str]]:
    """``content``, what a YAML file holds, as ``options``; None where types do not fit.

    Returns:
        The options and what is wrong with them, a line each; that folders are elsewhere is none of it.
    """
    known = {f.name for f in fields(options)}  # type: ignore[arg-type]
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        return None, ["it is not a list of 'option: value' lines"]
    strange = [key for key in content if key not in known]
    if strange:
        return None, [f"it has {shortened(key)}{nearest(str(key), known)}, which is no option" for key in strange]
    values: dict[str, Any] = {}
    problems = []
    hints = kinds_of(options)  # type: ignore[arg-type]
    for name, value in content.items():
        try:
            values[name] = _adapter(hints[name]).validate_python(value, strict=True)
        except (ValidationError, RecursionError):
            given = "no value" if value is None else shortened(value)
            problems.append(f"--{name} got {given}; allowed: {allowed(hints[name])}")
    if problems:
        return None, problems
    read = options(**values)
    return read, [line for line in read.problems() if not isinstance(line, NotHere)]  # type: ignore[attr-defined]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
