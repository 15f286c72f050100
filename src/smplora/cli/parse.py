"""Flags, YAML files and keyword arguments become the checked options of a command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from smplora.cli.commands import VERBS
from smplora.config.names_elsewhere import ELSEWHERE
from smplora.config.parsing import COMMAND_LINE, NO_VALUE, SWITCH, THE_CALL, parser_for, typed
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError, listing


def parser_of(name: str) -> ArgumentParser:
    """The parser of one verb."""
    verb = VERBS[name]
    bare = f"; --{verb.positional} may be left out before its value" if verb.positional else ""
    return parser_for(
        verb.options,
        prog=f"smplora {name}",
        description=verb.options.__doc__,
        epilog=f"example: {verb.example}{bare}",
    )


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The verb's checked options.

    Raises:
        ConfigError: with every problem of flags and YAML in one message.
    """
    parser = parser_of(name)
    arguments = _with_switches(name, _with_positional(name, arguments))
    try:
        namespace = parser.parse_args(arguments)
        values = {f.name: namespace[f.name] for f in fields(VERBS[name].options)}
        problems = VERBS[name].options(**values).problems()
    except (ArgumentError, TypeError, ValueError, yaml.YAMLError) as error:
        unreadable: list[str] = []
        assignments = _assignments(arguments, unreadable)
        values, problems = _diagnose(parser, name, assignments)
        problems = unreadable + problems or [str(error).splitlines()[0]]
    if problems:
        raise ConfigError(listing(f"{name} cannot start", problems))
    return VERBS[name].options(**values)


def checked(name: str, options: Mapping[str, Any]) -> Any:
    """The verb's options from keyword arguments, checked like those of the command line.

    Raises:
        ConfigError: with every problem in one message.
    """
    values, problems = _diagnose(parser_of(name), name, [(key, value, THE_CALL) for key, value in options.items()])
    if problems:
        raise ConfigError(listing(f"{name} cannot start", problems))
    return VERBS[name].options(**values)


def _with_positional(name: str, arguments: Sequence[str]) -> list[str]:
    """Words that belong to no flag become values of the verb's positional option; others stay, to be complained of."""
    option, words = VERBS[name].positional, list(arguments)
    if option is None:
        return words
    switches = _switches(name)
    rest: list[str] = []
    values: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            values.append(word)
            continue
        rest.append(word)
        takes_value = words and "=" not in word and not words[0].startswith("--")
        if takes_value and (word not in switches or words[0].lower() in SWITCH):
            rest.append(words.pop(0))
    if not values or any(word.partition("=")[0] == f"--{option}" for word in rest):
        return [*values, *rest]
    if get_origin(get_type_hints(VERBS[name].options)[option]) is list:
        return [f"--{option}={json.dumps(values)}", *rest]
    return [f"--{option}={values[0]}", *values[1:], *rest]


def _switches(name: str) -> set[str]:
    return {f"--{f.name}" for f in fields(VERBS[name].options) if f.type in ("bool", "Optional[bool]")}


def _with_switches(name: str, arguments: Sequence[str]) -> list[str]:
    """``--json`` alone means ``--json true``: what people expect of a switch."""
    switches = _switches(name)
    words = [*arguments, "--"]
    return [f"{word}=true" if word in switches and after.startswith("--") else word for word, after in pairwise(words)]


def _diagnose(
    parser: ArgumentParser, name: str, assignments: Sequence[tuple[str, Any, str]]
) -> tuple[dict[str, Any], list[str]]:
    options = VERBS[name].options
    values, problems = typed(parser, options, name, assignments, ELSEWHERE if issubclass(options, TrainConfig) else {})
    return values, problems + options(**values).problems()


def _assignments(arguments: Sequence[str], problems: list[str]) -> list[tuple[str, Any, str]]:
    """(option, value, where) of everything given, YAML files first."""
    from_files: list[tuple[str, Any, str]] = []
    from_flags: list[tuple[str, Any, str]] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            problems.append(f"the command line has '{word}' where an option was expected; options begin with --")
            continue
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = NO_VALUE if not words or words[0].startswith("--") else words.pop(0)
        if key == "config":
            from_files += _yaml_items(text, problems)
        else:
            from_flags.append((key.removesuffix("+"), text, COMMAND_LINE))
    return from_files + from_flags


def _yaml_items(path: str, problems: list[str]) -> list[tuple[str, Any, str]]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, ValueError) as error:  # a ValueError: a NUL in its name, or not UTF-8
        problems.append(f"--config got '{path}', which cannot be read: {str(error).splitlines()[0]}")
        return []
    if not isinstance(content, dict):
        problems.append(f"--config got '{path}', which is not a list of 'option: value' lines")
        return []
    return [(str(key), value, path) for key, value in content.items()]
