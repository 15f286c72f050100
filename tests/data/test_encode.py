"""What a cell holds after encoding: every variant is the latents of that picture, every wording the embedding of that
caption, and SDXL is told the true sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from checkpoints import build
from smplora.config.data import DataOptions, PreparationOptions
from smplora.data.cells import Cell, take
from smplora.data.encode import encode
from smplora.data.pictures import load_pixels
from smplora.data.pool import open_source, read_samples
from smplora.data.prepare import preparation, size_numbers
from smplora.models.diffusion import LatentDiffusion
from smplora.models.load import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sizes, with tags."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k, (height, width) in enumerate(((40, 50), (32, 32), (64, 30))):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"{['cat', 'dog', 'owl'][k]}, red, two")
    return folder


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load_model(str(build("sdxl", tmp_path_factory.mktemp("sdxl"))), CPU)


def encoded(model: LatentDiffusion, folder: Path, **options: object) -> Cell:
    source = open_source(DataOptions(train_data_dir=str(folder)))
    return encode(model, source, read_samples(source), preparation(PreparationOptions(**options), 32))


def test_mirrored_variants_are_mirrored_pictures(pictures: Path) -> None:
    model = load_model("tiny", CPU)
    cell = encoded(model, pictures, random_flip=True)
    (group,) = cell.groups
    for k in range(3):
        mirrored = ImageOps.mirror(ImageOps.fit(Image.open(pictures / f"{k}.png"), (32, 32), Image.Resampling.BICUBIC))
        mean, _ = model.encode_images(load_pixels([mirrored], 32))
        torch.testing.assert_close(group.mean[group.variants[k][1]], mean[0], atol=1e-4, rtol=1e-4)


def test_wordings_are_embeddings_of_the_captions(pictures: Path) -> None:
    model = load_model("tiny", CPU)
    cell = encoded(model, pictures, shuffle_caption=True, caption_dropout_rate=0.5)
    prepared = preparation(PreparationOptions(shuffle_caption=True), 32)
    (group,) = cell.groups
    for k, name in enumerate(("cat", "dog", "owl")):
        wordings = prepared.reworded(f"{name}, red, two")
        told = model.encode_captions(wordings, 32)["encoder_hidden_states"]
        assert len(wordings) > 1
        torch.testing.assert_close(cell.texts["encoder_hidden_states"][list(group.wordings[k])], told)
    empty = model.text.empty(1, 32)["encoder_hidden_states"]
    torch.testing.assert_close(cell.texts["encoder_hidden_states"][[cell.empty]], empty)


def test_sdxl_is_told_the_true_sizes(pictures: Path, sdxl: LatentDiffusion) -> None:
    options = {"enable_bucket": True, "bucket_reso_steps": 8, "random_crop": True, "random_flip": True}
    cell = encoded(sdxl, pictures, **options)
    prepared = preparation(PreparationOptions(**options), 32)
    samples = read_samples(open_source(DataOptions(train_data_dir=str(pictures))))
    assert len(cell.groups) == 2
    for group in cell.groups:
        for place, variants in zip(group.places, group.variants, strict=True):
            numbers = [size_numbers(samples[place], framing) for framing in prepared.framings(samples[place])]
            assert len({tuple(n) for n in numbers}) > 1 or samples[place].size == (32, 32)
            assert group.conditioning["time_ids"][list(variants)].tolist() == numbers
    first = next(batch for batch in cell.split(1) if batch.digests == (samples[0].digest,))
    assert first.conditioning["time_ids"][0, :2].tolist() == [40, 50]


def test_dropped_captions_of_sdxl_keep_their_sizes(pictures: Path, sdxl: LatentDiffusion) -> None:
    cell = encoded(sdxl, pictures, caption_dropout_rate=1.0)
    batch = take(cell, 3, 0, 0, "train")
    empty = sdxl.text.empty(3, 32)
    for name in ("encoder_hidden_states", "text_embeds"):
        torch.testing.assert_close(batch.conditioning[name], empty[name])
    assert sorted(batch.conditioning["time_ids"][:, 0].tolist()) == [32, 40, 64]
