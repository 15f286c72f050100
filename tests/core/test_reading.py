"""Small files from anybody: what is meant is read as standard readers do, everything else is one line with a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from smplora.core.reading import Unreadable, decoded, json_lines, parse_json, read_bytes, shortened
from smplora.core.yaml_text import as_yaml, parse_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_what_json_writes_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False)) == value


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_what_yaml_writes_is_read(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump({"a": 1, "b": [0.5, None, True]})) == {"a": 1, "b": [0.5, None, True]}
    assert parse_yaml(as_yaml(value)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"b": {"a": 1, "c": {}, "a": 1}}', "'a' is there twice"),
        ("[" * 100_000, "brackets within each other"),
        ('{"x":' * 65 + "1" + "}" * 65, "brackets within each other"),
        ('{"a": NaN}', "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "1e999"),
        (f"[{'9' * 5000}]", "5000 digits"),
        ('"\\ud800"', "surrogate"),
        ('{\n"a": ]', "line 2, column 6"),
        ("", "line 1, column 1"),
    ],
)
def test_json_that_cannot_be_meant(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as error:
        parse_json(text)
    assert len(str(error.value)) < 200


def test_brackets_in_texts_do_not_count() -> None:
    assert parse_json(json.dumps("[{" * 500)) == "[{" * 500
    assert parse_json(json.dumps(['\\"[' * 99, {}])) == ['\\"[' * 99, {}]


BILLION = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefghij", "bcdefghijk", strict=True)
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rank: 4\nrank: 8", "line 2, column 1: the key 'rank' is there twice"),
        ("a: {b: 1, b: 1}", "the key 'b' is there twice"),
        ("a:\n\tb: 1", "line 2.*a tab"),
        (BILLION, "aliases"),
        ("a: &a [*a]", "holds itself"),
        ("a: " + "[" * 20_000, "lists within each other"),
        ("".join(f"{' ' * n}a:\n" for n in range(100)), "lists within each other"),
        ("a: !!python/object/apply:os.system [x]", "line 1"),
        ("a: !!binary x", "line 1"),
        ("a: !!bool maybe", "maybe"),
        ("a: \x07", "control characters"),
        ("a: 'x", "line 1"),
        ("a: 1\n---\nb: 2", "line 2"),
        (f"a: {'9' * 5000}", "5000 digits"),
        ("[1]: 2", "a key"),
    ],
)
def test_yaml_that_cannot_be_meant(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_plain_values_are_those_of_yaml_1_2() -> None:
    read = parse_yaml("{a: no, b: on, c: 2026-11-29, d: 1e-4, e: 010, f: True, g: ~, h: 1:30, i: .5, j: -3}")
    assert read == {
        "a": "no", "b": "on", "c": "2026-11-29", "d": 1e-4, "e": 10,
        "f": True, "g": None, "h": "1:30", "i": 0.5, "j": -3,
    }  # fmt: skip
    assert parse_yaml("") is None
    assert parse_yaml("# nothing\n") is None
    assert parse_yaml("b: &x {r: 1, s: 2}\nc:\n  <<: *x\n  r: 3")["c"] == {"r": 3, "s": 2}


@pytest.mark.parametrize("text", ["no", "1e4", "010", "1:30", "2026-11-29", "~", "", "=", "<<", ".inf", "0o7", "yes"])
def test_texts_that_look_like_something_else_stay_texts(text: str) -> None:
    assert parse_yaml(as_yaml({text: text})) == {text: text}
    assert yaml.safe_load(as_yaml({"a": text})) == {"a": text}


def test_only_files_of_some_size(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 11)
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path / "large", "larger"), (tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(Unreadable, match=reason):
            read_bytes(path, 10)
    with pytest.raises(Unreadable, match="a device"):
        read_bytes(Path("/dev/zero"), 10)
    with pytest.raises(Unreadable, match="name"):
        read_bytes(Path("a\0b"), 10)
    assert read_bytes(tmp_path / "large", 11) == b"x" * 11


def test_encodings() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decoded("größe\n".encode(encoding)) == "größe\n"
    with pytest.raises(Unreadable, match="line 2: not UTF-8"):
        decoded("a\ngröße".encode("latin-1"))
    with pytest.raises(Unreadable, match="not UTF-16"):
        decoded(b"\xff\xfe\x00")


def test_only_line_feeds_end_lines_of_json() -> None:
    lines = dict(json_lines('{"a": "one\u2028line"}\r\n\n{"a": 1, "a": 2}\n[oops]\n'))
    assert lines[1] == {"a": "one\u2028line"}
    assert set(lines) == {1, 3, 4}
    assert str(lines[3]) == "the key 'a' is there twice"
    assert str(lines[4]) == "column 2: Expecting value"


def test_quoting_costs_nothing_however_large_the_value() -> None:
    value: list[Any] = [0]
    for _ in range(200):
        value = [value] * 9
    assert len(shortened(value)) < 200
    assert shortened("a" * 500).startswith("'aaa")
    assert len(shortened("a" * 500)) < 70
