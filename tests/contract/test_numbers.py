"""Every number that can be given: no infinite, absurd or wrong one passes, and none ends in a traceback."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from smplora.cli.commands import VERBS
from smplora.cli.parse import checked, parse
from smplora.core.errors import ConfigError

NESTED = ("grid", "points", "audit", "evaluate")  # of a sweep: checked as options of its runs
NEVER = (float("nan"), math.inf, -math.inf, 1e30, 10**50)


def numbers(kind: Any) -> set[type]:
    """The kinds of number that an option takes."""
    inner = {number for one in get_args(kind) for number in numbers(one)} if get_origin(kind) is not None else set()
    return inner | ({kind} if kind in (int, float) else set())


def holds_list(kind: Any) -> bool:
    """Whether an option is a list, or may be one."""
    return get_origin(kind) is list or any(map(holds_list, get_args(kind)))


def options_of(verb: str) -> list[str]:
    """Names of the options that are numbers or lists of such."""
    kinds = get_type_hints(VERBS[verb].options)
    return [f.name for f in fields(VERBS[verb].options) if numbers(kinds[f.name]) and f.name not in NESTED]


OPTIONS = [(verb, name) for verb in VERBS for name in options_of(verb)]


def test_there_are_many() -> None:
    assert len(OPTIONS) > 150


@pytest.mark.parametrize(("verb", "name"), OPTIONS)
def test_a_number(verb: str, name: str) -> None:
    is_list = holds_list(get_type_hints(VERBS[verb].options)[name])
    for value in (*NEVER, -1, 0):
        given = {name: [value] if is_list else value}
        problem = "\n".join(VERBS[verb].options(**given).problems())
        if value != 0:
            assert f"--{name}" in problem, (value, problem)
        assert len(problem) < 3000


@pytest.mark.parametrize("verb", sorted({verb for verb, _ in OPTIONS}))
def test_a_word_is_no_number(verb: str) -> None:
    """Said of all of them at once."""
    kinds = get_type_hints(VERBS[verb].options)
    names = options_of(verb)
    with pytest.raises(ConfigError) as error:
        checked(verb, {name: ["much"] if holds_list(kinds[name]) else "much" for name in names})
    assert not [name for name in names if f"--{name} got" not in str(error.value)]


def test_on_the_command_line() -> None:
    for text in ("inf", "nan", "1e30", "1" + "0" * 50, "-1", "much"):
        with pytest.raises(ConfigError, match="--rank got"):
            parse("train", ["--rank", text, "--train_data_dir", "."])
