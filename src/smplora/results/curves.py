"""Files of JSON lines as curves over the training step: metrics.jsonl, monitor.jsonl and the theory's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from smplora.core.reading import Unreadable, parse_json, read_text, shortened

Curve: TypeAlias = tuple[tuple[int, float], ...]  # (step, value), rising in step
BUDGET = (*(f"leakage.{end}" for end in ("value", "low", "high")), "limit", "held_out_loss", "mi_lambda", "images")


def read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of such a file, each with the object that it holds; none where there is no file.

    Raises:
        ValueError: a damaged line; only the last one may be half a line, which a killed run leaves.
    """
    lines = read_text(path).rstrip("\n").split("\n") if path.exists() else []
    rows = []
    for number_of_line, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise Unreadable("no object with a step")
        except Unreadable as error:
            if number_of_line == len(lines):
                break
            raise ValueError(f"{path.name}, line {number_of_line}: {error}") from error
        rows.append((line, row))
    return rows


def read_curves(path: Path, names: Sequence[str]) -> dict[str, Curve]:
    """Columns of a file of JSON lines against their ``step``. ``"auc.low"`` names an entry of an inner object.

    Raises:
        ValueError: as ``read_rows``, or a value that is not a number.
    """
    curves: dict[str, dict[int, float]] = {name: {} for name in names}
    for _, row in read_rows(path):
        for name, curve in curves.items():
            outer, _, inner = name.partition(".")
            value = row.get(outer)
            value = number(value.get(inner) if inner and isinstance(value, dict) else value)
            if value is not None:
                curve[row["step"]] = value  # a resumed run repeats steps: the later line counts
    return {name: tuple(sorted(curve.items())) for name, curve in curves.items()}


def between_starts(elapsed: Sequence[tuple[int, float]]) -> list[Sequence[tuple[int, float]]]:
    """(step, seconds since the run was started or resumed), cut where it was."""
    starts = [i for i in range(1, len(elapsed)) if elapsed[i][1] <= elapsed[i - 1][1]]
    return [elapsed[start:end] for start, end in pairwise([0, *starts, len(elapsed)])]


def seconds_per_step(elapsed: Sequence[tuple[int, float]]) -> float | None:
    """How long a step took, from (step, seconds since the run was started or resumed): of the lines since it was last
    started or, where that is one only, of those before; None where no two lines belong together."""
    part = next((part for part in reversed(between_starts(elapsed)) if len(part) > 1), None)
    return (part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]) if part else None


def number(value: Any) -> float | None:
    """A finite number or None.

    Raises:
        ValueError: anything else, also NaN, which Python's JSON parser lets through.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{shortened(value)} is not a number")
    return float(value)
