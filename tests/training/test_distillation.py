"""Distill-LoRA: folds, teachers that have not seen their images, their answers against runs loaded one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.cli.main import main
from smplora.config.train import TrainConfig
from smplora.core.reading import read_json
from smplora.data.pool import open_source, read_samples
from smplora.data.split import MANIFEST, Split, read_split
from smplora.experiments.tasks import train
from smplora.models.diffusion import adaptation_loss
from smplora.runs.base_model import load_base
from smplora.runs.folder import RunFolder, read_config
from smplora.runs.subject import load_subject
from smplora.training.batches import training_draw
from smplora.training.distributed import make_accelerator
from smplora.training.reuse import latest_step, train_length
from smplora.training.setup import Setup, prepare
from smplora.training.teachers import TEACHERS, TRAINED, folds, teacher_runs

DISTILLED: dict[str, Any] = {"objective": "distill_lora", "num_teachers": 3, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(short_config(image_folder, tmp_path_factory.mktemp("distilled") / "run", **DISTILLED), progress=False)


def split_of(run: Path) -> Split:
    return read_split(run / MANIFEST, read_samples(open_source(read_config(run, TrainConfig))))


def prepared(run: Path) -> Setup:
    """What the loop works on, before the first step."""
    cpu, config = torch.device("cpu"), read_config(run, TrainConfig)
    return prepare(config, load_base(config, cpu), split_of(run), make_accelerator(cpu))


def test_folds_are_equal_parts_whatever_the_order(run: Path) -> None:
    split = split_of(run)
    fold_of = folds(split, 3, seed=0)
    assert fold_of.keys() == {s.digest for s in split.train}
    for cell in TRAINED:
        sizes = Counter(fold_of[s.digest] for s in split.cells[cell]).values()
        assert max(sizes) - min(sizes) <= 1
    turned = replace(split, cells={cell: samples[::-1] for cell, samples in split.cells.items()})
    assert folds(turned, 3, seed=0) == fold_of
    assert folds(split, 3, seed=1) != fold_of


def test_no_teacher_has_seen_its_fold(run: Path) -> None:
    split, seen = split_of(run), Counter[str]()
    fold_of = folds(split, 3, read_config(run, TrainConfig).seed)
    for k in range(3):
        cells = read_json(run / TEACHERS / f"teacher-{k}" / MANIFEST)["cells"]
        trained = {row["digest"] for cell in TRAINED for row in cells[cell]}
        assert trained == {digest for digest, fold in fold_of.items() if fold != k}
        seen.update(trained)
    assert set(seen.values()) == {2}


def test_answers_are_those_of_the_teachers_alone(run: Path) -> None:
    """Against every teacher loaded as an adapter of its own and asked about one image at a time."""
    setup = prepared(run)
    assert setup.teachers
    before = [p.detach().clone() for p in setup.parameters]
    batch = setup.feed.train.whole()
    draw = training_draw(batch, setup.model.num_train_timesteps, 0, "a test", 0)
    answers = setup.teachers.predictions(batch, draw)
    assert all(torch.equal(p, b) and p.requires_grad for p, b in zip(setup.parameters, before, strict=True))
    assert not answers.requires_grad

    fold_of = folds(split_of(run), 3, 0)
    noised = setup.model.add_noise(setup.model.latents(batch, draw), draw)
    others = []
    for k in range(3):
        teacher = load_subject(str(run / TEACHERS / f"teacher-{k}"), None, "cpu").model
        for row in range(len(batch)):
            one = slice(row, row + 1)
            with torch.no_grad():
                alone = teacher.predict(noised[one], draw.timesteps[one], batch[one].conditioning)
            if fold_of[batch.digests[row]] == k:
                torch.testing.assert_close(answers[one], alone, atol=1e-5, rtol=1e-4)
            else:
                others.append(float((answers[one] - alone).abs().max()))
    assert min(others) > 1e-3, "the teachers answer alike, so that this test shows nothing"


def test_what_is_minimised_is_the_distance_to_the_answers(run: Path) -> None:
    """An adapter that is the teacher has no loss; the images' own loss is not asked."""
    setup = prepared(run)
    assert setup.teachers
    fold_of = folds(split_of(run), 3, 0)
    batch = setup.feed.train.whole()
    batch = batch[[row for row, digest in enumerate(batch.digests) if fold_of[digest] == 1]]
    draw = training_draw(batch, setup.model.num_train_timesteps, 0, "a test", 0)
    state = setup.adaptation.read(run / TEACHERS / "teacher-1")
    setup.adaptation.load_state_dict(setup.model, state)
    with torch.no_grad():
        losses = adaptation_loss(setup.model.error_maps(batch, draw, setup.teachers.predictions(batch, draw)))
        of_images = adaptation_loss(setup.model.error_maps(batch, draw))
    assert float(losses.max()) < 1e-8 < float(of_images.min())


