"""Messages are for people, whatever they quote."""

from __future__ import annotations

import pytest

from smplora.core.errors import ConfigError, listing


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("plain, with ü and 東京", "plain, with ü and 東京"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\x00c\u202ed", "a\\rb\\x00c\\u202ed"),
        ("1" * 5000, "(a number of 5000 digits)"),
        ("x" * 5000, f"{'x' * 2000} ... (5000 characters)"),
    ],
)
def test_what_is_quoted_cannot_take_over_the_terminal(quoted: str, shown: str) -> None:
    assert str(ConfigError(quoted)) == shown


def test_a_name_cannot_forge_a_line() -> None:
    assert str(ConfigError(listing("data", ["a\nsmplora: all is well: no caption"]))).count("\n") == 0
    assert str(ConfigError(listing("data", ["first", "second\nthird"]))).splitlines()[2:] == ["  - second\\nthird"]
