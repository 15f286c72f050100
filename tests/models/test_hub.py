"""A base model is fetched when that is asked for, and never otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smplora.cli.main import main
from smplora.config.train import TrainConfig
from smplora.core.errors import CheckpointError
from smplora.core.files import BUNDLED_FOLDER
from smplora.runs.base_model import fetch_model


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("diffusers.DiffusionPipeline.download", lambda name, **how: calls.append((name, how)))
    return calls


def options(name: str, **more: Any) -> TrainConfig:
    return TrainConfig(pretrained_model_name_or_path=name, allow_download=True, **more)


def test_a_hub_id_is_fetched_without_pickles_and_unused_parts(fetched: list[tuple[str, dict[str, Any]]]) -> None:
    fetch_model(options("user/model", revision="main", variant="fp16"))
    ((name, how),) = fetched
    assert name == "user/model"
    assert (how["revision"], how["variant"], how["use_safetensors"]) == ("main", "fp16", True)
    assert how["safety_checker"] is None


def test_what_is_here_is_not_fetched(fetched: list[tuple[str, dict[str, Any]]]) -> None:
    for name in ("tiny", str(BUNDLED_FOLDER), "/somewhere/model.safetensors"):
        fetch_model(options(name))
    fetch_model(TrainConfig(pretrained_model_name_or_path="user/model"))
    assert not fetched


def test_through_the_command(
    fetched: list[tuple[str, dict[str, Any]]], noise_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--train_data_dir", str(noise_folder), "--output_dir", str(tmp_path / "run"), "--device", "cpu"]
    command += ["--aux_size", "2", "--pretrained_model_name_or_path", "nobody/nothing-here"]
    assert main(command) == 2
    assert "(--allow_download fetches one)" in capsys.readouterr().err
    assert not fetched
    assert main([*command, "--allow_download"]) == 2  # the stand-in brings nothing
    assert [name for name, _ in fetched] == ["nobody/nothing-here"]
    assert "fetching nobody/nothing-here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **how: Any) -> None:
        raise OSError(f"{name} is no repository\nand more lines")

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", fail)
    with pytest.raises(CheckpointError, match=r"--allow_download: 'a/b' could not be fetched .* is no repository$"):
        fetch_model(options("a/b"))
