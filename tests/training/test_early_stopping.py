"""``--stop_when held_out_loss``: which step is published, when the training ends, and that nothing is measured on the
images that chose."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.core.console import forget_what_was_said
from smplora.core.errors import SplitError, TrainingError
from smplora.data.split import chooses
from smplora.experiments.tasks import evaluate, train
from smplora.runs.folder import DONE, EARLY_STOPPING, RunFolder
from smplora.runs.subject import find_subject, load_subject
from smplora.training import early_stopping as module
from smplora.training.running_attack import fixed_losses

OPTIONS: dict[str, Any] = {
    "objective": "lora", "stop_when": "held_out_loss", "max_train_steps": 10, "checkpointing_steps": 1,
    "learning_rate": 1e-2, "logging_steps": 1,
}  # fmt: skip


def planted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Look k finds losses[k], the last one from then on."""
    left = list(losses)

    def look(*_: Any) -> torch.Tensor:
        return torch.tensor([[left.pop(0) if len(left) > 1 else left[0]]], dtype=torch.float64)

    monkeypatch.setattr(module, "fixed_losses", look)
    monkeypatch.setattr(module, "LOOKS", 10)


def run_with(images: Path, folder: Path, **options: Any) -> Path:
    return train(short_config(images, folder, **{**OPTIONS, **options}), progress=False)


def test_the_lowest_is_published_and_the_run_ends_when_it_falls_no_more(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, [0.5, 0.4, 0.3, 0.35, 0.31, 0.32])
    run = run_with(image_folder, tmp_path / "run", early_stopping_patience=3)
    done = RunFolder(run).done
    assert done is not None
    assert done.step == 3
    assert RunFolder(run).steps() == [1, 2, 3, 4, 5, 6]  # three looks that were no better
    best = run / "checkpoints" / "checkpoint-3" / ADAPTER_FILE
    assert (run / ADAPTER_FILE).read_bytes() == best.read_bytes()
    rows = RunFolder(run).metrics(EARLY_STOPPING)
    assert [row["held_out_loss"] for row in rows] == [0.5, 0.4, 0.3, 0.35, 0.31, 0.32]
    assert [row["best_step"] for row in rows] == [1, 2, 3, 3, 3, 3]
    assert find_subject(str(run)).max_train_steps == 10


def test_a_killed_run_ends_alike(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_with(image_folder, tmp_path / "whole", stop_when="held_out_loss")
    parts = Path(shutil.copytree(whole, tmp_path / "parts"))
    (parts / DONE).unlink()
    for step in RunFolder(parts).steps():
        if step > 4:
            shutil.rmtree(parts / "checkpoints" / f"checkpoint-{step}")
    run_with(image_folder, parts)
    assert (parts / ADAPTER_FILE).read_bytes() == (whole / ADAPTER_FILE).read_bytes()
    assert RunFolder(parts).metrics(EARLY_STOPPING) == RunFolder(whole).metrics(EARLY_STOPPING)


def test_images_that_chose_are_not_measured_on(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_what_was_said()
    run = run_with(image_folder, tmp_path / "run", max_train_steps=2)
    loaded = load_subject(str(run), None, "cpu")
    assert loaded.split.cells["reference"]
    assert not [s for s in loaded.split.cells["reference"] if chooses(s)]
    assert "reference images are left out: they chose what is published" in capsys.readouterr().err
    result = evaluate(EvaluateConfig(adapter=str(run), num_images=20, num_inference_steps=1), progress=False)
    assert result.against.held_out.n == len(loaded.split.cells["reference"])


def test_losses_are_those_of_the_audit(image_folder: Path, tmp_path: Path) -> None:
    """The mean over timesteps and images of the adaptation loss at the noise of the seed, whatever the batch."""
    run = run_with(image_folder, tmp_path / "run", max_train_steps=1)
    loaded = load_subject(str(run), None, "cpu")
    cell = loaded.encode("reference")
    whole, single = (fixed_losses(loaded.adapted, cell, 3, 7, size, torch.no_grad) for size in (64, 1))
    assert whole.shape == (len(cell), 3)
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-6)
    other = fixed_losses(loaded.adapted, cell, 3, 8, 64, torch.no_grad)
    assert not torch.allclose(whole, other)


def test_what_cannot_be(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SplitError, match="looks at half of the reference images"):
        run_with(image_folder, tmp_path / "few", reference_size=6)
    planted(monkeypatch, [float("nan")])
    with pytest.raises(TrainingError, match="no look of --stop_when gave a number"):
        run_with(image_folder, tmp_path / "nan", early_stopping_patience=2)
    words = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "out")]
    assert main(["train", *words, "--stop_when", "held_out_loss", "--privacy_budget", "auc=0.8"]) == 2
    assert main(["train", *words, "--early_stopping_patience", "2"]) == 2
    private = TrainConfig(
        train_data_dir=str(image_folder), objective="dp_lora", target_epsilon=8, stop_when="held_out_loss"
    )
    assert "not covered by the guarantee of dp_lora" in "".join(private.problems())
    problems = TrainConfig(train_data_dir=str(image_folder), early_stopping_patience=2).problems()
    assert problems == ["--early_stopping_patience is of --stop_when; leave it out"]
