"""Messages are for people, whatever they quote."""

from __future__ import annotations

import pytest

from smplora.core.errors import ConfigError, is_out_of_memory, listing


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


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("could not create a primitive"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (ImportError("No module named 'opacus'"), False),
        (OSError(28, "No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one
    other = RuntimeError("cannot join thread before it is started")
    other.__context__ = error  # what a failed start leads to
    assert is_out_of_memory(other) is is_one


def test_a_name_cannot_forge_a_line() -> None:
    assert str(ConfigError(listing("data", ["a\nsmplora: all is well: no caption"]))).count("\n") == 0
    assert str(ConfigError(listing("data", ["first", "second\nthird"]))).splitlines()[2:] == ["  - second\\nthird"]
