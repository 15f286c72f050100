"""Synth-LoRA: whom the teachers saw, what they drew, and that the published adapter learns from nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.audit.property_inference.references import trainer
from smplora.audit.shadow_plan import plan_shadows
from smplora.cli.main import main
from smplora.config.audit import AuditConfig
from smplora.config.properties import PropertiesConfig
from smplora.config.train import TrainConfig
from smplora.core.console import forget_what_was_said
from smplora.core.errors import CheckpointError, ConfigError, UserError
from smplora.core.random_streams import stream_seed
from smplora.core.reading import read_json
from smplora.data.pool import open_source, read_samples
from smplora.data.split import MANIFEST, Split, read_split
from smplora.experiments.tasks import train
from smplora.runs.base_model import load_base
from smplora.runs.folder import CONFIG, DONE, PRIVACY, RunFolder, read_config
from smplora.runs.subject import load_subject
from smplora.training.distributed import make_accelerator
from smplora.training.resolve import load_split, resolved
from smplora.training.reuse import latest_step, train_length
from smplora.training.setup import prepare
from smplora.training.synthesis import FOLDER, TABLE, captions_to_draw, draw_images, recombined, unbalanced
from smplora.training.teachers import TEACHERS, TRAINED

DRAWN: dict[str, Any] = {
    "objective": "synth_lora", "synthetic_teachers": 2, "num_synthetic_images": 11, "synthetic_inference_steps": 2,
    "sample_batch_size": 3, "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(short_config(image_folder, tmp_path_factory.mktemp("drawn") / "run", **DRAWN), progress=False)


@pytest.fixture
def unfinished(run: Path, tmp_path: Path) -> Iterator[Path]:
    """The run, where its teachers expect it, before its first step; it is put back afterwards."""
    kept = shutil.copytree(run, tmp_path / "kept")
    for gone in (DONE, ADAPTER_FILE):
        (run / gone).unlink()
    shutil.rmtree(run / "checkpoints")
    yield run
    shutil.rmtree(run)
    shutil.copytree(kept, run)


def split_of(run: Path) -> Split:
    return read_split(run / MANIFEST, read_samples(open_source(read_config(run, TrainConfig))))


def rows_of(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / FOLDER / TABLE).read_text().splitlines()]


def trained_digests(run: Path) -> set[str]:
    cells = read_json(run / MANIFEST)["cells"]
    return {row["digest"] for cell in TRAINED for row in cells[cell]}


def test_teachers_share_the_images(run: Path) -> None:
    """Each has its own, and together they have all."""
    one, other = (trained_digests(run / TEACHERS / f"teacher-{k}") for k in range(2))
    assert one.isdisjoint(other)
    assert one | other == trained_digests(run)
    assert abs(len(one) - len(other)) <= 1


def test_images_are_what_the_teachers_draw_one_at_a_time(run: Path) -> None:
    """By each teacher loaded as an adapter of its own, in turn, by the training captions in turn."""
    captions, rows = captions_to_draw(read_config(run, TrainConfig), split_of(run)), rows_of(run)
    assert [row["text"] for row in rows] == captions
    for k in range(2):
        teacher = load_subject(str(run / TEACHERS / f"teacher-{k}"), None, "cpu").model
        for i in range(k, 11, 2):
            alone = teacher.generate(
                [captions[i]], [stream_seed(0, "synthetic image", i)], resolution=teacher.resolution,
                num_inference_steps=2, guidance_scale=1.0,
            )  # fmt: skip
            drawn = np.asarray(Image.open(run / FOLDER / rows[i]["file_name"]), dtype=float)
            assert np.abs(drawn - alone[0].permute(1, 2, 0).numpy() * 255).max() <= 1


def test_the_adapter_sees_drawn_images_only(run: Path) -> None:
    config, cpu = read_config(run, TrainConfig), torch.device("cpu")
    setup = prepare(config, load_base(config, cpu), split_of(run), make_accelerator(cpu))
    seen = {digest for step in range(6) for batch, _ in setup.feed.adapter(step) for digest in batch.digests}
    assert seen == {row["digest"] for row in rows_of(run)}
    assert seen.isdisjoint(trained_digests(run))


def test_what_is_published_depends_on_the_drawn_images_alone(unfinished: Path, tmp_path: Path) -> None:
    """Teachers that know other things, beside the same drawn images, give the same file."""
    before = (tmp_path / "kept" / ADAPTER_FILE).read_bytes()
    one, other = (unfinished / TEACHERS / f"teacher-{k}" / ADAPTER_FILE for k in range(2))
    assert one.read_bytes() != other.read_bytes()
    shutil.copy(one, other)
    (other.parent / DONE).write_text((one.parent / DONE).read_text())
    train(read_config(unfinished, TrainConfig), progress=False)
    assert (unfinished / ADAPTER_FILE).read_bytes() == before


def test_a_run_killed_while_drawing_goes_on(unfinished: Path, tmp_path: Path) -> None:
    before = tmp_path / "kept"
    files = unfinished / FOLDER
    for gone in (TABLE, "000002.png", "000005.png"):
        (files / gone).unlink()
    written = (files / "000004.png").stat().st_mtime_ns
    train(read_config(unfinished, TrainConfig), progress=False)
    assert rows_of(unfinished) == rows_of(before)
    assert (files / "000004.png").stat().st_mtime_ns == written
    assert (unfinished / ADAPTER_FILE).read_bytes() == (before / ADAPTER_FILE).read_bytes()


@pytest.mark.parametrize("harm", ["another", "gone", "table"])
def test_images_that_are_not_what_was_drawn(unfinished: Path, harm: str) -> None:
    files = unfinished / FOLDER
    if harm == "another":
        shutil.copy(files / "000001.png", files / "000000.png")
    elif harm == "gone":
        (files / "000000.png").unlink()
    else:
        (files / TABLE).write_text('{"file_name": "000000.png"')
    with pytest.raises(CheckpointError, match="delete the folder, and its images are drawn again"):
        train(read_config(unfinished, TrainConfig), progress=False)


def test_a_bar_counts_teachers_and_drawing_too(run: Path) -> None:
    options = read_config(run, TrainConfig)
    steps = [RunFolder(folder).metrics()[-1]["step"] for folder in (run, *(run / TEACHERS).glob("teacher-*"))]
    assert latest_step(options) == sum(steps) + round(11 * 2 / (3 * 4))
    assert train_length(options) == pytest.approx(latest_step(options), abs=2)


def test_a_bar_reads_while_checkpoints_come_and_go(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at no folder that a run writes and renames."""
    looked, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(str(path)) or scandir(path))
    assert latest_step(read_config(run, TrainConfig)) > 6
    assert looked, "nothing was listed, so that this test shows nothing"
    assert [path for path in looked if "checkpoints" in path] == []


