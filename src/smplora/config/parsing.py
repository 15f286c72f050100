"""Values of options by the types of their fields: shared by flags, YAML, the Python API, and sweeps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from smplora.core.errors import nearest
from smplora.core.reading import shortened

COMMAND_LINE, THE_CALL = "the command line", "the call"
PRINT_CONFIG = "Print all options as YAML and stop; '=skip_default' leaves out those that are at their default."
NO_VALUE: Any = object()  # of an option that is given without one
SWITCH = {"true": True, "false": False}


def parser_for(options: type, **settings: Any) -> ArgumentParser:
    """A parser of the fields of ``options``, told ``settings`` about prog, description and the like."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False, **settings)
    parser.add_argument("--config", action="config", help="YAML file with options; flags on the command line win.")
    parser._option_string_actions["--print_config"].help = PRINT_CONFIG
    parser.add_class_arguments(options, as_group=False)
    return parser


def typed(
    parser: ArgumentParser,
    options: type,
    verb: str,
    assignments: Sequence[tuple[str, Any, str]],
    hints: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Go through options one by one, to report every problem where the parser stops at the first.

    Args:
        parser: of ``parser_for(options)``.
        verb: whose --help explains them.
        assignments: (option, value, where it was given).
        hints: what to say of names from elsewhere.

    Returns:
        The values that can be used, by option, and what is wrong with the others, one line each.
    """
    known = {f.name for f in fields(options)}
    values: dict[str, Any] = {}
    problems: list[str] = []
    usable: list[tuple[str, Any, str]] = []
    for key, value, source in assignments:
        if key not in known:
            hint = f" ({hints[key]})" if hints and key in hints else nearest(key, known)
            problems.append(f"{source} has no option '{key}'{hint}; see smplora {verb} --help")
        elif value is NO_VALUE or (value is None and not may_be_none(options, key)):
            problems.append(f"--{key} got no value{'' if source in (COMMAND_LINE, THE_CALL) else f' in {source}'}")
        else:
            usable.append((key, value, source))
    kinds = kinds_of(options)
    for flags in (False, True):  # flags win
        given = [(key, value) for key, value, source in usable if (source == COMMAND_LINE) is flags]
        wrong: list[tuple[str, Any]] = []
        values |= _parsed(parser, given, flags, wrong)
        problems += [f"--{key} got {shortened(value)}; allowed: {allowed(kinds[key])}" for key, value in wrong]
    return values, problems


@cache
def kinds_of(options: Hashable) -> dict[str, Any]:
    """The types of a class of options, by field."""
    return get_type_hints(options)


def may_be_none(options: type, name: str) -> bool:
    """Whether an option may be left without a value; of names that are none, yes."""
    kind = kinds_of(options).get(name)
    return kind is None or type(None) in get_args(kind)


def _parsed(
    parser: ArgumentParser, given: Sequence[tuple[str, Any]], flags: bool, wrong: list[tuple[str, Any]]
) -> dict[str, Any]:
    """Values as their types; those that are not are added to ``wrong``. Halves are tried until what is wrong is alone:
    the parser says only that something is."""
    if not given:
        return {}
    try:
        if flags:
            parsed = parser.parse_args([f"--{key}={value}" for key, value in given])
        else:
            parsed = parser.parse_object(dict(given))
        return {key: getattr(parsed, key) for key, _ in given}
    except (ArgumentError, TypeError, ValueError, OverflowError, RecursionError):
        if len(given) == 1:
            wrong += given
            return {}
    half = len(given) // 2
    return _parsed(parser, given[:half], flags, wrong) | _parsed(parser, given[half:], flags, wrong)


def allowed(kind: Any) -> str:
    """What an option of a type takes, for people."""
    kinds = [k for k in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)) if k is not type(None)]
    choices = ", ".join(str(choice) for k in kinds if get_origin(k) is Literal for choice in get_args(k))
    return " or ".join(filter(None, [*(_allowed(k) for k in kinds if get_origin(k) is not Literal), choices]))


def _allowed(kind: Any) -> str:
    inner = get_args(kind)
    if get_origin(kind) is dict:
        lists = get_origin(inner[1]) is list
        return f"options with {'lists of ' * lists}values, as in '{{rank: {'[4, 8]' if lists else '4'}}}'"
    if get_origin(kind) is list:
        if get_origin(inner[0]) is dict:
            return "a list of options with values, as in '[{rank: 4}, {rank: 8, mi_lambda: 1}]'"
        return "a list, as in '[100, 200]'" if int in inner else "a list, as in '[one, two]'"
    return {bool: ", ".join(SWITCH), int: "a whole number", float: "a number"}.get(kind, "text")
