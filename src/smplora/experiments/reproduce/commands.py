"""The commands behind a row, as a person would type them in the output folder."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from smplora.config.data import CacheOptions
from smplora.experiments.tasks import COMMAND, Options

OF_THIS_MACHINE = {"device", "json", *(f.name for f in fields(CacheOptions))}


def command_line(options: Options, root: Path) -> str:
    """``smplora train --rank 32 ...``: every option that is not the default. Paths are relative to ``root``; of others
    that begin at the root of this machine only the last name is kept."""
    words = ["smplora", COMMAND[type(options)]]
    for f in fields(options):
        value = getattr(options, f.name)
        if f.name in OF_THIS_MACHINE or value == _default(f):
            continue
        if f.name == "adapter":
            words.insert(2, _written(value, root))
        else:
            words += [f"--{f.name}", *([] if value is True else [_written(value, root)])]
    return shlex.join(words)


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()


def _written(value: Any, root: Path) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_written(item, root) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _portable(value, root) if isinstance(value, str) else str(value)


def _portable(text: str, root: Path) -> str:
    """A path without what is this machine's; anything else as it is. ``text`` may be NAME=PATH."""
    name, equals, path = text.rpartition("=")
    place = Path(path)
    if place.is_relative_to(root):
        return f"{name}{equals}{place.relative_to(root).as_posix()}"
    return f"{name}{equals}{place.name}" if place.is_absolute() else text
