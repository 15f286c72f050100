"""The Python API and the examples, as users run them."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import smplora
from smplora import api
from smplora.cli.commands import VERBS
from smplora.core.errors import CheckpointError, ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_notebook_runs(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fewer images, with fewer steps and one attack."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("smplora.data.digits.write_private_digits", lambda folder: image_folder)
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum(bool(line.strip()) for text in code for line in text.splitlines()) <= 12
    quick = 'audit(run, attacks=["loss"], num_timesteps=2, noise_pairs=1)'
    shorter = "\n".join(code).replace('_steps": 300', '_steps": 2').replace("num_images=50", "num_images=20")
    shorter = shorter.replace("audit(run)", quick)
    names: dict[str, Any] = {}
    exec(shorter, names)
    lora, smp_lora = names["runs"]
    assert repr(smp_lora) == "Run('runs/smp_lora')"
    assert [row["step"] for row in lora.metrics] == [2]
    assert lora.checkpoints == [api.Run(Path("runs/lora/checkpoints/checkpoint-2"))]
    assert (tmp_path / "report.html").exists()
    assert "srcdoc" in lora.page._repr_html_()
    again = api.audit(lora.checkpoints[0], attacks=["loss"], num_timesteps=2)
    assert again["format"] == "smplora.audit/3"
    assert repr(again).startswith("LoRA, stopped at step 2: ")


def test_the_foreign_loop_runs() -> None:
    example = runpy.run_path(str(EXAMPLES / "foreign_loop.py"))
    text = (EXAMPLES / "foreign_loop.py").read_text()
    assert re.findall(r"\S  # (\d)", text) == list("12345")
    seen = example["main"](steps=3, batch_size=4)
    assert seen["MI gain"] < 0 < seen["loss"]
    assert all(torch.isfinite(torch.tensor(value)) for value in seen.values())


def test_every_problem_in_one_error() -> None:
    with pytest.raises(ConfigError) as error:
        api.train(train_data_dir="/nowhere", rank=0, learning_rat=1e-3, mi_lambda="much")
    for said in ("not a folder", "--rank got 0", "did you mean 'learning_rate'?", "--mi_lambda got 'much'"):
        assert said in str(error.value)


def test_help_knows_the_options() -> None:
    options = inspect.signature(api.train).parameters
    assert options["mi_lambda"].default == VERBS["train"].options().mi_lambda
    assert next(iter(inspect.signature(api.audit).parameters)) == "run"


def test_a_plan_is_no_audit(trained_run: Path, tmp_path: Path) -> None:
    plan = api.audit(trained_run, plan=True, output_dir=tmp_path / "audit", attacks=["loss"], num_timesteps=2)
    assert plan["passes"] == sum(step["passes"] * (step["images"] - step["cached"]) for step in plan["steps"])
    assert repr(plan).startswith("plan of the audit of SMP-LoRA")
    assert not (tmp_path / "audit").exists()


def test_a_run_without_a_page_says_so(trained_run: Path) -> None:
    run = api.Run(trained_run)
    assert run.monitor == []
    with pytest.raises(CheckpointError, match="--run_page"):
        run.page  # noqa: B018


def test_import_is_light_and_says_where_things_are() -> None:
    program = "import smplora, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match=r"smplora\.api"):
        smplora.trian  # noqa: B018
