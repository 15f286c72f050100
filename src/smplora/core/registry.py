"""Extension points as dictionaries from name to "module:Class", imported on use, so that --help stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from smplora.core.errors import ConfigError, nearest


def load(registry: dict[str, str], name: str, kind: str) -> Any:
    """The class registered as ``name``.

    Raises:
        ConfigError: unknown name; the message lists the known ones and the nearest.
    """
    problem = unknown(registry, name, kind)
    if problem:
        raise ConfigError(problem)
    module, _, attribute = registry[name].partition(":")
    return getattr(import_module(module), attribute)


def unknown(registry: Mapping[str, object], name: str, option: str) -> str | None:
    """What is wrong with ``name``, or None."""
    if name in registry:
        return None
    return f"--{option} got '{name}'{nearest(name, registry)}; allowed: {', '.join(registry)}"
