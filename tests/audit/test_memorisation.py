"""The search for copies: planted ones are found, others are not; and through the command, with its files and pages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from said import complaint
from smplora.audit.memorisation.search import choose, encoder_for, memorise
from smplora.cli.main import main
from smplora.cli.parse import parse
from smplora.config.memorisation import MemorisationOptions
from smplora.data.pool import Sample
from smplora.data.split import CELLS, Split
from smplora.models.diffusion import LatentDiffusion
from smplora.models.encoders.transformers import BUNDLED
from smplora.results.record import as_json
from smplora.runs.subject import Loaded
from toys import SHAPE, caption_of, toy_batch, toy_model

MEMBERS, EACH = 24, 12
CHEAP = ["--attacks", "[loss]", "--num_timesteps", "1", "--device", "cpu"]
MEMO = ["--memorisation", "--memorisation_images", "1", "--memorisation_steps", "2"]


def toy_subject(memorised: bool) -> Loaded:
    """A toy model that has either learned its training images by heart or nothing; every image has its own caption."""
    batch = toy_batch(2 * MEMBERS, seed=5)
    model = toy_model(batch.mean[:MEMBERS] if memorised else None, strength=1.0)
    pictures = (model.model.decode(batch.mean) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    files = {name: Image.fromarray(picture) for name, picture in zip(batch.digests, pictures, strict=True)}
    samples = [Sample(name, caption_of(name), name) for name in batch.digests]
    cells = {cell: tuple(samples[k * EACH : (k + 1) * EACH]) for k, cell in enumerate(CELLS)}
    config = SimpleNamespace(pretrained_model_name_or_path="toy", revision=None)
    subject: Any = SimpleNamespace(config=config, label="toy")
    source: Any = SimpleNamespace(read=files.__getitem__)
    return Loaded(subject, model, Split("fixed", 0, cells), source, 2 * SHAPE[-1], "sha256")


def search(memorised: bool, folder: Path, batch_size: int = 8) -> dict[str, Any]:
    options = MemorisationOptions(memorisation_images=2, memorisation_steps=20, memorisation_guidance=1.0)
    settings: dict[str, Any] = {"attack_encoder": BUNDLED, "device": "cpu", "seed": 0, "show": False}
    found = memorise(toy_subject(memorised), options, folder, batch_size=batch_size, **settings)
    content: dict[str, Any] = as_json(found)
    return content


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("copied")
    return search(True, folder), folder


def test_planted_copies_are_found(copied: tuple[dict[str, Any], Path]) -> None:
    """Every generation is the training image of its caption."""
    found, folder = copied
    assert found["found"] == "copies"
    assert found["sentence"].startswith("Copies training images: 24 of 24 training images")
    tiles = found["measures"][0]
    assert tiles["images"]["train"]["count"] == MEMBERS
    assert tiles["generations"]["train"]["count"] == 2 * MEMBERS
    assert tiles["nearer_test"]["nearer"]["value"] == 1
    assert tiles["nearest"]["train"]["median"] < 0.01 < 0.15 < tiles["nearest"]["held_out"]["smallest"]
    about = json.loads((folder / "memorised.json").read_text())
    assert all(pair["of_its_own_caption"] for pair in about["pairs"])
    assert {pair["train"]["file"] for pair in about["pairs"]} <= {f"5-{i}" for i in range(MEMBERS)}
    assert found["prompts"]["scores"]["adapter"]["auc"]["value"] == 1
    assert found["prompts"]["scores"]["base"]["auc"]["value"] == 0.5  # the toy's base model knows no caption


def test_the_gallery_shows_the_pair_and_the_control(copied: tuple[dict[str, Any], Path]) -> None:
    _, folder = copied
    about = json.loads((folder / "memorised.json").read_text())
    with Image.open(folder / "memorised.png") as grid:
        pixels = np.asarray(grid, dtype=int)
    rows = pixels.reshape(len(about["pairs"]), 128, 3, 128, 3).transpose(2, 0, 1, 3, 4)
    assert abs(rows[0] - rows[1]).max() <= 3  # generated, training image
    assert (abs(rows[0] - rows[2]).reshape(len(rows[0]), -1).max(1) > 30).all()  # held-out image


def test_where_nothing_was_learned_nothing_is_found(tmp_path: Path) -> None:
    found = search(False, tmp_path)
    assert found["found"] is None
    assert found["sentence"].startswith("No copying of training images found beyond what held-out images show: 0 of 24")
    assert found["prompts"]["scores"]["adapter"]["auc"]["value"] == 0.5


def test_the_result_does_not_depend_on_the_batch_size(copied: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    found = search(True, tmp_path, batch_size=7)
    for one, other in zip(found["measures"], copied[0]["measures"], strict=True):
        assert one["images"] == other["images"]
        assert one["nearest"]["held_out"] == pytest.approx(other["nearest"]["held_out"], abs=2e-3)
    adapter, other = (result["prompts"]["scores"]["adapter"] for result in (found, copied[0]))
    assert adapter["train"] == pytest.approx(other["train"], rel=1e-5)
    assert adapter["auc"] == other["auc"]


def test_both_sides_are_equally_large() -> None:
    """Held-out images are those that nothing has learned from; aux non-members only where there are too few others."""
    samples = [Sample(str(i), "", str(i)) for i in range(60)]

    def split(*sizes: int) -> Split:
        rest = iter(samples)
        return Split("fixed", 0, {c: tuple(next(rest) for _ in range(n)) for c, n in zip(CELLS, sizes, strict=True)})

    enough = split(5, 5, 10, 8, 20)
    sides = choose(enough, 0)
    assert len(sides.train) == len(sides.held_out) == 10
    assert sides.left_out == {"train": 0, "held_out": 18}
    assert not set(sides.held_out) & set(enough.cells["aux_nonmember"] + enough.train)
    assert sides != choose(enough, 1)
    few = split(10, 10, 6, 6, 0)
    sides = choose(few, 0)
    assert len(sides.train) == len(sides.held_out) == 12
    assert set(sides.held_out) == set(few.cells["aux_nonmember"] + few.cells["test_nonmember"])


def test_photographs_without_an_encoder() -> None:
    """The bundled one knows small digits: distances of pixels are measured all the same."""
    assert encoder_for(BUNDLED, 512, "cpu") is None
    assert encoder_for(BUNDLED, 32, "cpu") is not None


def test_through_the_command(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, pages, a second audit that generates nothing anew, and one that does not look for copies."""
    audit = ["audit", "--adapter", str(trained_run), "--output_dir", str(tmp_path / "audit"), *CHEAP]
    assert main([*audit, *MEMO]) == 0
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())["memorisation"]
    assert content["images"] == {"generated": 20, "train": 20, "held_out": 20}
    assert content["settings"] == {"images": 1, "steps": 2, "guidance": 1.0, "encoder": "tiny"}
    assert [m["name"] for m in content["measures"]] == ["tiles", "adaptive", "embedding"]
    assert content["prompts"]["captions"]["shared"] > 0
    assert content["sentence"] in capsys.readouterr().err
    written = (tmp_path / "audit" / "audit.json").read_text()
    assert "handwritten" not in written
    assert ".png" not in written
    pages = {}
    for name, more in (("private", []), ("shareable", ["--shareable"])):
        page = tmp_path / f"{name}.html"
        assert main(["report", "--runs", f"[{tmp_path / 'audit'}]", "--output", str(page), *more]) == 0
        pages[name] = page.read_text()
    assert "Nearest training image" in pages["private"]
    assert "handwritten" in pages["private"]
    for trace in ("data:image", "<img", "handwritten", ".png", "Nearest training image,"):
        assert trace not in pages["shareable"]
    for page in pages.values():
        assert "Copies of training images" in page
        assert "carlini2023extracting" in page

    def refuse(*_: Any, **__: Any) -> torch.Tensor:
        raise AssertionError("generated anew")

    monkeypatch.setattr(LatentDiffusion, "sample", refuse)
    assert main([*audit, *MEMO]) == 0
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["memorisation"] == content
    assert main(audit) == 0
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["memorisation"] is None
    assert not list((tmp_path / "audit").glob("memorised*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memorisation_images", "0"], "--memorisation_images got 0; allowed: 1 or more"),
        (["--memorisation_captions", "0"], "--memorisation_captions got 0; allowed: 1 or more"),
        (["--memorisation_steps", "1001"], "--memorisation_steps got 1001; allowed: 1000 at most"),
        (["--memorisation_guidance", "0.5"], "--memorisation_guidance got 0.5; allowed: 1 or more"),
        (["--memorisation", "--attack_encoder", "nobody/nothing"], "--attack_encoder got 'nobody/nothing'"),
    ],
)
def test_bad_input(
    options: list[str], message: str, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "--adapter", str(trained_run), "--output_dir", str(tmp_path / "audit"), *CHEAP]
    assert main([*command, *options]) == 2
    error = complaint(capsys.readouterr().err)
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "audit").exists()


def test_ready_scores_have_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.csv").write_text("member,score\n" + "\n".join(f"{i % 2},{i}" for i in range(12)))
    command = ["audit", "--signals", str(tmp_path / "s.csv"), "--output_dir", str(tmp_path / "out"), "--memorisation"]
    assert main(command) == 2
    assert "--memorisation: not with --signals" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "looks"),
    [
        ([], False),
        (["--tier", "strong"], True),
        (["--tier", "strong", "--memorisation", "false"], False),
        (["--tier", "strong", "--attacks", "[loss]"], False),
        (["--memorisation"], True),
    ],
)
def test_when_copies_are_looked_for(options: list[str], looks: bool) -> None:
    assert parse("audit", ["--adapter", "x", *options]).looks_for_copies is looks
