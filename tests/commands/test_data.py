"""Images from anywhere, through the real commands: training, audit of a moved data set, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from small_networks import draw_little, learn_little
from smplora.attacks.views import GreyBox
from smplora.audit.signals import ATTACKED, Collector
from smplora.cli.main import main
from smplora.config.audit import AuditConfig
from smplora.config.catalogue.attacks import ATTACKS
from smplora.config.train import TrainConfig
from smplora.core.registry import build
from smplora.runs.folder import read_config
from smplora.runs.subject import load_subject

QUICK = ("--aux_size", "8", "--max_train_steps", "2", "--train_batch_size", "2", "--device", "cpu")


@pytest.fixture
def saved(image_folder: Path, tmp_path: Path) -> Path:
    """The image folder as a data set on disk."""
    datasets.disable_progress_bars()
    rows = [json.loads(line) for line in (image_folder / "metadata.jsonl").read_text().splitlines()]
    pictures = [Image.open(image_folder / row["file_name"]) for row in rows]
    datasets.Dataset.from_dict({"image": pictures, "text": [r["text"] for r in rows]}).save_to_disk(tmp_path / "set")
    return tmp_path / "set"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


def test_a_dataset_trains_what_the_folder_trains(saved: Path, image_folder: Path, tmp_path: Path) -> None:
    for name, source in (("a", ("--dataset_name", str(saved))), ("b", ("--train_data_dir", str(image_folder)))):
        assert main(["train", *source, *QUICK, "--output_dir", str(tmp_path / name)]) == 0
    done = [json.loads((tmp_path / name / "DONE.json").read_text()) for name in ("a", "b")]
    assert done[0] == done[1]
    assert read_config(tmp_path / "a", TrainConfig).dataset_name == str(saved)


def test_audit_of_a_dataset_that_moved(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "--dataset_name", str(saved), *QUICK, "--output_dir", run]) == 0
    audit = ("audit", "--adapter", run, "--attacks", "[loss]", "--num_timesteps", "1", "--device", "cpu")
    assert main([*audit]) == 0
    saved.rename(tmp_path / "moved")
    assert "nor a data set in the local cache" in refused(capsys, *audit)
    assert main([*audit, "--dataset_name", str(tmp_path / "moved")]) == 0


def test_bad_input_of_sources(
    saved: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = ("--output_dir", str(tmp_path / "run"))
    both = ("--dataset_name", str(saved), "--train_data_dir", str(image_folder))
    assert "both given; give one" in refused(capsys, "train", *both, *output)
    assert "has the columns image, text" in refused(capsys, "split", *both[:2], "--image_column", "picture", *output)
    monkeypatch.setattr("smplora.data.table.find_spec", lambda name: None)
    assert "pip install smplora[datasets]" in refused(capsys, "train", *both[:2], *output)
    assert not (tmp_path / "run").exists()


VARIED = (
    *("--enable_bucket", "--bucket_reso_steps", "8", "--random_crop", "--num_crops", "2", "--random_flip"),
    *("--augmentation", "randaugment", "--num_augmentations", "2"),
    *("--shuffle_caption", "--keep_tokens", "1", "--caption_dropout_rate", "0.2"),
)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """24 pictures of four sizes with tags."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(24):
        height, width = ((40, 40), (40, 56), (64, 32), (36, 60))[k % 4]
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{k:02d}.png")
        (folder / f"{k:02d}.txt").write_text(f"noise, number {k}, grey, small")
    return folder


