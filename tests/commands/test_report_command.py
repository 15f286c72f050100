"""``smplora report``: with --audit the runs are audited first, and share the shadow adapters that are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from said import complaint
from smplora.cli.main import main
from smplora.core.parallel import Task
from smplora.core.reading import read_json

AUDIT = {"shadows": 4, "num_timesteps": 1, "noise_pairs": 1, "attacks": ["calibrated_loss", "lira_offline"]}


def test_runs_that_are_compared_share_their_shadows(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run and its checkpoint in one command, each shadow trained once; the same command again audits nothing."""
    trained = []

    def once(tasks: Sequence[Task], title: str, **_: Any) -> dict[str, str | None]:
        for task in tasks:
            if not task.done:
                task.work.run(task.options)
                trained.append(task.options.output_dir)
        return dict.fromkeys(task.name for task in tasks)

    monkeypatch.setattr("smplora.audit.shadow_adapters.run_tasks", once)
    runs = [tmp_path / "one", tmp_path / "other"]
    for run in runs:
        shutil.copytree(trained_run, run)
    assert main(["audit", str(runs[0]), "--attacks", "[loss]", "--num_timesteps", "1"]) == 0
    command = ["report", *map(str, runs), "--output", str(tmp_path / "page.html"), "--audit", json.dumps(AUDIT)]
    assert main(command) == 0
    err = capsys.readouterr().err
    assert "2 adapters, 2 to audit; shadow adapters that would be the same are trained once" in err
    assert f"{runs[0]}: replaces its audit" in err
    assert f"{runs[1]}: replaces its audit" not in err
    assert len(trained) == 4
    assert {Path(folder).parents[1] for folder in trained} == {tmp_path / "shadows"}
    for run in runs:
        assert read_json(run / "audit" / "audit.json")["shadows"]["number"] == 4
    assert "4 shadow adapters" in (tmp_path / "page.html").read_text()
    assert main(command) == 0
    assert "2 adapters, 0 to audit\n" in capsys.readouterr().err
    assert len(trained) == 4


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ({"shadows": 3}, "--shadows got 3; allowed: 0, and even numbers from 4"),
        ({"shadow": 4}, "it has 'shadow' (did you mean 'shadows'?), which is no option"),
        ({"output_dir": "there"}, "'output_dir' is decided by the report itself; leave it out"),
    ],
)
def test_bad_options_of_the_audits(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], audit: dict[str, Any], said: str
) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(trained_run), "--output", str(page), "--audit", json.dumps(audit)]) == 2
    assert said in complaint(capsys.readouterr().err)
    assert not page.exists()


def test_what_is_no_run_is_audited_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html"), "--audit", "{shadows: 4}"]) == 2
    assert "is no run of 'smplora train': audit it by 'smplora audit' first" in complaint(capsys.readouterr().err)
