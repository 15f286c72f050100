"""What is wrong with the values of options: each check gives one line for each problem, which names the option, what was
given and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def if_any(problem: str | None) -> list[str]:
    """A list of the problem, if there is one."""
    return [problem] if problem else []


def needed(value: Any, name: str, what: str) -> list[str]:
    """``value`` must be given."""
    return [] if value else [f"--{name} is missing: give {what}"]


def at_least(config: Any, names: Iterable[str], low: float) -> list[str]:
    """Values that are given must not be below ``low``."""
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"--{name} got {value}; allowed: {low} or more"
        for name, value in values
        if value is not None and not value >= low
    ]


def at_most(config: Any, names: Iterable[str], high: float) -> list[str]:
    """Values must not be above ``high``."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} got {value}; allowed: {high} or less" for name, value in values if not value <= high]


def positive(config: Any, names: Iterable[str]) -> list[str]:
    """Values that are given must be above 0."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} got {value}; allowed: above 0" for name, value in values if value is not None and not value > 0]


def existing_folder(folder: str | None, name: str) -> list[str]:
    """What is given must be a folder."""
    if folder is None or Path(folder).is_dir():
        return []
    return [f"--{name} got '{folder}', which is not a folder"]


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
