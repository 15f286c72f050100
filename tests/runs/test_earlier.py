"""A result that another one replaces is kept beside it, and that is said."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from smplora.cli.main import main
from smplora.runs.earlier import keeping_earlier


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def write(folder: Path, **content: object) -> None:
    (folder / "quality.json").write_text(json.dumps({"format": "smplora.quality/2", **content}))
    (folder / "samples.png").write_bytes(str(content).encode())


def test_what_differs_is_kept_and_what_is_the_same_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with keeping_earlier(tmp_path, "quality"):  # nothing was there
        write(tmp_path, num_images=20, elapsed_s=1.0)
    with keeping_earlier(tmp_path, "quality"):  # the same again, at another speed
        write(tmp_path, num_images=20, elapsed_s=2.0)
    assert not (tmp_path / "earlier").exists()
    assert capsys.readouterr().err == ""
    for number in (1, 2):
        with keeping_earlier(tmp_path, "quality"):
            write(tmp_path, num_images=20 + number, elapsed_s=1.0)
    kept = [json.loads((tmp_path / "earlier" / str(k) / "quality.json").read_text())["num_images"] for k in (1, 2)]
    assert kept == [20, 21]
    assert b"20" in (tmp_path / "earlier" / "1" / "samples.png").read_bytes()
    assert stat.S_IMODE((tmp_path / "earlier" / "1").stat().st_mode) == 0o700
    assert capsys.readouterr().err.count("it is kept in") == 2


def test_a_page_about_another_adapter_stays_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--attacks", "[loss]", "--num_timesteps", "2", "--noise_pairs", "1", "--memorisation", "false"]
    assert main(["audit", str(run), *quick]) == 0
    record, page = run / "audit" / "audit.json", (run / "audit" / "report.html").read_bytes()
    audit = json.loads(record.read_text())
    audit["subject"]["adapter_sha256"] = "0" * 64
    record.write_text(json.dumps(audit))
    assert main(["evaluate", str(run), "--num_images", "20", "--num_inference_steps", "1"]) == 0
    assert "is about another adapter and stays as it is" in capsys.readouterr().err
    assert (run / "audit" / "report.html").read_bytes() == page


def test_a_command_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, num_images=20)
    with pytest.raises(ZeroDivisionError), keeping_earlier(tmp_path, "quality"):
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quality.json", "samples.png"]


def test_commands_say_what_was_made_and_what_comes_next(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--num_timesteps", "2", "--noise_pairs", "1", "--memorisation", "false"]
    drawn = ["--num_inference_steps", "1"]
    assert main(["audit", str(run), "--attacks", "[loss]", *quick]) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"report: {run / 'audit' / 'report.html'}; certificate.html beside it says the same to others, without images",
        f"next: smplora evaluate {run}",
    ]
    assert "<title>Privacy report: " in (run / "audit" / "report.html").read_text()
    level = json.loads((run / "audit" / "audit.json").read_text())["verdict"]["level"]
    assert main(["evaluate", str(run), "--num_images", "20", *drawn]) == 0
    last = capsys.readouterr().err.splitlines()[-2:]
    assert last[0].startswith(f"result: {run / 'quality' / 'quality.json'}")
    assert last[1].startswith(f"next: smplora report {run} --output report.html")
    assert "--final" in last[1] or level != "green", "only what was found private is trained on all images"
    assert main(["evaluate", str(run), "--num_images", "21", *drawn]) == 0
    assert f"it is kept in {run / 'quality' / 'earlier' / '1'}" in capsys.readouterr().err
    assert json.loads((run / "quality" / "earlier" / "1" / "quality.json").read_text())["num_images"] == 20
