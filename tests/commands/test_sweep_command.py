"""A sweep from the command line on the bundled model, its tasks in this process (test_sweep.py has the others)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from smplora.cli.main import main
from smplora.core.parallel import Task, problem
from smplora.experiments.sweep import command


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks that were not done before."""
    names: list[str] = []

    def one_after_the_other(tasks: Sequence[Task], title: str, **_: object) -> dict[str, str | None]:
        outcome: dict[str, str | None] = {}
        for task in tasks:
            if task.after and outcome[task.after]:
                outcome[task.name] = f"{task.after} failed"
                continue
            names.extend([] if task.done else [task.name])
            try:
                task.work.run(task.options)
                outcome[task.name] = None
            except Exception as error:
                outcome[task.name] = problem(error)
        return outcome

    monkeypatch.setattr(command, "run_tasks", one_after_the_other)
    return names


def test_a_sweep(image_folder: Path, tmp_path: Path, performed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The cells use up the pool, as the paper's do: quality is measured against test non-members."""
    out = tmp_path / "sweep"
    arguments = [
        "sweep", "--train_data_dir", str(image_folder), "--output_dir", str(out), "--aux_size", "15",
        "--max_train_steps", "4", "--checkpointing_steps", "2", "--logging_steps", "1", "--monitor_steps", "0",
        "--validation_steps", "0", "--device", "cpu",
        "--audit", "{attacks: [loss], noise_pairs: 1, num_timesteps: 1}",
        "--evaluate", "{num_images: 20, num_inference_steps: 1}",
    ]  # fmt: skip
    points = json.dumps([{}, {"split_manifest": str(tmp_path / "none.json")}])
    failing = ["--points", points, "--seeds", "[0]", "--checkpoints", "[2]"]
    assert main([*arguments, *failing, "--dry_run"]) == 0
    assert not out.exists()
    assert re.search(r"2 runs of 4 steps, 4 adapters .* about \d+ (s|min)", capsys.readouterr().err, re.S)

    assert main([*arguments, *failing]) == 2
    error = capsys.readouterr().err
    assert "5 of 10 tasks failed" in error
    assert "none.json" in error
    with (out / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    good = [line for line in lines if not line["problem"]]
    assert [(line["seed"], line["step"]) for line in good] == [("0", "2"), ("0", "end")]
    for line in good:
        folder = out / "runs" / line["run"] / ("checkpoints/checkpoint-2" if line["step"] == "2" else "")
        audit = json.loads((folder / "audit" / "audit.json").read_text())
        assert float(line["auc"]) == audit["strongest"]["test"]["auc"]["value"]
        quality = json.loads((folder / "quality" / "quality.json").read_text())
        assert float(line["kid"]) == quality["against"]["held_out"]["kid"]["value"]
    page = (out / "index.html").read_text()
    for target in re.findall(r'href="(runs/[^"]+)"', page):
        assert (out / target.replace("%3D", "=")).exists()

    performed.clear()
    assert main([*arguments, "--seeds", "[0, 1]", "--quality", "held_out_loss"]) == 0
    assert performed == ["seed=1", "audit of seed=1", "evaluation of seed=1"]
    told = json.loads((out / "sweep.json").read_text())
    assert told["front"]["quality"] == "held_out_loss"
    (setting,) = told["settings"]
    assert setting["auc"]["value"] == pytest.approx(sum(run["auc"]["value"] for run in setting["runs"]) / 2)
    assert main([*arguments, "--seeds", "[0, 1]", "--rank", "2"]) == 2
    assert "holds another sweep" in capsys.readouterr().err
