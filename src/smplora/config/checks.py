"""What is wrong with the values of options: each check gives one line for each problem, which names the option, what was
given and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

MOST = 10**9  # of any number; more is a slip of the finger, and some libraries end in tracebacks
MOST_OF = {
    "rank": 4096, "resolution": 8192, "validation_inference_steps": 1000, "positive_control_steps": 10**6,
    "seed": 2**63 - 1, "split_seed": 2**63 - 1, "max_new_tokens": 1000, "num_beams": 1000, "workers": 1000,
    "num_teachers": 1000, "shadows": 10**4, "clip_skip": 100, "num_vectors": 1000,
}  # fmt: skip

Config = TypeVar("Config")


def if_any(problem: str | None) -> list[str]:
    """A list of the problem, if there is one."""
    return [problem] if problem else []


def needed(value: Any, name: str, what: str) -> list[str]:
    """``value`` must be given."""
    return [] if value else [f"--{name} is missing: give {what}"]


def at_least(config: Any, names: Iterable[str], low: float) -> list[str]:
    """Values that are given must not be below ``low``, and finite."""
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"--{name} got {value}; allowed: {low} or more"
        for name, value in values
        if value is not None and not low <= value < math.inf
    ]


def at_most(config: Any, names: Iterable[str], high: float) -> list[str]:
    """Values must not be above ``high``."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} got {value}; allowed: {high} or less" for name, value in values if not value <= high]


def positive(config: Any, names: Iterable[str]) -> list[str]:
    """Values that are given must be above 0, and finite."""
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"--{name} got {value}; allowed: above 0"
        for name, value in values
        if value is not None and not 0 < value < math.inf
    ]


class NotHere(str):
    """A problem of the place, not of the options: another machine, another working folder."""


def existing_folder(folder: str | None, name: str) -> list[str]:
    """What is given must be a folder."""
    if folder is None or _is_folder(folder):
        return []
    return [NotHere(f"--{name} got '{folder}', which is not a folder")]


def _is_folder(folder: str) -> bool:
    try:
        return Path(folder).is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def below(config: Any, names: Iterable[str], low: float, high: float) -> list[str]:
    """Values that are given must be in [low, high)."""
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"--{name} got {value}; allowed: {low} or more, below {high}"
        for name, value in values
        if value is not None and not low <= value < high
    ]


def game_problems(options: Any) -> list[str]:
    """What is wrong with the options of the game between adapter and proxy: of a training, or of ``SMPLoRAGame``."""
    return [*at_least(options, ("mi_lambda",), 0), *positive(options, ("smp_delta", "proxy_learning_rate"))]


def with_sizes(problems: Callable[[Config], list[str]]) -> Callable[[Config], list[str]]:
    """Of a method ``problems``: numbers that are not finite or absurdly large come first; what else is wrong with the
    same option need not be said."""

    @wraps(problems)
    def all_problems(self: Config) -> list[str]:
        wrong = sizes(self)
        said = {problem.partition(" got ")[0] for problem in wrong}
        return (
            [*wrong, *(p for p in problems(self) if p.partition(" got ")[0] not in said)] if wrong else problems(self)
        )

    return all_problems


def sizes(options: Any) -> list[str]:
    """Every number must be finite and of a size that can be meant."""
    problems = []
    for field in fields(options):
        value = getattr(options, field.name)
        most = MOST_OF.get(field.name, MOST)
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if not (isinstance(number, int) or math.isfinite(number)):
                problems.append(f"--{field.name} got {number}; allowed: finite numbers")
            elif abs(number) > most:
                shown = str(number) if abs(number) < 10**20 else f"a number of {len(str(int(abs(number))))} digits"
                problems.append(f"--{field.name} got {shown}; allowed: {most} at most")
    return problems
