"""Flags, YAML files and keyword arguments become the checked options of a command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from smplora.cli.commands import VERBS
from smplora.config.names_elsewhere import ELSEWHERE
from smplora.config.parsing import COMMAND_LINE, NO_VALUE, SWITCH, THE_CALL, may_be_none, parser_for, typed
from smplora.config.train import TrainConfig
from smplora.core.console import say
from smplora.core.errors import ConfigError, listing
from smplora.core.files import BUNDLED_MODEL, PACKAGE
from smplora.core.reading import Unreadable
from smplora.core.yaml_text import read_yaml

BASE_MODEL = "pretrained_model_name_or_path"


@cache
def parser_of(name: str) -> ArgumentParser:
    """The parser of one verb; it takes longer to make than to use."""
    verb = VERBS[name]
    bare = f"; --{verb.positional} may be left out before its value" if verb.positional else ""
    parser = parser_for(
        verb.options,
        prog=f"smplora {name}",
        description=verb.options.__doc__,
        epilog=f"example: {verb.example}{bare}",
    )
    if verb.asks_for_base:
        parser.set_defaults({BASE_MODEL: None})
    return parser


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The verb's checked options.

    Raises:
        ConfigError: with every problem of flags and YAML in one message.
    """
    parser = parser_of(name)
    arguments = _with_switches(name, _with_positional(name, arguments))
    from_files, flags, unreadable = _files_and_flags(arguments)
    if VERBS[name].asks_for_base:  # --print_config writes null for it
        from_files = [item for item in from_files if item[:2] != (BASE_MODEL, None)]
    given = [f"--config={json.dumps({key: value for key, value, _ in from_files})}"] if from_files else []
    if unreadable:  # what it would have said is not missing
        raise ConfigError(listing(f"{name} cannot start", unreadable))
    try:
        if any(value is None and not may_be_none(VERBS[name].options, key) for key, value, _ in from_files):
            raise ValueError("an option without a value")
        namespace = parser.parse_args([*given, *flags])
        values = {f.name: namespace[f.name] for f in fields(VERBS[name].options)}
        if values.get(BASE_MODEL, "") is None:
            del values[BASE_MODEL]
        problems = _problems(name, values, _given(from_files, flags))
    except (ArgumentError, TypeError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        values, problems = _diagnose(parser, name, [*from_files, *_assignments(flags, unreadable)])
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
    return values, problems + _problems(name, values, [key for key, _, _ in assignments])


def _given(from_files: Sequence[tuple[str, Any, str]], flags: Sequence[str]) -> list[str]:
    return [key for key, _, _ in [*from_files, *_assignments(flags, [])]]


def _problems(name: str, values: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """What is wrong with values that can be read, one line each; ``given`` are the options that were named."""
    options = VERBS[name].options(**values)
    problems: list[str] = options.problems()
    if name == "train" and options.final and not problems:
        from smplora.runs.rehearsal import with_options_of_rehearsal

        with_options_of_rehearsal(options, set(given) & values.keys())  # refuses what differs
    points = values.get("points") or []
    varied = BASE_MODEL in (values.get("grid") or {}) or (points and all(BASE_MODEL in point for point in points))
    if not VERBS[name].asks_for_base or BASE_MODEL in values or values.get("final") or varied:
        return problems
    from smplora.models.hub import cached_models  # the hub's library takes a while to import

    here = ", ".join(f"'{model}'" for model in cached_models())
    return [
        *problems,
        f"--{BASE_MODEL} is needed: the model to adapt, as a folder or hub id (in the local cache: {here or 'none'}); "
        f"or '{BUNDLED_MODEL}', the bundled one, which draws digits of 32 x 32 pixels: only for trying things",
    ]


def _files_and_flags(arguments: Sequence[str]) -> tuple[list[tuple[str, Any, str]], list[str], list[str]]:
    """(option, value, file) of what ``--config`` files say, the later file wins; all other words; what is wrong."""
    found: dict[str, tuple[str, Any, str]] = {}
    flags: list[str] = []
    problems: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, path = word.partition("=")
        if name != "--config":
            flags.append(word)
        elif equals or (words and not words[0].startswith("--")):
            found |= {item[0]: item for item in _yaml_items(path if equals else words.pop(0), problems)}
        else:
            problems.append("--config got no value")
    return list(found.values()), flags, problems


def _assignments(flags: Sequence[str], problems: list[str]) -> list[tuple[str, Any, str]]:
    """(option, value, where) of every flag."""
    assignments: list[tuple[str, Any, str]] = []
    words = list(flags)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            problems.append(f"the command line has '{word}' where an option was expected; options begin with --")
            continue
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = NO_VALUE if not words or words[0].startswith("--") else words.pop(0)
        assignments.append((key.removesuffix("+"), text, COMMAND_LINE))
    return assignments


def _yaml_items(path: str, problems: list[str]) -> list[tuple[str, Any, str]]:
    ready = PACKAGE / "ready" / path  # of an installed package: configs/lora.yaml from any folder
    if not Path(path).exists() and not Path(path).is_absolute() and ready.is_file():
        say(f"--config '{path}' is the one that comes with smplora: {ready}")
        path = str(ready)
    try:
        content = read_yaml(Path(path))
    except (OSError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or error
        toml = "options are YAML ('rank: 4'), not TOML ('rank = 4'); " if path.lower().endswith(".toml") else ""
        problems.append(f"--config got '{path}', which cannot be read: {toml}{reason}")
        return []
    if content is None:
        say(f"--config '{path}' is empty: no options are taken from it")
        return []
    if not isinstance(content, dict):
        problems.append(f"--config got '{path}', which is not a list of 'option: value' lines")
        return []
    return [(str(key), value, path) for key, value in content.items()]
