"""Images from anywhere, through the real commands: training, audit of a moved data set, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

from smplora.cli import main
from smplora.config import TrainConfig
from smplora.run import read_config

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
