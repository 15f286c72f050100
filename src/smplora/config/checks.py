"""What is wrong with the values of options: each check gives one line for each problem, which names the option, what was
given and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

MOST = 10**9  # of any number; more is a slip of the finger, and some libraries end in tracebacks
MOST_OF = {
    # what is kept in memory or in files, a piece for each
    "num_images": 10**6, "num_class_images": 10**6, "num_synthetic_images": 10**6, "monitor_images": 10**6, "memorisation_captions": 10**6,
    "memorisation_images": 10**4, "num_validation_images": 1000, "num_crops": 1000, "num_augmentations": 1000,
    "num_caption_shuffles": 1000, "train_batch_size": 10**5, "batch_size": 10**5, "sample_batch_size": 10**5,
    "min_bucket_reso": 8192, "max_bucket_reso": 8192, "bucket_reso_steps": 8192,
    # what is done so often; more would take months
    "max_train_steps": 10**8, "distill_steps": 10**8, "teacher_steps": 10**8, "num_train_epochs": 10**7,
    "gradient_accumulation_steps": 10**5, "proxy_steps": 10**5, "proxy_interval": 10**7, "proxy_batch_size": 10**5, "noise_multiplicity": 10**4,
    "num_inference_steps": 1000, "memorisation_steps": 1000, "num_timesteps": 1000, "noise_pairs": 10**4,
    "error_map_draws": 10**5, "pfami_crops": 1000, "variations": 1000,
    "noise_multiplier": 10**4, "target_epsilon": 10**6,
    "rank": 4096, "resolution": 8192, "validation_inference_steps": 1000, "positive_control_steps": 10**6,
    "seed": 2**63 - 1, "split_seed": 2**63 - 1, "max_new_tokens": 1000, "num_beams": 1000, "workers": 1000,
    "num_teachers": 1000, "synthetic_teachers": 1000, "synthetic_inference_steps": 1000, "shadows": 10**4, "references": 10**4, "clip_skip": 100, "num_vectors": 1000,
}  # fmt: skip

PLACES = (
    "_dir",
    "_manifest",
    "_config",
    "_or_path",
    "adapter",
    "members",
    "output",
    "signals",
    "source",
)  # name endings

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
    return [NotHere(f"--{name} got '{folder}', which is not a folder; give one that is there")]


def existing_file(file: str, name: str, allowed: str) -> list[str]:
    """What is given must be a file."""
    try:
        if Path(file).is_file():
            return []
    except (OSError, ValueError):  # a name that no file can have
        pass
    return [NotHere(f"--{name} got '{file}', which is not a file; allowed: {allowed}")]


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
    """Of a method ``problems``: numbers that are not finite or absurdly large, and text that no file can be named by,
    come first; what else is wrong with the same option need not be said."""

    @wraps(problems)
    def all_problems(self: Config) -> list[str]:
        wrong = [*sizes(self), *texts(self)]
        if any("\0" in problem for problem in wrong):
            return wrong  # whoever looks for such a file fails
        said = {problem.partition(" got ")[0] for problem in wrong}
        return (
            [*wrong, *(p for p in problems(self) if p.partition(" got ")[0] not in said)] if wrong else problems(self)
        )

    return all_problems


def texts(options: Any) -> list[str]:
    """No text has a NUL, which ends a name for the operating system, or bytes that are not UTF-8, which cannot be
    written down; what names a place is not empty."""
    problems = []
    for field in fields(options):
        value = getattr(options, field.name)
        if value == "" and field.name.endswith(PLACES):
            problems.append(f"--{field.name} got ''; allowed: the name of a file or folder")
        for text in _words(value):
            if "\0" in text:
                problems.append(f"--{field.name} got '{text}', which holds a NUL character; leave it out")
            elif not _is_unicode(text):
                problems.append(f"--{field.name} got '{text}', which is not UTF-8; rename it")
    return problems


def _words(value: Any) -> Iterator[str]:
    """The texts in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _words([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _words(inner)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