def test_what_is_nearest_to_a_training_image_is_left_out(run: Path, image_folder: Path, tmp_path: Path) -> None:
    """A training image among the drawn ones, and nothing else."""
    other = shutil.copytree(run, tmp_path / "run")
    (other / FOLDER / TABLE).unlink()
    split = split_of(run)
    shutil.copy(image_folder / split.train[3].file, other / FOLDER / "000007.png")
    config = replace(read_config(run, TrainConfig), output_dir=str(other), drop_nearest=1 / 11)
    draw_images(config, split, make_accelerator(torch.device("cpu")), show=False)
    assert [row["file_name"] for row in rows_of(other)] == [f"{i:06d}.png" for i in range(11) if i != 7]
    assert not (other / FOLDER / "000007.png").exists()


def test_balance_of_distances() -> None:
    """So many go that the rest could be by chance, those in the smallest ratio; none where nothing is known."""
    held_out = torch.from_numpy(np.random.default_rng(0).random(1000))
    for images, others in ((200, 200), (200, 50), (30, 300)):
        fair = int(1000 * images / (images + others))
        for nearer in (fair, fair + 100):
            ratios = torch.cat([torch.linspace(0.5, 0.9, nearer), torch.full([1000 - nearer], 1.1)])
            gone = unbalanced(ratios * held_out, held_out, images, others)
            assert gone == set(range(len(gone))), "the smallest ratios"
            shares = [(nearer - k) / (1000 - k) for k in (len(gone), len(gone) - 1)]
            assert shares[0] <= images / (images + others)
            assert shares[1] > images / (images + others) or not gone, "as few as will do"
    equal = torch.tensor([0.0, 0.5, 0.5, 0.5]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    assert unbalanced(*equal, 1, 1) == {1, 2}, "an image that equals one of each kind tells nothing"
    assert unbalanced(torch.zeros(4), torch.ones(4), 1, 1) == {0, 1}, "two are always left"


def test_held_out_images_choose_among_drawn_ones(
    run: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Copies of training images go; quality leaves the images out that chose; shadows have them, and the training does
    not begin without any."""
    other, split = shutil.copytree(run, tmp_path / "run"), split_of(run)
    (other / FOLDER / TABLE).unlink()
    for k in range(6):
        shutil.copy(image_folder / split.train[k].file, other / FOLDER / f"{k:06d}.png")
    config = replace(read_config(run, TrainConfig), output_dir=str(other), drop_nearest="balanced")
    (other / CONFIG).write_text((other / CONFIG).read_text().replace("drop_nearest: 0.0", "drop_nearest: balanced"))
    draw_images(config, split, make_accelerator(torch.device("cpu")), show=True)
    assert "drawn images lie nearer to a training image than" in capsys.readouterr().err
    left = {row["file_name"] for row in rows_of(other)}
    assert len(left) < 11
    gone = {f"{k:06d}.png" for k in range(11)} - left
    assert gone <= {f"{k:06d}.png" for k in range(6)}, "the copies are what goes first"
    loaded = load_subject(str(other), None, "cpu")
    chose, others = loaded.split.choosers, loaded.split.cells["reference"]
    assert chose
    assert {s.digest for s in chose + others} == {s.digest for s in split.cells["reference"]}
    plan = plan_shadows(AuditConfig(adapter=str(other), shadows=4), loaded, tmp_path / "audit")
    assert {s.digest for s in plan.shadows[1].split.cells["reference"]} == {s.digest for s in chose}
    properties = trainer(PropertiesConfig(adapter=str(other)), loaded, tmp_path / "properties").of_sizes([4])
    assert {s.digest for s in properties[0].shadow.split.cells["reference"]} == {s.digest for s in chose}
    moved = {**split.cells, "test_nonmember": split.cells["reference"], "reference": split.cells["test_nonmember"]}
    left = replace(split, cells=moved).without_choosers(split)
    assert {s.digest for s in left.cells["test_nonmember"]} == {s.digest for s in others}, (
        "wherever a manifest has them"
    )
    (other / FOLDER / TABLE).unlink()
    for k in range(11):
        shutil.copy(image_folder / split.train[k].file, other / FOLDER / f"{k:06d}.png")
    monkeypatch.setattr("smplora.training.synthesis.LEAST_KEPT", 0.5)
    with pytest.raises(ConfigError, match="nearly all lie nearer to a training image"):
        draw_images(config, split, make_accelerator(torch.device("cpu")), show=False)
    few = short_config(image_folder, tmp_path / "few", **{**DRAWN, "drop_nearest": "balanced"}, reference_size=9)
    with pytest.raises(ConfigError, match="needs 30 held-out images or more, and has"):
        train(few, progress=False)


def test_captions(run: Path, image_folder: Path, tmp_path: Path) -> None:
    """In turn with all that an image has; their tags mixed; one's own; as the model knows them."""
    split, config = split_of(run), read_config(run, TrainConfig)
    more = replace(split.train[0], more_captions=("another",))
    two = Split("fixed", 0, {"aux_member": (more,), "test_member": (split.train[1],)})
    asked = replace(config, num_synthetic_images=4, instance_prompt="sks {caption}")
    drawn = captions_to_draw(asked, two)
    assert set(drawn[:2]) == {f"sks {s.caption}" for s in split.train[:2]}
    assert drawn[2:] == ["sks another", drawn[0]]
    file = tmp_path / "captions.txt"
    file.write_text("a one\n\n  a two \n")
    assert captions_to_draw(replace(asked, synthetic_captions=str(file), instance_prompt=None), two) == [
        "a one", "a two", "a one", "a two",
    ]  # fmt: skip
    tags = ["a, red", "b, green", "plain"]
    mixed = recombined(tags, 300, seed=0)
    assert set(mixed[::3]) == {f"{a}, {c}" for a in ("a", "b", "plain") for c in ("red", "green")}
    assert set(mixed[2::3]) == {"a", "b", "plain"}
    assert recombined(tags, 300, seed=0) == mixed != recombined(tags, 300, seed=1)
    assert recombined(["one", "one"], 3, seed=0) == ["one"] * 3


def test_captions_that_are_not_drawn_are_counted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_what_was_said()
    captions_to_draw(replace(read_config(run, TrainConfig), num_synthetic_images=11), split_of(run))
    assert "--num_synthetic_images 11: so many of the 20 captions are drawn" in capsys.readouterr().err


def test_no_cell_comes_first(run: Path) -> None:
    """Of a few drawn images as many show what aux members show as what test members do."""
    split = split_of(run)
    named = {cell: tuple(replace(s, caption=cell) for s in split.cells[cell]) for cell in TRAINED}
    config = replace(read_config(run, TrainConfig), num_synthetic_images=10)
    seen = [captions_to_draw(replace(config, seed=seed), replace(split, cells=named)) for seed in range(20)]
    assert sum(words.count("aux_member") for words in seen) == pytest.approx(100, abs=25)


def test_captions_that_changed_while_drawing(unfinished: Path, tmp_path: Path) -> None:
    """They would no longer be those of the images that are there."""
    (unfinished / FOLDER / TABLE).unlink()
    config = read_config(unfinished, TrainConfig)
    file = tmp_path / "captions.txt"
    file.write_text("another caption")
    with pytest.raises(ConfigError, match="is not what it was when the drawing began"):
        draw_images(
            replace(config, synthetic_captions=str(file)),
            split_of(unfinished),
            make_accelerator(torch.device("cpu")),
            False,
        )


def test_shadows_have_teachers_like_the_adapters(run: Path) -> None:
    """Also of a checkpoint, whose teachers were not stopped with it."""
    for adapter in (run, run / "checkpoints" / "checkpoint-3"):
        loaded = load_subject(str(adapter), None, "cpu")
        config = AuditConfig(adapter=str(adapter), shadows=4, output_dir=str(run.parent / f"audit of {adapter.name}"))
        shadow = plan_shadows(config, loaded, run.parent / f"audit of {adapter.name}").shadows[0].options
        assert (shadow.max_train_steps, shadow.teacher_steps) == (3 if adapter != run else 6, 3)
        assert shadow.num_synthetic_images == 11


def test_a_teachers_guarantee_is_the_adapters(image_folder: Path, tmp_path: Path) -> None:
    """However long the adapter learns: what it learns from was drawn already."""
    pytest.importorskip("opacus")
    captions = tmp_path / "captions.txt"
    captions.write_text("a handwritten six\na handwritten nine\n")
    private = {
        **DRAWN, "synthetic_teachers": 1, "teacher_objective": "dp_lora", "noise_multiplier": 2.0, "teacher_steps": 2,
        "max_train_steps": 8, "synthetic_captions": str(captions), "num_synthetic_images": 6, "rank": 2,
    }  # fmt: skip
    found = train(short_config(image_folder, tmp_path / "run", **private), progress=False)
    promise = read_json(found / PRIVACY)
    assert promise == read_json(found / TEACHERS / "teacher-0" / PRIVACY)
    assert promise["steps"] == 2
    assert "differentially private" in (found / "README.md").read_text()
    assert {row["text"] for row in rows_of(found)} == {"a handwritten six", "a handwritten nine"}


def test_the_noise_on_the_weights(image_folder: Path, tmp_path: Path) -> None:
    """Relative to each tensor, another in each run, the same after resuming; training goes on without it."""
    plain: dict[str, Any] = {"objective": "lora", "max_train_steps": 3}
    clean = load_file(train(short_config(image_folder, tmp_path / "clean", **plain), progress=False) / ADAPTER_FILE)
    noised = []
    for name in ("one", "other"):
        noise = short_config(image_folder, tmp_path / name, **plain, weight_noise=0.1)
        folder = train(noise, progress=False)
        noised.append(load_file(folder / ADAPTER_FILE))
        assert (folder / "noise_seed").stat().st_mode & 0o077 == 0
    shares = [
        float((tensor - clean[name]).square().mean().sqrt() / clean[name].square().mean().sqrt())
        for of_one in noised
        for name, tensor in of_one.items()
    ]
    assert np.mean(shares) == pytest.approx(0.1, rel=0.02)
    name = max(clean, key=lambda n: clean[n].numel())
    drawn = [(of_one[name] - clean[name]).flatten() for of_one in noised]
    assert abs(float(torch.corrcoef(torch.stack(drawn))[0, 1])) < 0.3
    longer = {**plain, "max_train_steps": 6, "checkpointing_steps": 3, "weight_noise": 0.1}
    whole = train(short_config(image_folder, tmp_path / "longer", **longer), progress=False)
    before = (whole / ADAPTER_FILE).read_bytes()
    again = short_config(image_folder, whole, **longer, resume_from_checkpoint="checkpoint-3")
    train(again, progress=False)
    assert (whole / ADAPTER_FILE).read_bytes() == before


def test_defaults(image_folder: Path, tmp_path: Path) -> None:
    config = short_config(image_folder, tmp_path / "run", objective="synth_lora")
    model = load_base(config, torch.device("cpu"))
    split = load_split(config, tmp_path / "run" / MANIFEST)
    known = resolved(config, model, split)
    assert (known.num_synthetic_images, known.synthetic_guidance_scale) == (5 * len(split.train), 1.0)


def test_options_that_do_not_fit(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    (tmp_path / "empty.txt").write_text("\n \n")
    synthetic = ["--objective", "synth_lora"]
    private = [*synthetic, "--teacher_objective", "dp_lora", "--target_epsilon", "8"]
    for given, words in (
        (["--drop_nearest", "0.1"], "--drop_nearest is of --objective synth_lora; leave it out with lora"),
        (["--teacher_steps", "4"], "--teacher_steps is of --objective distill_lora and synth_lora"),
        ([*synthetic, "--num_teachers", "3"], "--num_teachers is of --objective distill_lora"),
        ([*synthetic, "--num_synthetic_images", "1"], "--num_synthetic_images got 1; allowed: 2 or more"),
        ([*synthetic, "--synthetic_teachers", "500"], "--synthetic_teachers got 500; allowed: 1 to "),
        ([*synthetic, "--synthetic_captions", "training2"], "not a file; allowed: 'training', 'recombined' or"),
        ([*synthetic, "--synthetic_captions", str(tmp_path / "empty.txt")], "which has no captions"),
        ([*synthetic, "--synthetic_inference_steps", "1001"], "--synthetic_inference_steps got 1001"),
        ([*synthetic, "--synthetic_sampler", "dpmsolver++", "--synthetic_inference_steps", "200"], "dpmsolver++: 100"),
        ([*synthetic, "--drop_nearest", "most"], "--drop_nearest got 'most'; allowed: a number or balanced"),
        ([*synthetic, "--drop_nearest", "0.95"], "--drop_nearest got 0.95; allowed: 0.9 or less"),
        ([*synthetic, "--target_epsilon", "8"], "--target_epsilon is of --objective dp_lora"),
        (private, "--teacher_objective dp_lora needs --synthetic_captions FILE"),
        ([*private, "--drop_nearest", "0.1"], "--teacher_objective dp_lora needs --drop_nearest 0"),
        ([*synthetic, "--teacher_objective", "synth_lora"], "--teacher_objective"),
        (
            [*synthetic, "--instance_prompt", "a sks", "--synthetic_captions", "recombined"],
            "--instance_prompt 'a sks' has no place for a caption",
        ),
        (["--weight_noise=-1"], "--weight_noise got -1.0; allowed: 0 or more"),
    ):  # fmt: skip
        assert main([*command, *given]) == 2, given
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_caption_file_that_is_gone_does_not_keep_a_run_from_being_read(run: Path, tmp_path: Path) -> None:
    """Its name stays in config.yaml; what was drawn is in the table."""
    other = shutil.copytree(run, tmp_path / "run")
    text = (other / CONFIG).read_text().replace("synthetic_captions: training", "synthetic_captions: /gone.txt")
    (other / CONFIG).write_text(text)
    assert read_config(other, TrainConfig).synthetic_captions == "/gone.txt"
    with pytest.raises(UserError):
        captions_to_draw(read_config(other, TrainConfig), split_of(run))
