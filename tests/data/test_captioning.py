"""smplora caption: writes what is missing, changes nothing that is there; with a small random BLIP."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from smplora.cli.main import main
from smplora.config.caption import CaptionConfig
from smplora.config.data import DataOptions
from smplora.data.captioning import load_captioner
from smplora.data.pool import open_source, read_samples

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["[DEC]", "a", "photo", "of", "red", "cat", "dog", "two", "on", "grass"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer each, random weights; it never says the marks, so that every picture gets words."""
    folder = tmp_path_factory.mktemp("blip")
    vocabulary = {word: i for i, word in enumerate(MARKS + WORDS)}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **small, "vocab_size": len(vocabulary), "encoder_hidden_size": 16, "max_position_embeddings": 32,
        "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=16)
    )
    bias = model.text_decoder.cls.predictions.bias
    bias.data[: len(MARKS) + 1] = -100
    model.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, extra_special_tokens=["[DEC]"]).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def bare(noise_folder: Path) -> Path:
    """12 pictures; the captions of three of them are there."""
    for k in range(3, 12):
        (noise_folder / f"p{k:02d}.txt").unlink()
    return noise_folder


def arguments(folder: Path, blip: Path, *more: str) -> list[str]:
    common = ["--caption_model", str(blip), "--max_new_tokens", "6", "--batch_size", "4", "--device", "cpu"]
    return ["caption", "--train_data_dir", str(folder), *common, *more]


def test_missing_captions_are_written(bare: Path, blip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.read_bytes() for p in bare.iterdir()}
    assert main(arguments(bare, blip, "--json")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"folder": str(bare), "written": 9, "kept": 3}
    assert "9 captions written, 3 were there" in err
    assert all((bare / name).read_bytes() == content for name, content in before.items())
    samples = read_samples(open_source(DataOptions(train_data_dir=str(bare))))
    assert all(set(s.caption.split()) <= set(WORDS) for s in samples[3:])
    assert stat.S_IMODE((bare / "p03.txt").stat().st_mode) == 0o600
    again = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in bare.iterdir()}
    assert main(arguments(bare, blip)) == 0
    assert again == {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in bare.iterdir()}


def test_captions_are_those_of_blip_itself(bare: Path, blip: Path) -> None:
    """One picture through the library's own calls."""
    assert main(arguments(bare, blip, "--num_beams", "2")) == 0
    model = BlipForConditionalGeneration.from_pretrained(blip)
    pixels = BlipImageProcessorPil.from_pretrained(blip)(Image.open(bare / "p07.png"), return_tensors="pt").pixel_values
    tokens = model.generate(pixel_values=pixels, max_new_tokens=6, num_beams=2)
    words = BertTokenizer.from_pretrained(blip).decode(tokens[0], skip_special_tokens=True)
    assert (bare / "p07.txt").read_text() == words + "\n"


def test_a_prefix_begins_every_caption(blip: Path) -> None:
    config = CaptionConfig(caption_model=str(blip), caption_prefix="a photo of", max_new_tokens=4)
    captions = load_captioner(config, torch.device("cpu"))([Image.new("RGB", (40, 30), c) for c in ("red", "blue")])
    assert all(text.startswith("a photo of ") and len(text.split()) > 3 for text in captions)


def test_into_the_table(bare: Path, blip: Path) -> None:
    rows = [{"file_name": "p03.png", "text": "mine"}, {"file_name": "p04.png", "note": "kept"}]
    (bare / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    assert main(arguments(bare, blip, "--caption_format", "metadata")) == 0
    assert not (bare / "p05.txt").exists()
    lines = [json.loads(line) for line in (bare / "metadata.jsonl").read_text().splitlines()]
    assert lines[0] == rows[0]
    assert lines[1].keys() == {"file_name", "note", "text"}
    assert [row["file_name"] for row in lines] == [f"p{k:02d}.png" for k in range(3, 12)]
    assert len(read_samples(open_source(DataOptions(train_data_dir=str(bare))))) == 12


def test_bad_input(bare: Path, blip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(bare, tmp_path / "nowhere")) == 2
    err = capsys.readouterr().err
    assert "--caption_model got" in err
    assert "--allow_download fetches it" in err
    assert err.count("\n") == 1
    assert main(arguments(tmp_path / "nowhere", blip)) == 2
    assert "which is not a folder" in capsys.readouterr().err
    assert main(arguments(bare, blip, "--num_beams", "0")) == 2
    assert "--num_beams got 0; allowed: 1 or more" in capsys.readouterr().err
    (bare / "p05.png").write_bytes(b"no picture")
    assert main(arguments(bare, blip)) == 2
    assert "images that were not captioned: p05.png: not a readable image" in capsys.readouterr().err
    assert (bare / "p06.txt").exists()
    assert not (bare / "p05.txt").exists()
