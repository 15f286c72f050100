"""Extension points as dictionaries from name to "module:Class", imported on use, so that --help stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, TypeVar

from smplora.core.errors import ConfigError, nearest

Method = TypeVar("Method")


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


def build(registry: dict[str, str], name: str, kind: str, options: object) -> Any:
    """What is registered as ``name``, from_options of the options that bear the names of its fields.

    Raises:
        ConfigError: as ``load``.
    """
    return from_options(load(registry, name, kind), options)


def from_options(method: type[Method], options: object) -> Method:
    """``method``, a dataclass, with the attributes of ``options`` that bear the names of its fields. What they leave
    open (None) is the method's default."""
    named = ((f.name, getattr(options, f.name, None)) for f in fields(method) if f.init) if is_dataclass(method) else ()
    return method(**{name: value for name, value in named if value is not None})


def unknown(registry: Mapping[str, object], name: str, option: str) -> str | None:
    """What is wrong with ``name``, or None."""
    if name in registry:
        return None
    return f"--{option} got '{name}'{nearest(name, registry)}; allowed: {', '.join(registry)}"
