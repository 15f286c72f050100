"""``train --final RUN``: the options of an audited run, on all of its images; the card shows the rehearsal's audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smplora.cli.main import main
from smplora.config.train import TrainConfig
from smplora.runs.folder import read_config
from smplora.runs.rehearsal import kept_out

FEW = ["--aux_size", "6", "--train_batch_size", "4", "--max_train_steps", "3", "--monitor_steps", "0"]
QUIET = ["--validation_steps", "0", "--run_page", "false", "--device", "cpu"]
DRAWN = ["--num_synthetic_images", "12", "--synthetic_inference_steps", "2"]
AUDIT = ["--attacks", "[loss]", "--num_timesteps", "2", "--noise_pairs", "1", "--memorisation", "false"]


def rehearse(images: Path, folder: Path, *more: str) -> Path:
    words = ["--train_data_dir", str(images), "--output_dir", str(folder), *FEW, *QUIET, *more]
    assert main(["train", *words]) == 0
    return folder


def cells(run: Path) -> dict[str, set[str]]:
    content = json.loads((run / "split.json").read_text())["cells"]
    return {cell: {image["digest"] for image in images} for cell, images in content.items()}


def finish(run: Path, *more: str) -> tuple[Path, TrainConfig]:
    assert main(["train", "--final", str(run), *more]) == 0
    final = run.with_name(f"{run.name}-final")
    return final, read_config(final, TrainConfig)


@pytest.fixture(scope="module")
def rehearsal(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = rehearse(image_folder, tmp_path_factory.mktemp("final") / "run", "--rank", "2", "--split_seed", "3")
    assert main(["audit", str(run), *AUDIT]) == 0
    return run


def test_the_same_options_on_all_images_and_as_many_passes(
    rehearsal: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    final, config = finish(rehearsal)
    said = capsys.readouterr().err
    before = read_config(rehearsal, TrainConfig)
    assert "60 images are trained on, all of the rehearsal" in said
    assert "next: smplora export" in said
    assert config.max_train_steps == 15  # 3 steps of 12 images, now 60
    changed = {name for name, value in vars(before).items() if getattr(config, name) != value}
    assert changed == {"final", "max_train_steps", "output_dir"}
    was, now = cells(rehearsal), cells(final)
    assert was["aux_member"] < now["aux_member"]
    assert len(now["aux_member"]) == len(now["test_member"]), "in the proportion of the rehearsal"
    assert now["aux_member"] | now["test_member"] == set().union(*was.values())
    assert not (now["aux_nonmember"] | now["test_nonmember"] | now["reference"])

    card, audited = (final / "README.md").read_text(), (rehearsal / "README.md").read_text()
    assert "**Rehearsed, not audited itself.**" in card
    assert "Rehearsed" not in audited
    sentence = json.loads((rehearsal / "audit" / "audit.json").read_text())["verdict"]["sentence"]
    assert sentence in card
    assert str(rehearsal) not in card

    assert main(["train", "--final", str(rehearsal)]) == 0
    assert "is complete" in capsys.readouterr().err
    for command in ("audit", "evaluate"):
        assert main([command, str(final)]) == 2
        assert "audit or evaluate its rehearsal" in capsys.readouterr().err
    assert main(["export", str(final), "--output_dir", str(tmp_path / "out")]) == 0
    assert "was not audited" not in capsys.readouterr().err
    assert "Rehearsed" in (tmp_path / "out" / "README.md").read_text()


def test_a_final_that_was_stopped_goes_on(rehearsal: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = ["train", "--final", str(rehearsal), "--checkpointing_steps", "5"]
    assert main([*common, "--output_dir", str(whole)]) == 0
    assert main([*common, "--output_dir", str(parts)]) == 0
    name = "pytorch_lora_weights.safetensors"
    assert main([*common, "--output_dir", str(parts), "--resume_from_checkpoint", "checkpoint-5"]) == 0
    assert (parts / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--objective", "smp_lora"], ["aux_nonmember"]),
        (["--objective", "distill_lora", "--teacher_steps", "2"], []),
        (["--objective", "synth_lora", "--teacher_steps", "2", *DRAWN], []),
    ],
)
def test_every_objective(options: list[str], kept: list[str], image_folder: Path, tmp_path: Path) -> None:
    run = rehearse(image_folder, tmp_path / "run", *options)
    final, config = finish(run)
    was, now = cells(run), cells(final)
    assert {cell for cell in ("aux_nonmember", "test_nonmember", "reference") if now[cell]} == set(kept)
    assert all(now[cell] == was[cell] for cell in kept)
    ratio = len(now["aux_member"] | now["test_member"]) / 12
    before = read_config(run, TrainConfig)
    for name in ("max_train_steps", "teacher_steps", "num_synthetic_images"):
        value = getattr(before, name)
        assert getattr(config, name) == (value and round(value * ratio)), name
    assert "Not audited." in (final / "README.md").read_text()


def test_images_that_chose_are_not_trained_on() -> None:
    chosen = {"objective": "synth_lora", "drop_nearest": "balanced"}
    assert kept_out(TrainConfig(**chosen)) == ("reference",)
    assert kept_out(TrainConfig(**chosen, teacher_objective="smp_lora")) == ("aux_nonmember", "reference")


def test_a_rate_that_was_to_fall_longer_has_no_final(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([0.5, 0.6, 0.7])
    monkeypatch.setattr(
        "smplora.training.early_stopping.fixed_losses", lambda *_: torch.tensor([next(looks)], dtype=torch.float64)
    )
    options = ["--stop_when", "held_out_loss", "--early_stopping_patience", "2", "--max_train_steps", "9"]
    run = rehearse(image_folder, tmp_path / "run", *options, "--lr_scheduler", "cosine")
    assert "step 1 of 9 was published, in the middle of --lr_scheduler cosine" in refused(
        capsys, "train", "--final", run
    )


def test_a_card_says_what_a_final_keeps_out(image_folder: Path, tmp_path: Path) -> None:
    run = rehearse(image_folder, tmp_path / "run", "--objective", "smp_lora")
    assert main(["audit", str(run), *AUDIT]) == 0
    final, _ = finish(run)
    assert "trained on every image but what the proxy knows as unseen" in (final / "README.md").read_text()
    now = cells(final)
    assert len(now["aux_member"]) == len(now["test_member"])


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_what_has_no_final(
    rehearsal: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("train", "--final", rehearsal, "--output_dir", tmp_path / "out")
    assert "--rank was 2, now 8" in refused(capsys, *other, "--rank", "8")
    assert "--rank was 2, now 4" in refused(capsys, *other, "--rank", "4"), "4 is the default, and was given"
    assert not (tmp_path / "out").exists()
    assert "not a run folder" in refused(capsys, "train", "--final", tmp_path)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text((rehearsal / "config.yaml").read_text())
    assert "not finished" in refused(capsys, "train", "--final", unfinished)
    sweep = ("sweep", "--train_data_dir", image_folder, "--seeds", "[0]", "--final", rehearsal)
    assert "--final is of 'smplora train'" in refused(capsys, *sweep)
    elsewhere = tmp_path / "elsewhere"
    rehearse(image_folder, elsewhere, "--max_train_steps", "1")
    assert "not the final of" in refused(capsys, "train", "--final", rehearsal, "--output_dir", elsewhere)


def test_a_rehearsal_that_nobody_audited_is_said(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rehearse(image_folder, tmp_path / "run")
    capsys.readouterr()
    final, _ = finish(run, "--max_train_steps", "2")
    assert capsys.readouterr().err.startswith(f"'{run}' was not audited, and the card says so"), "before the first step"
    assert json.loads((final / "DONE.json").read_text())["step"] == 2
    assert main(["export", str(final), "--output_dir", str(tmp_path / "out")]) == 0
    assert f"'smplora audit {run}' measures" in capsys.readouterr().err
    assert main(["audit", str(run), *AUDIT]) == 0
    assert main(["train", "--final", f"{run}/", "--max_train_steps", "2"]) == 0  # complete; another way to write it
    assert "Rehearsed" in (final / "README.md").read_text()