def test_images_of_several_shapes(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, resumed exactly, audited whatever the batch size; every option of the preparation is on."""
    learn_little(monkeypatch)
    draw_little(monkeypatch)
    run = tmp_path / "run"
    arguments = ("--train_data_dir", str(shapes), "--objective", "smp_lora", "--aux_size", "4", "--seed", "3")
    sizes = ("--train_batch_size", "2", "--max_train_steps", "6", "--checkpointing_steps", "3", "--device", "cpu")
    assert main(["train", *arguments, *sizes, *VARIED, "--output_dir", str(run)]) == 0
    finished = json.loads((run / "DONE.json").read_text())
    assert main(["train", "--config", str(run / "config.yaml"), "--resume_from_checkpoint", "checkpoint-3"]) == 0
    assert json.loads((run / "DONE.json").read_text()) == finished
    scores = []
    for batch_size in ("64", "1"):
        where = tmp_path / f"audit{batch_size}"
        quick = ("--num_timesteps", "1", "--noise_pairs", "1", "--error_map_draws", "1", "--batch_size", batch_size)
        quick += ("--cache_latents_to_disk", "false")  # measured each time
        attacks = ("--attacks", "[error_map, loss]", "--device", "cpu")
        assert main(["audit", "--adapter", str(run), *quick, *attacks, "--output_dir", str(where)]) == 0
        scores.append(np.load(where / "scores.npz"))
    for name in ("loss/test", "error_map/test"):
        np.testing.assert_allclose(scores[0][name], scores[1][name], atol=1e-4)
    few = ("--num_images", "20", "--num_inference_steps", "1", "--device", "cpu")
    assert main(["evaluate", "--adapter", str(run), *few]) == 0


def test_audits_keep_the_order_of_the_cells(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals of images of several shapes, put back in the order of the split."""
    draw_little(monkeypatch)
    run = tmp_path / "run"
    sizes = ("--train_batch_size", "2", "--max_train_steps", "1", "--device", "cpu", "--aux_size", "4")
    assert main(["train", "--train_data_dir", str(shapes), *sizes, *VARIED, "--output_dir", str(run)]) == 0
    loaded = load_subject(str(run), None, "cpu")
    config = AuditConfig(num_timesteps=1, noise_pairs=1, error_map_draws=1, batch_size=2)
    names = ("loss", "error_map", "secmi", "secmi_network", "pfami")
    attacks = {name: build(ATTACKS, name, "attacks", config) for name in names}
    signals = Collector(loaded, config.seed, config.batch_size).signals(attacks, ATTACKED)
    assert all(len(signals[name, cell]) == 4 for name in names for cell in ("aux_member", "test_member"))
    for cell in ("aux_member", "test_nonmember"):
        for place, sample in enumerate(loaded.split.cells[cell]):
            alone = next(b for b in loaded.encode(cell).split(1) if b.digests == (sample.digest,))
            expected = attacks["loss"].signals(GreyBox(loaded.adapted, alone, 0))[0]
            np.testing.assert_allclose(signals["loss", cell][place], expected, rtol=1e-4)


def test_one_bucket_trains_what_the_square_trains(image_folder: Path, tmp_path: Path) -> None:
    for name, more in (("a", ()), ("b", ("--enable_bucket", "--bucket_reso_steps", "8"))):
        arguments = ("--train_data_dir", str(image_folder), *QUICK, "--objective", "smp_lora", *more)
        assert main(["train", *arguments, "--output_dir", str(tmp_path / name)]) == 0
    done = [json.loads((tmp_path / name / "DONE.json").read_text()) for name in ("a", "b")]
    assert done[0] == done[1]


def test_cached_latents_train_what_fresh_ones_train(image_folder: Path, tmp_path: Path) -> None:
    arguments = ("--train_data_dir", str(image_folder), *QUICK, "--random_flip")
    for name, more in (("a", ("--cache_latents_to_disk", "false")), ("b", ()), ("c", ())):
        where = ("--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / name))
        assert main(["train", *arguments, *where, *more]) == 0
        assert (tmp_path / "cache").exists() == (name != "a")
    done = [json.loads((tmp_path / name / "DONE.json").read_text()) for name in "abc"]
    assert done[0] == done[1] == done[2]


def test_bad_input_of_preparation(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"))
    for arguments, message in (
        (("--center_crop", "--random_crop"), "--center_crop and --random_crop exclude each other"),
        (("--num_crops", "0"), "--num_crops got 0; allowed: 1 or more"),
        (("--num_augmentations", "0"), "--num_augmentations got 0; allowed: 1 or more"),
        (("--caption_dropout_rate", "1.5"), "--caption_dropout_rate got 1.5; allowed: 1 or less"),
        (("--bucket_reso_steps", "30"), "--bucket_reso_steps got 30; allowed: multiples of 8"),
        (("--enable_bucket",), "--bucket_reso_steps got 64; allowed: at most --resolution, which is 32"),
        (("--random_crops", "true"), "did you mean 'random_crop'?"),
    ):
        assert message in refused(capsys, *common, *arguments)
    assert not (tmp_path / "run").exists()
