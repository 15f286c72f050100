"""``smplora report``: with --audit the runs are audited first, and share the shadow adapters that are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from said import complaint
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.audit.reuse import previous_audit
from smplora.cli.main import main
from smplora.config.audit import AuditConfig, ReportConfig
from smplora.core.parallel import Task
from smplora.core.reading import read_json
from smplora.experiments.report_command import audits_of

AUDIT = {"shadows": 4, "num_timesteps": 1, "noise_pairs": 1, "attacks": ["calibrated_loss", "lira_offline"]}


def test_runs_that_are_compared_share_their_shadows(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies of a run in one command, each shadow trained once; the same command again audits nothing."""
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
    assert previous_audit(AuditConfig(adapter=str(runs[0]), shadows=4)) is None, "it lacks attacks of the tier"
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


def test_nothing_is_audited_before_all_is_looked_at(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is not finished; a page of somebody else's. Files of a run stand for it, and shadows lie beside the
    page, however it is named."""
    monkeypatch.setattr("smplora.experiments.report_command.audit", lambda config: pytest.fail("too early"))
    unfinished = shutil.copytree(trained_run, tmp_path / "unfinished")
    (unfinished / "DONE.json").unlink()
    page = tmp_path / "page.html"
    for runs, message in (([trained_run, unfinished], "is not finished"), ([trained_run], "not a file that smplora")):
        page.unlink(missing_ok=True) if len(runs) > 1 else page.write_text("mine")
        assert main(["report", *map(str, runs), "--output", str(page), "--audit", "{}"]) == 2
        assert message in complaint(capsys.readouterr().err)
    monkeypatch.chdir(tmp_path)
    asked = ReportConfig(runs=[str(trained_run), str(trained_run / ADAPTER_FILE)], audit={"shadows": 4})
    (one,) = audits_of(asked)
    assert one.adapter == str(trained_run)
    assert one.shadow_dir == str(tmp_path / "shadows")


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
