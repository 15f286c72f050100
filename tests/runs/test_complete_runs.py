"""``smplora train`` on a complete run says so before torch is imported; whatever else there is to do is done."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import short_config
from smplora.adapters.files import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.train import TrainConfig
from smplora.results.run import PAGE
from smplora.runs.complete import needs_nothing
from smplora.runs.folder import CONFIG, DONE


@pytest.fixture
def complete(image_folder: Path, trained_run: Path, tmp_path: Path) -> TrainConfig:
    """The options of a run that is complete."""
    config: TrainConfig = short_config(image_folder, tmp_path / "run")
    shutil.copytree(trained_run, config.output_dir)
    return config


def test_nothing_is_done_twice(complete: TrainConfig) -> None:
    """In an interpreter of its own, which must not have imported torch; the options are those in the run's folder."""
    before = {path: path.stat().st_mtime_ns for path in Path(complete.output_dir).rglob("*")}
    script = "import sys; from smplora.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = [
        "train",
        "--config",
        f"{complete.output_dir}/{CONFIG}",
        "--output_dir",
        complete.output_dir,
        "--json",
        "true",
    ]
    ran = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert "is complete: 6 steps; its images were not read again" in ran.stderr
    assert json.loads(ran.stdout)["step"] == 6
    assert before == {path: path.stat().st_mtime_ns for path in Path(complete.output_dir).rglob("*")}


def test_what_is_left_to_do_is_seen(complete: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside each case the same run without it, of which nothing is left."""
    run = Path(complete.output_dir)
    assert needs_nothing(complete)
    assert not needs_nothing(replace(complete, rank=8))
    assert not needs_nothing(replace(complete, resume_from_checkpoint="checkpoint-3"))
    assert not needs_nothing(replace(complete, run_page=True)), "the page was not written"
    (run / PAGE).write_text("")
    assert needs_nothing(replace(complete, run_page=True))
    whole = (run / ADAPTER_FILE).read_bytes()
    (run / ADAPTER_FILE).write_bytes(whole[:-1] + b"?")
    assert not needs_nothing(complete)
    (run / ADAPTER_FILE).write_bytes(whole)
    assert needs_nothing(complete)
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert not needs_nothing(complete), "each of the processes would say so"
    (run / DONE).unlink()
    assert not needs_nothing(complete)


def test_other_options_are_refused_as_ever(complete: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--config", f"{complete.output_dir}/{CONFIG}", "--output_dir", complete.output_dir, "--rank", "8"]
    assert main(words) == 2
    assert "rank was 4, now 8" in capsys.readouterr().err
