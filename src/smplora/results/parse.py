"""Small parsers shared by everything that reads a subject's files: strict about types, one line per error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from smplora.core.errors import CheckpointError
from smplora.core.files import read_json
from smplora.results.records import Estimate

T = TypeVar("T")


def load(path: Path, expected_format: str | None, again: str, parse: Callable[[Any], T]) -> T:
    """Parse a JSON file.

    Raises:
        CheckpointError: whatever is wrong with it, in one line that ends with the command ``again``.
    """
    try:
        data = read_json(path)
        if expected_format and data.get("format") != expected_format:
            raise CheckpointError(
                f"{path} has format {data.get('format')!r} instead of {expected_format!r}; {again} again"
            )
        return parse(data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {plain(error)}); {again} again") from error


def estimate(data: Any) -> Estimate:
    """A VALUE of docs/formats.md; nothing at all becomes an estimate without a value."""
    if data is None:
        return Estimate(None)
    return Estimate(
        number(data["value"]), number(data.get("low")), number(data.get("high")), plain(data.get("reason") or "")
    )


def number(value: Any) -> float | None:
    """A finite number or None.

    Raises:
        ValueError: anything else, also NaN, which Python's JSON parser lets through.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def plain(value: Any) -> str:
    """Text on one line, without the control characters that terminals obey and XML forbids."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def whole(value: Any) -> int | None:
    """A whole number or None."""
    return None if value is None else int(value)


def one_of(value: Any, allowed: Sequence[T]) -> T:
    """``value`` as the member of ``allowed`` that it equals.

    Raises:
        ValueError: it equals none.
    """
    for choice in allowed:
        if choice == value:
            return choice
    raise ValueError(f"{value!r} is none of {', '.join(map(str, allowed))}")


def flat(data: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``{"a.b": "text"}``; values that look like secrets are not shown."""
    texts: dict[str, str] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            texts |= flat(value, f"{name}.")
        elif str(key).lower().endswith(("token", "password", "secret", "api_key")) and isinstance(value, str):
            texts[name] = "(hidden)"
        else:
            texts[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return texts


def read_curves(path: Path, names: Sequence[str]) -> dict[str, tuple[tuple[int, float], ...]]:
    """Columns of a file of JSON lines against their ``step``: {name: ((step, value), ...)}, rising. ``"auc.low"`` names
    an entry of an inner object.

    Raises:
        ValueError: a damaged line; only the last one may be half a line, which a killed run leaves.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    curves: dict[str, dict[int, float]] = {name: {} for name in names}
    for index, line in enumerate(lines):
        try:
            row = json.loads(line)
        except ValueError:
            if index == len(lines) - 1:
                break
            raise ValueError(f"{path.name}, line {index + 1}") from None
        for name, curve in curves.items():
            outer, _, inner = name.partition(".")
            value = row.get(outer)
            value = number(value.get(inner) if inner and isinstance(value, dict) else value)
            if value is not None:
                curve[int(row["step"])] = value  # a resumed run repeats steps: the later line counts
    return {name: tuple(sorted(curve.items())) for name, curve in curves.items()}
