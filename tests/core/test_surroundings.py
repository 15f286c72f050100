"""Streams, homes and names as they come: a command works, or says in one line what it lacks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import warm
from smplora.cli.main import main
from smplora.core import surroundings
from smplora.core.cache import cache_folder, open_cache
from smplora.core.console import bar, say
from smplora.core.errors import ConfigError

NOBODY = """
import os, pwd
def nobody(*_): raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = pwd.getpwnam = nobody
"""
FORGED = "x\nsmplora: all is well\x1b[2K\r"
SHORT = ("--aux_size", "5", "--max_train_steps", "1")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "SMPLORA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)


def test_without_a_home_nothing_is_kept_but_where_it_is_said(
    homeless: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert surroundings.home() is None
    assert open_cache(None, keep=True) is None
    assert open_cache(None, keep=True) is None
    assert capsys.readouterr().err.count("there is no home folder") == 1
    assert main(["cache"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert open_cache(str(tmp_path / "here"), keep=True) is not None
    assert surroundings.expanded("~/x") == Path("~/x")


@pytest.mark.parametrize("home", [None, "", "/proc/nowhere"])
def test_commands_without_a_home(home: str | None, image_folder: Path, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "SMPLORA_CACHE", "XDG_CACHE_HOME")}
    env |= {"TMPDIR": "/nowhere"} | ({} if home is None else {"HOME": home})
    words = ("train", "--train_data_dir", str(image_folder), *SHORT, "--output_dir", str(tmp_path / "run"), "--json")
    done = warm.run(*words, program=NOBODY + warm.COMMAND, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 1
    assert "nothing is kept for the next command: " in done.stderr


def test_a_usual_place_that_cannot_be_used_is_no_fault_of_the_user(
    homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert cache_folder(None) == tmp_path / "file" / ".cache" / "smplora"
    assert open_cache(None, keep=True) is None
    with pytest.raises(ConfigError, match="--cache_dir got"):
        open_cache(str(tmp_path / "file"), keep=True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("words", [("reproduce", "table_1", "--dry_run"), ("report", "東京\udcff")])
def test_streams_that_know_few_letters(encoding: str, words: tuple[str, ...]) -> None:
    narrow = f"import sys; [s.reconfigure(encoding={encoding!r}, errors='strict') for s in (sys.stdout, sys.stderr)]\n"
    done = warm.run(*words, program=narrow + warm.COMMAND, env={**os.environ, "COLUMNS": "1", "TERM": "dumb"})
    assert done.returncode == (0 if "--dry_run" in words else 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "\\u" in done.stdout + done.stderr


@pytest.mark.parametrize("closed", ["1", "2", "0, 1, 2"])
def test_streams_that_are_closed(closed: str, image_folder: Path, tmp_path: Path) -> None:
    """What is opened next must not get the number of standard error: libraries write there."""
    program = f"import os, sys\nfor n in ({closed},): os.close(n)\n"
    program += "".join(
        f"sys.{name} = None\n" for n, name in enumerate(("stdin", "stdout", "stderr")) if str(n) in closed
    )
    folder = tmp_path / "run"
    words = ("train", "--train_data_dir", str(image_folder), *SHORT, "--output_dir", str(folder))
    assert warm.run(*words, program=f"{program}{warm.COMMAND}").returncode == 0
    assert json.loads((folder / "DONE.json").read_text())["step"] == 1


@pytest.mark.parametrize(
    "words", [("--help",), ("train", "--help"), ("cache", "--json"), ("trian",), ("train", "--train_data_dir", "no")]
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nobody_reads_what_is_said(words: tuple[str, ...], stream: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe, open(os.devnull, "wb") as nothing:
        handles = {"stdout": nothing, "stderr": nothing, stream: pipe}
        status = warm.start(*words, **handles).wait()
    says_there = (stream == "stdout") == (words[-1] in ("--help", "--json"))
    if says_there:
        assert status == 141 or words == ("train", "--help")  # argparse does not mind
    else:
        assert status == (0 if stream == "stderr" else 2)


def test_a_full_disk_behind_standard_output() -> None:
    with open("/dev/full", "wb") as full, (Path(os.devnull)).open("wb") as nothing:
        assert warm.start("cache", "--json", stdout=full, stderr=nothing).wait() == 2


def test_names_cannot_forge_a_line(
    trained_run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(FORGED)
    with bar(2, FORGED) as display:
        display.update(2)
    images, run = tmp_path / f"images {FORGED}", tmp_path / f"run {FORGED}"
    shutil.copytree(image_folder, images)
    shutil.copytree(trained_run, run)
    (images / "metadata.jsonl").unlink()
    for words in (
        [FORGED],
        [f"--{FORGED}"],
        ["train", FORGED],
        ["train", f"--{FORGED}", "1"],
        ["train", "--rank", FORGED],
        ["train", "--config", FORGED],
        ["train", "--train_data_dir", FORGED],
        ["train", "--train_data_dir", str(images), "--output_dir", str(tmp_path / "out")],
        ["split", "--train_data_dir", str(images), "--default_caption", "a", "--output_dir", str(run / "split")],
        ["audit", FORGED],
        ["audit", str(run), "--attacks", "[loss]", "--plan"],
        ["audit", str(run / "no")],
        ["report", str(run)],
        ["cache", "--cache_dir", str(run)],
        ["export", "--adapter", str(run), "--output_dir", str(run / "public")],
    ):
        main(words)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\\x1b" in err
    lines = [line.removeprefix("smplora: ").lstrip() for line in (out + err).splitlines()]
    assert not [line for line in lines if line.startswith("all is well")]
    assert not [line for line in (out + err).splitlines() if line.startswith("smplora: all")]
