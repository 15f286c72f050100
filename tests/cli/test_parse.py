"""Options: every problem in one message, nothing else on the way."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from smplora.cli.commands import VERBS
from smplora.cli.main import main, overview
from smplora.cli.parse import parse, parser_of
from smplora.config.names_elsewhere import ELSEWHERE
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError, listing


def problems(*arguments: str, verb: str = "train") -> str:
    with pytest.raises(ConfigError) as error:
        parse(verb, list(arguments))
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "images").mkdir()
    return str(tmp_path / "images")


def test_flags(folder: str) -> None:
    config = parse("train", ["--train_data_dir", folder, "--rank", "8", "--learning_rate=3e-4", "--mi_lambda", "1"])
    assert (config.rank, config.learning_rate, config.mi_lambda) == (8, 3e-4, 1.0)


def test_the_quickstart_needs_no_options() -> None:
    assert parse("quickstart", []).output_dir == "runs/quickstart"


def test_yaml_and_flags_win(folder: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"train_data_dir": folder, "rank": 8, "seed": 5}))
    config = parse("train", ["--config", str(tmp_path / "c.yaml"), "--rank", "16"])
    assert (config.rank, config.seed) == (16, 5)


def test_switches(folder: str) -> None:
    common = ["--train_data_dir", folder]
    assert parse("train", ["--json", *common]).json
    assert parse("train", [*common, "--json"]).json
    assert not parse("train", [*common, "--json", "false"]).json
    assert parse("train", [*common, "--proxy_sees_timestep", "--json=true"]).proxy_sees_timestep


def test_lists(tmp_path: Path) -> None:
    assert parse("audit", ["--adapter", "x", "--attacks", "[loss]"]).attacks == ["loss"]


def test_values_without_a_flag() -> None:
    assert parse("audit", ["runs/a", "--tier", "strong", "--json"]).adapter == "runs/a"
    assert parse("audit", ["--json", "runs/a"]).adapter == "runs/a"
    assert not parse("audit", ["--json", "false", "--seed", "3", "runs/a"]).json
    assert parse("report", ["runs/a", "--output", "x.html", "runs/b, c"]).runs == ["runs/a", "runs/b, c"]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("audit", ["runs/a", "runs/b"]), ("report", ["--runs", "runs/a", "runs/b"]), ("train", ["runs/b"])],
)
def test_values_that_nothing_takes(verb: str, arguments: list[str]) -> None:
    assert "'runs/b' where an option was expected" in problems(*arguments, verb=verb)


def test_all_problems_at_once(folder: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("learnin_rate: 1\nsplit_protocol: coins\nrank: 0\n")
    message = problems(
        "--config", str(tmp_path / "c.yaml"), "--objctive", "lora", "--objective", "smplora", "--seed", "x"
    )
    for part in (
        "7 problems",
        "no option 'learnin_rate' (did you mean 'learning_rate'?)",
        "--split_protocol got 'coins'",
        "no option 'objctive' (did you mean 'objective'?)",
        "--objective got 'smplora' (did you mean 'smp_lora'?); allowed: lora, mp_lora, smp_lora, dp_lora",
        "--seed got 'x'",
        "--rank got 0; allowed: 1 or more",
        "--train_data_dir is missing",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_data_dir", "/nowhere"], "--train_data_dir got '/nowhere', which is not a folder"),
        (["--config", "/nowhere.yaml"], "--config got '/nowhere.yaml', which cannot be read"),
        (["--rank"], "--rank got no value"),
        (["--optimizer", "adam"], "--optimizer got 'adam'; allowed: adamw, adamw8bit, prodigy"),
        (["--max_token_length", "80"], "--max_token_length got '80'; allowed: 75, 150, 225"),
        (["--lora_alpha", "abc"], "--lora_alpha got 'abc'; allowed: a number"),
        (["--rank", "1.5"], "--rank got '1.5'; allowed: a whole number"),
        (["--random_flip", "maybe"], "--random_flip got 'maybe'; allowed: true, false"),
        (["--validation_prompts", "a cat"], "--validation_prompts got 'a cat'; allowed: a list, as in '[one, two]'"),
        (["--network_dim", "8"], "no option 'network_dim' (here it is --rank); see smplora train --help"),
        (["--use_8bit_adam"], "no option 'use_8bit_adam' (here it is --optimizer adamw8bit)"),
        (["rank", "3"], "'rank' where an option was expected"),
        (["--rank", "x", "--default_caption", "a: b: c"], "--rank got 'x'"),
        (["--mi_lambda", "-1"], "--mi_lambda got -1.0; allowed: 0 or more"),
        (["--mi_lambda", ".nan"], "--mi_lambda got nan; allowed: finite numbers"),
        (["--learning_rate", "0"], "--learning_rate got 0.0; allowed: above 0"),
        (["--split_protocol", "coin", "--aux_size", "5"], "--aux_size got 5; --split_protocol coin has no fixed sizes"),
    ],
)
def test_messages(arguments: list[str], message: str) -> None:
    assert message in problems(*arguments)


def test_configs_that_come_with_the_package_are_found_from_any_folder(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "package" / "ready" / "configs").mkdir(parents=True)
    (tmp_path / "package" / "ready" / "configs" / "mine.yaml").write_text("rank: 7\n")
    monkeypatch.setattr("smplora.cli.parse.PACKAGE", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    words = ["--config", "configs/mine.yaml", "--train_data_dir", folder]
    assert parse("train", words).rank == 7
    assert "is the one that comes with smplora" in capsys.readouterr().err
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("rank: 9\n")
    assert parse("train", words).rank == 9, "one's own goes first"
    assert "which cannot be read" in problems("--config", "configs/none.yaml", "--train_data_dir", folder)


def test_names_from_elsewhere_lead_to_options() -> None:
    known = {f.name for f in fields(TrainConfig)}
    assert not known & ELSEWHERE.keys()
    for hint in ELSEWHERE.values():
        assert set(re.findall(r"--(\w+)", hint)) <= known | {"repo_id"}, hint


def test_long_listings_end() -> None:
    lines = listing("x", [str(k) for k in range(250)]).splitlines()
    assert lines[0] == "x: 250 problems"
    assert lines[-2:] == ["  - 99", "  - and 150 more"]


def test_what_is_wrong_with_many_in_the_same_way_is_one_line() -> None:
    many = [f"{k}.png: no caption" for k in range(300)]
    assert listing("x", ["a.png: empty file", *many], "; mend them").splitlines() == [
        "x: 301 problems",
        "  - a.png: empty file",
        "  - 0.png, 1.png, 2.png and 297 more: no caption; mend them",
    ]
    assert len(listing("x", many[:5]).splitlines()) == 6
    assert listing("x", ["same"] * 7).splitlines()[1:] == ["  - same"] * 7


def test_only_the_wrong_option_is_blamed(folder: str) -> None:
    arguments = ("--train_data_dir", folder, "--output_dir", "2024", "--default_caption", "7", "--rank", "x")
    assert len(problems(*arguments).splitlines()) == 1


def test_a_single_problem_is_a_single_line(folder: str) -> None:
    assert problems("--train_data_dir", folder, "--rank", "0").splitlines() == [
        "train cannot start: --rank got 0; allowed: 1 or more"
    ]


def test_exit_status_and_stream(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "smplora: unknown command 'trian' (did you mean 'train'?); allowed: " + ", ".join(VERBS) + "\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches(verb: str) -> None:
    text = " ".join(parser_of(verb).format_help().split())
    assert "example: smplora" in text
    for option in fields(VERBS[verb].options):
        assert f"--{option.name}" in text
    empty = [a.dest for a in parser_of(verb)._actions if not a.help]
    assert not empty, f"options without a help text: {empty}"


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_short(verb: str) -> None:
    """At most two sentences, and at most 160 characters: three lines of the help's column on a terminal of 80
    characters. The limit is there so that a semicolon in place of a full stop does not make a long text short."""
    texts = {a.dest: " ".join((a.help or "").split()) for a in parser_of(verb)._actions}
    long = {option: text for option, text in texts.items() if sentences(text) > 2 or len(text) > 160}
    assert not long, "shorten the help; what a user needs besides belongs into the guide under docs/"


def sentences(text: str) -> int:
    """Parts that end in . ! or ? before a space, and the last; ".." as in {"text": ..} ends none."""
    return len(re.findall(r"""(?<!\.)[.!?]["')\]]*\s""", text)) + 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Rank r (paper: 64).", 1),
        ("0.05 to 0.1 are usual, as in {'text': .., 'n': ..} of checkpoint.json.", 1),
        ("The page. Default: report.html.", 2),
        ("Rank. (Paper: 64.) 'tiny' is small.", 3),
        ("Which one? This! 'lora' is.", 3),
    ],
)
def test_sentences_are_counted(text: str, number: int) -> None:
    assert sentences(text) == number


def test_overview_names_every_verb() -> None:
    assert all(name in overview() for name in VERBS)


def test_print_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--rank", "8", "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["rank"] == 8
