"""Image folders: what is read, and one message for everything that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smplora.config.data import DataOptions
from smplora.core.errors import DataError
from smplora.data.pictures import Framing, frame, read_image
from smplora.data.pool import Sample, open_source, read_samples


def samples_of(folder: Path, **more: str) -> list[Sample]:
    return read_samples(open_source(DataOptions(train_data_dir=str(folder), **more)))


def test_captions_from_sidecars(noise_folder: Path) -> None:
    samples = samples_of(noise_folder)
    assert [s.file for s in samples] == [f"p{k:02d}.png" for k in range(12)]
    assert samples[3].caption == "picture 3"
    assert len({s.digest for s in samples}) == 12


def test_captions_from_metadata_win_over_sidecars(noise_folder: Path) -> None:
    (noise_folder / "metadata.jsonl").write_text(json.dumps({"file_name": "p00.png", "text": "from the table"}))
    assert [s.caption for s in samples_of(noise_folder)[:2]] == ["from the table", "picture 1"]


def test_caption_column(noise_folder: Path) -> None:
    (noise_folder / "metadata.jsonl").write_text(json.dumps({"file_name": "p00.png", "blip": "by BLIP", "text": "x"}))
    assert samples_of(noise_folder, caption_column="blip")[0].caption == "by BLIP"


def test_default_caption_fills_gaps_only(noise_folder: Path) -> None:
    (noise_folder / "p01.txt").unlink()
    captions = [s.caption for s in samples_of(noise_folder, default_caption="a thing")]
    assert captions[:2] == ["picture 0", "a thing"]


def test_all_bad_images_are_in_one_message(noise_folder: Path) -> None:
    (noise_folder / "p00.png").write_bytes(b"no image")
    (noise_folder / "p01.png").write_bytes(b"")
    (noise_folder / "p02.txt").unlink()
    Image.open(noise_folder / "p03.png").save(noise_folder / "copy.bmp")
    (noise_folder / "copy.txt").write_text("the same pixels in another format")
    content = (noise_folder / "p05.png").read_bytes()
    (noise_folder / "p05.png").write_bytes(content[: len(content) // 2])
    (noise_folder / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "x"}\nnot json\n')
    with pytest.raises(DataError) as error:
        samples_of(noise_folder)
    message = str(error.value)
    for part in (
        "7 problems",
        "p00.png: not a readable image",
        "p01.png: empty file",
        "p02.png: no caption",
        "p03.png: the same picture as copy.bmp",
        "p05.png: not a readable image",
        "line 1: no image 'gone.png'",
        "line 2: not an object",
        "--default_caption",
    ):
        assert part in message


def test_captions_must_be_utf8(noise_folder: Path) -> None:
    (noise_folder / "p03.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match=r"p03\.txt: line 1: not UTF-8"):
        samples_of(noise_folder)
    (noise_folder / "p03.txt").write_bytes("\ufeffcafé".encode())
    assert samples_of(noise_folder)[3].caption == "café"
    (noise_folder / "metadata.jsonl").write_bytes('{"file_name": "p00.png", "text": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"metadata\.jsonl: line 1: not UTF-8"):
        samples_of(noise_folder)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        samples_of(tmp_path)


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        samples_of(tmp_path / "nowhere")


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.tif"
    size = (8, 8)
    picture = (
        Image.fromarray(np.full(size, 40000, np.uint16))
        if mode == "I;16"
        else Image.new("RGB", size, (255, 0, 0)).convert(mode)
    )
    picture.save(path)
    assert read_image(path).mode == "RGB"


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    seen = np.asarray(read_image(tmp_path / "x.png"))[..., 0].reshape(-1)
    np.testing.assert_allclose(seen, ramp.reshape(-1) / 257, atol=1)


def test_transparency_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png")).min() == 255


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 4)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (4, 10)


def test_pixels_are_the_centre_in_minus_one_to_one(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "x.png")
    x = frame(read_image(tmp_path / "x.png"), Framing(10, 10))
    assert x.shape == (3, 10, 10)
    assert torch.equal(x, torch.ones_like(x))
