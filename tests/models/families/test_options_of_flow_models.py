"""Options that one kind of model has and the other has not are refused, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_checkpoints import z_image
from smplora.cli.main import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return z_image(tmp_path_factory.mktemp("flow") / "model")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--snr_gamma", "5"], "--snr_gamma is not of flow matching"),
        (["--prediction_type", "epsilon"], "--prediction_type is not of flow matching"),
        (["--adaptation", "full"], "--adaptation full is not there yet for flow matching"),
        (["--train_text_encoder", "true"], "--train_text_encoder true is not there yet for flow matching"),
        (["--clip_skip", "2"], "--clip_skip got 2, which is of CLIP"),
        (["--resolution", "36"], "--resolution got 36; allowed: multiples of 8"),
        (["--objective", "synth_lora", "--synthetic_sampler", "dpmsolver++"], "--synthetic_sampler dpmsolver++ is not"),
    ],
)
def test_options_of_other_models(
    model: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    command = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    base = ["--pretrained_model_name_or_path", str(model)]
    assert main([*command, *base, *words]) == 2
    assert told in capsys.readouterr().err
    assert main([*command, "--weighting_scheme", "mode"]) == 2
    assert "--weighting_scheme is of flow matching; 'tiny' predicts epsilon" in capsys.readouterr().err
