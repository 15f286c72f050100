"""Files of JSON lines as curves over the training step: metrics.jsonl, monitor.jsonl and the theory's."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

Curve: TypeAlias = tuple[tuple[int, float], ...]  # (step, value), rising in step


def read_curves(path: Path, names: Sequence[str]) -> dict[str, Curve]:
    """Columns of a file of JSON lines against their ``step``. ``"auc.low"`` names an entry of an inner object.

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
        raise ValueError(f"{value!r} is not a number")
    return float(value)
