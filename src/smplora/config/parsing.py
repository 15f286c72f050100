"""Values of options by the types of their fields: shared by flags, YAML, the Python API, and sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
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
    known = {f.name: f for f in fields(options)}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value, source in assignments:
        if key not in known:
            hint = f" ({hints[key]})" if hints and key in hints else nearest(key, known)
            problems.append(f"{source} has no option '{key}'{hint}; see smplora {verb} --help")
            continue
        if value is NO_VALUE or (value is None and type(None) not in get_args(get_type_hints(options)[key])):
            problems.append(f"--{key} got no value{'' if source in (COMMAND_LINE, THE_CALL) else f' in {source}'}")
            continue
        try:
            if source == COMMAND_LINE:
                parsed = parser.parse_args([f"--{key}={value}"])
            else:
                parsed = parser.parse_object({key: value})
            values[key] = getattr(parsed, key)
        except (ArgumentError, TypeError, ValueError):
            problems.append(f"--{key} got {shortened(value)}; allowed: {allowed(get_type_hints(options)[key])}")
    return values, problems


def allowed(kind: Any) -> str:
    """What an option of a type takes, for people."""
    kinds = [k for k in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)) if k is not type(None)]
    choices = [str(choice) for k in kinds if get_origin(k) is Literal for choice in get_args(k)]
    if choices:
        return ", ".join(choices)
    return " or ".join(_allowed(k) for k in kinds)


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
