"""Instance prompts and prior preservation, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import short_config
from smplora.cli.main import main
from smplora.core.files import BUNDLED_FOLDER
from smplora.core.reading import read_json
from smplora.data.cells import take
from smplora.experiments.tasks import train
from smplora.models.adapted import Adapted
from smplora.models.diffusion import adaptation_loss
from smplora.models.load import load_model
from smplora.runs.subject import load_subject
from smplora.training.batches import training_draw
from smplora.training.prior_preservation import FOLDER, prior_cell

CPU = torch.device("cpu")
CLASS: dict[str, Any] = {
    "with_prior_preservation": True, "class_prompt": "a handwritten digit", "num_class_images": 3,
    "sample_batch_size": 2,
}  # fmt: skip


def small(pictures: Path, output: Path, **changes: Any) -> Any:
    settings = {"aux_size": 2, "train_batch_size": 2, "max_train_steps": 1, "logging_steps": 1, "objective": "lora"}
    return short_config(pictures, output, **{**settings, **changes})


def test_class_images_are_the_base_models_and_weigh_what_was_asked(noise_folder: Path, tmp_path: Path) -> None:
    runs = {
        weight: train(small(noise_folder, tmp_path / str(weight), prior_loss_weight=weight, **CLASS), progress=False)
        for weight in (0.0, 0.5)
    }
    images = sorted((runs[0.5] / FOLDER).iterdir())
    assert [p.name for p in images] == ["class-00000.png", "class-00001.png", "class-00002.png"]
    assert (runs[0.5] / FOLDER).stat().st_mode & 0o777 == 0o700
    contents = [p.read_bytes() for p in images]
    assert contents == [p.read_bytes() for p in sorted((runs[0.0] / FOLDER).iterdir())]
    assert len(set(contents)) == 3

    # the loss of the first step, by hand
    config = small(noise_folder, runs[0.5], **CLASS)
    model = load_model(str(BUNDLED_FOLDER), CPU)
    loaded = load_subject(str(runs[0.5]), None, "cpu")
    images[2].unlink()
    cell = prior_cell(config, runs[0.5], config.seed, 1.0, Adapted(model), loaded.prepared, None, False)
    assert images[2].read_bytes() == contents[2]  # drawn again, the same
    batch = take(cell, 2, 0, config.seed, "class images")
    draw = training_draw(batch, model.num_train_timesteps, config.seed, "class images", 0)
    with torch.no_grad():
        prior = float(adaptation_loss(model.error_maps(batch, draw)).mean())
    losses = {w: json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"] for w, run in runs.items()}
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * prior, rel=1e-4)
    plain = train(small(noise_folder, tmp_path / "plain"), progress=False)
    same = (runs[0.0] / "pytorch_lora_weights.safetensors").read_bytes()
    assert (plain / "pytorch_lora_weights.safetensors").read_bytes() == same


def test_own_images_of_the_class(noise_folder: Path, tmp_path: Path) -> None:
    """They count, and only what is missing is drawn."""
    own = tmp_path / "own"
    own.mkdir()
    rng = np.random.default_rng(1)
    for k in range(2):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(own / f"a{k}.jpg")
    train(small(noise_folder, tmp_path / "run", class_data_dir=str(own), **CLASS), progress=False)
    assert sorted(p.name for p in own.iterdir()) == ["a0.jpg", "a1.jpg", "class-00002.png"]
    assert not (tmp_path / "run" / FOLDER).exists()


def test_the_instance_prompt_is_told_everywhere_and_leaves_the_seal(noise_folder: Path, tmp_path: Path) -> None:
    run = train(small(noise_folder, tmp_path / "run", instance_prompt="sks {caption} in ink"), progress=False)
    split = load_subject(str(run), None, "cpu").split
    for cell in split.cells.values():
        assert all(s.caption.startswith("sks picture ") and s.caption.endswith(" in ink") for s in cell)
    assert split.seal == read_json(run / "split.json")["seal"]
    assert train(small(noise_folder, tmp_path / "run", instance_prompt="sks {caption} in ink"), progress=False) == run


def test_an_instance_prompt_does_without_captions(noise_folder: Path, tmp_path: Path) -> None:
    for sidecar in noise_folder.glob("*.txt"):
        sidecar.unlink()
    config = small(noise_folder, tmp_path / "run", instance_prompt="a photo of sks noise")
    loaded = load_subject(str(train(config, progress=False)), None, "cpu")
    assert {s.caption for s in loaded.split.train} == {"a photo of sks noise"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--adaptation", "dreambooth"], "--class_prompt is missing: give what the images show"),
        (["--class_prompt", "a dog", "--num_class_images", "5"],
         "--class_prompt, --num_class_images: of --with_prior_preservation true; add it or leave them out"),
        (["--adaptation", "full", "--rank", "8", "--use_dora", "true"],
         "--rank, --use_dora: of --adaptation lora; leave out with --adaptation full"),
        (["--adaptation", "full", "--shard_base_model", "true"], "--shard_base_model splits frozen weights"),
        (["--instance_prompt", " "], "--instance_prompt got ' '"),
        (["--adaptation", "ful"], "--adaptation got 'ful' (did you mean 'full'?); allowed: lora, full, dreambooth"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(
    given: list[str], said: str, noise_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--train_data_dir", str(noise_folder), "--output_dir", str(tmp_path / "run")]
    assert main(["train", *output, *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
