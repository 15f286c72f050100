"""smplora evaluate through the command: features of several kinds, images that are kept, what is refused."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from encoder_folders import saved, saved_clip
from said import complaint
from smplora.cli.main import main
from smplora.config.evaluate import EvaluateConfig
from smplora.core.cache import Cache
from smplora.models.diffusion import LatentDiffusion
from smplora.runs.generate import Images, generate
from smplora.runs.other_trainers import load_any
from smplora.runs.subject import Loaded

FEW: dict[str, Any] = {"num_images": 20, "num_inference_steps": 1, "device": "cpu"}
CAPTIONS = ["a handwritten five", "a handwritten six"] * 5


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the images that are generated."""
    seeds: list[int] = []
    real = LatentDiffusion.generate

    def counted(self: LatentDiffusion, captions: Any, given: Any, **options: Any) -> torch.Tensor:
        images = real(self, captions, given, **options)
        seeds.extend(given)
        return images

    monkeypatch.setattr(LatentDiffusion, "generate", counted)
    return seeds


@pytest.fixture(scope="module")
def loaded(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    config = EvaluateConfig(adapter=str(trained_run), device="cpu")
    return load_any(config, Cache(tmp_path_factory.mktemp("cache")))


def test_images_are_drawn_once_for_all_features(
    trained_run: Path, tmp_path: Path, drawn: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Other features use those that are there, and numbers are the same to the last digit. Refused numbers are said
    aloud; folders on this machine are named nowhere."""
    clip, dino = tmp_path / "my clip", tmp_path / "my dino"
    saved_clip(clip)
    saved("dino", dino)
    results = []
    features = f"[tiny, 'clip={clip}', 'dinov2={dino}']"
    for name, more in (("one", []), ("two", ["--features", features, "--clip_score_model", str(clip)])):
        command = ["evaluate", "--adapter", str(trained_run), "--cache_dir", str(tmp_path / "cache"), "--device", "cpu"]
        command += [
            "--num_images",
            "20",
            "--num_inference_steps",
            "1",
            "--seed",
            "100",
            "--batch_size",
            str(9 + len(more)),
        ]
        assert main([*command, "--output_dir", str(tmp_path / name), *more]) == 0
        assert sorted(drawn) == list(range(100, 120))
        results.append(json.loads((tmp_path / name / "quality.json").read_text()))
    first, second = results
    assert second["against"] == first["against"]
    assert second["nearest"] == first["nearest"]
    assert (tmp_path / "one" / "samples.png").read_bytes() == (tmp_path / "two" / "samples.png").read_bytes()
    assert "20 images, 64 features; use KID, or 69 images in both sets" in capsys.readouterr().err
    assert second["features"] == ["tiny", "clip", "dinov2"]
    assert second["others"]["clip"]["dimensions"] == 12
    assert second["others"]["clip"]["against"]["train"]["cmmd"]["value"] is not None
    assert "cmmd" not in second["others"]["dinov2"]["against"]["held_out"]
    assert second["others"]["dinov2"]["nearest"]["ratio"]["value"] > 0
    for name in ("generated", "held_out"):
        score = second["clip_score"][name]
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 100
    assert "my " not in (tmp_path / "two" / "quality.json").read_text()
    assert stat.S_IMODE((tmp_path / "cache" / "encoded").stat().st_mode) == 0o700


def generated(loaded: Loaded, captions: Sequence[str], config: EvaluateConfig) -> Images:
    return generate(
        loaded,
        captions,
        range(config.seed, config.seed + len(captions)),
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        batch_size=config.batch_size,
        progress=False,
    )


def test_a_killed_evaluation_goes_on_where_it_was(
    loaded: Loaded, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(**FEW, seed=300, batch_size=4)
    counted = LatentDiffusion.generate

    def killed(self: LatentDiffusion, captions: Any, given: Any, **options: Any) -> torch.Tensor:
        if drawn:
            raise KeyboardInterrupt
        return counted(self, captions, given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LatentDiffusion, "generate", killed)
        with pytest.raises(KeyboardInterrupt):
            generated(loaded, CAPTIONS, config)
    assert drawn == list(range(300, 304))
    resumed = generated(loaded, CAPTIONS, config)
    assert drawn == list(range(300, 310))
    straight = generated(replace(loaded, cache=None), CAPTIONS, config)
    assert drawn[10:] == list(range(300, 310))
    torch.testing.assert_close(resumed[:], straight[:])
    more = generated(loaded, [*CAPTIONS, "a handwritten nine"], config)
    assert drawn[20:] == [310]
    assert torch.equal(more[:10], resumed[:])


@pytest.mark.parametrize(
    "changed", ["nothing", "adapter", "model", "caption", "guidance_scale", "num_inference_steps", "seed"]
)
def test_images_of_others_are_never_used(changed: str, loaded: Loaded, drawn: list[int]) -> None:
    config, captions, other = EvaluateConfig(**FEW, seed=500), CAPTIONS[:2], loaded
    generated(loaded, captions, config)
    drawn.clear()
    options = {"guidance_scale": 2.0, "num_inference_steps": 2, "seed": 700}
    if changed in options:
        config = replace(config, **{changed: options[changed]})
    elif changed == "adapter":
        other = replace(loaded, adapter_sha256="another")
    elif changed == "model":
        model = replace(loaded.model, digest="another")
        other = replace(loaded, adapted=replace(loaded.adapted, model=model))
    elif changed == "caption":
        captions = ["another", "and another"]
    generated(other, captions, config)
    assert len(drawn) == (0 if changed == "nothing" else 2)


def test_large_images_are_kept_as_png_files_hold_them() -> None:
    images = Images([torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)] * 3)
    assert images[1:].shape == (2, 3, 1, 1)
    torch.testing.assert_close(images[:1].flatten(), torch.tensor([0, 0.2, 1]))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--features", "[dino]"], "--features got 'dino' (did you mean 'dinov2'?); allowed: tiny, inception-768"),
        (["--features", "[]"], "--features got none"),
        (["--features", "[tiny, tiny]"], "--features got 'tiny' twice"),
        (["--features", "[tiny=x]"], "leave out what follows it"),
        (["--features", "[clip=]"], "nothing follows the ="),
        (["--features", "[inception-768]"], "give inception-768=FILE.safetensors"),
        (["--features", "[inception-2048=nowhere.safetensors]"], "there is no such file"),
        (["--features", "[inception-768=weights.pth]"], "pickles are not read"),
        (["--features", "[dinov2]"], "--allow_download fetches it"),
        (["--features", "[dinov2]", "--allow_download"], "'facebook/dinov2-large'"),
        (["--clip_score_model", "nobody/nothing"], "--clip_score_model got 'nobody/nothing'"),
    ],
)
def test_features_that_are_not_there(
    options: list[str], reason: str, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: Any
) -> None:
    """One line, before anything is generated or written."""
    command = ["evaluate", "--adapter", str(trained_run), "--device", "cpu", "--output_dir", str(tmp_path / "quality")]
    assert main([*command, *options]) == 2
    message = complaint(capsys.readouterr().err)
    assert reason in message
    assert message.count("\n") == 1
    assert not drawn
    assert not (tmp_path / "quality" / "quality.json").exists()