def test_the_run_resumes_and_keeps_its_teachers(run: Path, image_folder: Path) -> None:
    before = (run / ADAPTER_FILE).read_bytes()
    teacher = run / TEACHERS / "teacher-0" / ADAPTER_FILE
    written = teacher.stat().st_mtime_ns
    again = short_config(image_folder, run, resume_from_checkpoint="checkpoint-3", **DISTILLED)
    train(again, progress=False)
    assert (run / ADAPTER_FILE).read_bytes() == before
    assert teacher.stat().st_mtime_ns == written
    assert RunFolder(run).metrics()[-1]["step"] == 6


def test_teachers_take_as_many_passes_unless_told(run: Path) -> None:
    images = len(split_of(run).train)
    for k in range(3):
        options = read_config(run / TEACHERS / f"teacher-{k}", TrainConfig)
        cells = read_json(run / TEACHERS / f"teacher-{k}" / MANIFEST)["cells"]
        assert options.max_train_steps == round(6 * sum(len(cells[cell]) for cell in TRAINED) / images)


def test_teachers_can_have_a_schedule_of_their_own(run: Path, tmp_path: Path) -> None:
    """And a teacher that has teachers itself gives them its own."""
    options = replace(read_config(run, TrainConfig), output_dir=str(tmp_path), lr_scheduler="cosine")
    drawn = replace(options, objective="synth_lora", teacher_objective="distill_lora", teacher_lr_scheduler="linear")
    for given, expected in ((options, "cosine"), (replace(options, teacher_lr_scheduler="constant"), "constant")):
        assert {t.lr_scheduler for t in teacher_runs(given, split_of(run))} == {expected}
    (one,) = teacher_runs(drawn, split_of(run))
    assert {t.lr_scheduler for t in teacher_runs(one, split_of(run))} == {"linear"} == {one.lr_scheduler}


def test_a_bar_counts_the_teachers_too(run: Path) -> None:
    options = read_config(run, TrainConfig)
    steps = [RunFolder(folder).metrics()[-1]["step"] for folder in (run, *(run / TEACHERS).glob("teacher-*"))]
    assert latest_step(options) == sum(steps) > 6
    assert train_length(options) == pytest.approx(sum(steps), abs=options.num_teachers)


def test_every_weight_can_be_distilled(image_folder: Path, tmp_path: Path) -> None:
    """Full fine-tuning through the same teachers' answers."""
    wish = {**DISTILLED, "num_teachers": 2, "teacher_steps": 1, "max_train_steps": 2, "adaptation": "full"}
    full = train(short_config(image_folder, tmp_path / "full", **wish, checkpointing_steps=2), progress=False)
    assert read_config(full / TEACHERS / "teacher-1", TrainConfig).max_train_steps == 1
    assert RunFolder(full).done


def test_options_that_do_not_fit(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    for given, words in (
        (["--objective", "distill_lora", "--num_teachers", "1"], "--num_teachers got 1"),
        (["--objective", "distill_lora", "--num_teachers", "500"], "allowed: 2 to "),
        (["--objective", "distill_lora", "--hessian_steps", "5"], "needs --hessian_steps 0"),
        (["--objective", "lora", "--num_teachers", "4"], "--num_teachers is of --objective distill_lora"),
        (["--objective", "smp_lora", "--teacher_steps", "4"], "--teacher_steps is of --objective distill_lora"),
    ):
        assert main([*command, *given]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
