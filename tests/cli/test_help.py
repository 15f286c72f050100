"""``--help`` shows what most people need, ``--help_all`` every option by subject, and neither forgets anything."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from smplora.cli.commands import VERBS
from smplora.cli.help import FEW, MAIN, help_text
from smplora.cli.main import main


def named(text: str) -> list[str]:
    return re.findall(r"^  --(\w+)", text, re.MULTILINE)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_option_is_there_once_with_its_text_and_under_a_subject(verb: str) -> None:
    text = help_text(verb, everything=True)
    assert sorted(named(text)) == sorted(f.name for f in fields(VERBS[verb].options))
    titles = [line for line in text.splitlines() if line and line[0] not in " -" and line == line.strip()]
    assert "Options" not in titles or len(fields(VERBS[verb].options)) <= FEW, "a class of options without a subject"
    assert VERBS[verb].example in text
    assert all(len(line) <= 110 for line in text.splitlines() if line.startswith("      "))
    for line in re.findall(r"^  --\w+ .*\n(.*)", text, re.MULTILINE):
        assert line.startswith("      "), "an option without a text"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_short_text_says_how_many_are_left(verb: str) -> None:
    text, every = help_text(verb, everything=False), [f.name for f in fields(VERBS[verb].options)]
    assert set(named(text)) <= set(every)
    left = len(every) - len(named(text))
    assert (f"{left} more options, by subject: smplora {verb} --help_all" in text) == bool(left)
    assert len(every) <= FEW or verb in MAIN
    assert len(text.splitlines()) < 110


def test_values_and_defaults_are_shown() -> None:
    text = help_text("train", everything=True)
    assert "--rank N   (default: 4)" in text
    assert "--use_ema true|false   (default: false)" in text
    assert "--proxy_sharing none|aux|all   (default: none)" in text
    assert "The game of MP-LoRA and SMP-LoRA\n" in text


@pytest.mark.parametrize("word", ["-h", "--help", "--help_all"])
def test_asking_runs_nothing(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--train_data_dir", "/nowhere", word]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: smplora train")
    assert err == ""
