"""YAML that may come from anybody, read as YAML 1.2 means it and written so that every reader agrees."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from smplora.core.reading import DEEPEST, MEGABYTE, Unreadable, read_text, shortened, whole

LARGEST = MEGABYTE
MOST_VALUES = 100_000  # with aliases written out


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2's plain values: ``no``, ``on`` and dates are texts, ``1e-4`` is a number, ``010`` is ten."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {  # no sets, dates or binary data: nothing of ours has them
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "float", "str", "seq", "map")))
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping without duplicates; keys of ``<<`` may be given anew."""
        if isinstance(node, yaml.MappingNode):
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise Unreadable(f"{_place(key.start_mark)}: a key that is not a word")
                if (key.tag, key.value) in seen:
                    raise Unreadable(f"{_place(key.start_mark)}: the key {shortened(key.value)} is there twice")
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]


class _Dumper(yaml.SafeDumper):
    """Puts texts into quotes that YAML 1.1 or 1.2 would take for something else."""


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", r"<<", "<"),
):  # fmt: skip
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: whole(loader.construct_scalar(node)))


def as_yaml(value: Any) -> str:
    """A value as YAML, which ``parse_yaml`` reads back equal; keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def read_yaml(path: Path) -> Any:
    """A YAML file; None where it holds nothing.

    Raises:
        OSError, Unreadable: as ``read_text`` and ``parse_yaml``.
    """
    return parse_yaml(read_text(path, LARGEST))


def parse_yaml(text: str) -> Any:
    """A YAML text; None where it holds nothing.

    Raises:
        Unreadable: no YAML, too deep or too large with its aliases written out, a key twice; with line and column.
    """
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values(node, {}) > MOST_VALUES:
                raise Unreadable(f"more than {MOST_VALUES} values, with its aliases written out")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        cause = " ".join(filter(None, (error.context, error.problem)))
        where = f"{_place(error.problem_mark)}: " if error.problem_mark else ""
        hint = "; a tab: YAML indents with spaces" if _has_tab(text, error.problem_mark) else ""
        raise Unreadable(f"{where}{cause}{hint}") from error
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise Unreadable(" ".join(str(error).split())) from error
    except Unreadable:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _check_events(text: str) -> None:
    """Depth, before anything is built: deep nesting is what parsers need time and stack for."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise Unreadable(f"{_place(event.start_mark)}: more than {DEEPEST} lists within each other")


def _values(node: Any, known: dict[int, int]) -> int:
    """How many values a node has where aliases are written out."""
    if id(node) in known:
        if not known[id(node)]:
            raise Unreadable(f"{_place(node.start_mark)}: a value that holds itself")
        return known[id(node)]
    known[id(node)] = 0
    inner = [] if isinstance(node, yaml.ScalarNode) else node.value
    parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
    known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _has_tab(text: str, mark: Any) -> bool:
    lines = text.split("\n")
    return mark is not None and mark.line < len(lines) and bool(re.match(r"\s*\t", lines[mark.line]))
