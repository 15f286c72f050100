"""Validity gates through the real command: members from another source make an audit invalid, with exit status 3."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import short_config
from smplora.audit import gates
from smplora.audit.gates import blind_features, latent_features
from smplora.audit.signals import ATTACKED
from smplora.cli.main import main
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.split import Split, write_split
from smplora.experiments.tasks import train
from toys import toy_batch, toy_cell


def shifted_run(root: Path, brighter: int, prefix: str = "", twins: bool = False) -> Path:
    """A run whose 30 members are images brighter by so much than the 30 non-members; 4 more for reference. ``prefix``
    stands before the captions of members; with ``twins`` the first non-member is nearly the first member."""
    folder, rng, first = root / "images", np.random.default_rng(0), np.zeros(())
    folder.mkdir(parents=True)
    for k in range(64):
        pixels = rng.integers(0, 150, (32, 32, 3)) + brighter * (k < 30)
        first = pixels if k == 0 else first
        pixels = first + (first < 149) if twins and k == 30 else pixels
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k:02d}.png")
        (folder / f"{k:02d}.txt").write_text(f"{prefix * (k < 30)}picture {rng.integers(5)}")
    config = short_config(folder, root / "run", objective="lora", max_train_steps=2, checkpointing_steps=2)
    samples = sorted(read_samples(open_source(config)), key=lambda s: s.file)
    parts = np.split(np.arange(64), [15, 30, 45, 60])
    names = ("aux_member", "test_member", "aux_nonmember", "test_nonmember", "reference")
    cells = {name: tuple(samples[i] for i in part) for name, part in zip(names, parts, strict=True)}
    manifest = write_split(Split("fixed", 0, cells), root)
    return train(
        short_config(
            folder, root / "run", objective="lora", max_train_steps=2, checkpointing_steps=2, aux_size=None,
            split_manifest=str(manifest),
        ),
        progress=False,
    )  # fmt: skip


QUICK = ("--attacks", "[calibrated_loss]", "--num_timesteps", "2", "--noise_pairs", "1")


def test_members_from_another_source_make_the_audit_invalid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shifted_run(tmp_path, brighter=60)
    assert main(["audit", "--adapter", str(run), *QUICK, "--json"]) == 3
    out, err = capsys.readouterr()
    content = json.loads(out)  # written and printed nevertheless
    assert content == json.loads((run / "audit" / "audit.json").read_text())
    assert content["verdict"]["level"] == "invalid"
    assert content["gates"]["passed"] is False
    failed = {check["name"] for check in content["gates"]["checks"] if check["passed"] is False}
    assert "image_statistics" in failed
    assert "captions" not in failed
    assert "smplora: Invalid audit: image statistics alone can tell members from non-members: AUC" in err
    assert any("members and non-members differ in red" in note for note in content["gates"]["notes"])
    assert main(["report", "--runs", f"[{run}]", "--output", str(tmp_path / "page.html")]) == 0
    assert "Invalid audit" in (tmp_path / "page.html").read_text()


def test_the_owner_is_told_which_phrases_and_files_and_the_result_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shifted_run(tmp_path, brighter=0, prefix="zebulon ", twins=True)
    assert main(["audit", "--adapter", str(run), *QUICK]) == 3
    err = capsys.readouterr().err
    assert "phrases that are more frequent among members or non-members: 'zebulon'" in err
    assert "nearly the same, aux_member and aux_nonmember: '00.png' and '30.png'" in err
    written = (run / "audit" / "audit.json").read_text()
    assert "zebulon" not in written
    assert ".png" not in written
    checks = {check["name"]: check for check in json.loads(written)["gates"]["checks"]}
    assert "differ in a phrase of the captions: 1 against 0 on average" in checks["captions"]["sentence"]
    assert "1 in aux_member and aux_nonmember; leave out one image" in checks["near_duplicates"]["sentence"]


def test_one_source_passes(tmp_path: Path) -> None:
    run = shifted_run(tmp_path, brighter=0)
    assert main(["audit", "--adapter", str(run), *QUICK]) == 0
    gates = json.loads((run / "audit" / "audit.json").read_text())["gates"]
    assert gates["passed"] is True
    assert [check["name"] for check in gates["checks"]] == [
        "image_statistics", "image_features", "captions", "near_duplicates", "base_model", "shuffled_labels"
    ]  # fmt: skip
    assert any(note.startswith("small cells: with 15 test members") for note in gates["notes"])


def test_what_images_look_like_to_what_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 64 pixels the base model's VAE, in the order of the images; an encoder where one is given."""
    batch = toy_batch(6, seed=0)
    cell = toy_cell(batch)
    moved = replace(cell, groups=(replace(cell.groups[0], places=(3, 0, 1, 2, 5, 4)),))
    wide = [batch.mean[k].reshape(4, -1).numpy() for k in (1, 2, 3, 0, 5, 4)]
    size = batch.mean.shape[-1] // 4
    pooled = [
        [latents.reshape(batch.mean.shape[1:])[:, i * size : (i + 1) * size, j * size : (j + 1) * size].mean((1, 2))
         for i in range(4) for j in range(4)]
        for latents in wide
    ]  # fmt: skip
    expected = np.array([np.stack(rows, 1).ravel() for rows in pooled])
    np.testing.assert_allclose(latent_features(moved), expected, rtol=1e-5)

    picture = Image.fromarray(np.arange(96 * 96 * 3, dtype=np.uint32).astype(np.uint8).reshape(96, 96, 3))
    sample = Sample("a.png", "a picture", "digest")
    cells = dict.fromkeys(ATTACKED, (sample,) * 2)
    loaded: Any = SimpleNamespace(
        split=Split("fixed", 0, cells | {"reference": ()}), resolution=96, model=SimpleNamespace(digest="base"),
        source=SimpleNamespace(read=lambda name: picture), encode=lambda name: toy_cell(toy_batch(2, 0)),
    )  # fmt: skip
    assert blind_features(loaded, "tiny", "cpu").features_from == "the base model's VAE"
    encoder = SimpleNamespace(embedding=lambda pixels: torch.full((len(pixels), 5), pixels.mean()))
    monkeypatch.setattr(gates, "load_encoder", lambda name, device: encoder)
    found = blind_features(loaded, "some/encoder", "cpu")
    assert found.features_from == "--attack_encoder"
    assert found.features.shape == (8, 5)
    loaded.resolution = 64
    assert blind_features(loaded, "tiny", "cpu").features_from == "the bundled extractor"
