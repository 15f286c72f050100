"""Options that one kind of model has and the other has not are refused, before anything is trained."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from flow_checkpoints import z_image
from smplora.cli.main import main
from smplora.core.errors import CheckpointError
from smplora.models.load import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return z_image(tmp_path_factory.mktemp("flow") / "model")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--snr_gamma", "5"], "--snr_gamma is not of flow matching"),
        (["--prediction_type", "epsilon"], "--prediction_type is not of flow matching"),
        (["--weighting_scheme", "mode", "--mode_scale", "50"], "--mode_scale got 50.0; allowed: 1.75 or less"),
        (["--adaptation", "textual_inversion", "--initializer_token", "a"], "textual_inversion is not there yet"),
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


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"shift": -2.0}, "gives noise levels that do not fall from 1 to nearly 0 (shift -2.0"),
        ({"invert_sigmas": True}, "invert_sigmas True); restore the model's own"),
        ({"_class_name": "DDIMScheduler"}, "allowed: FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_schedule_that_cannot_be(model: Path, tmp_path: Path, changed: dict[str, object], told: str) -> None:
    """It would train and audit on other noise than it says, without a word."""
    copy = shutil.copytree(model, tmp_path / "model")
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(CheckpointError, match=re.escape(told)):
        load_model(str(copy), torch.device("cpu"))


def test_another_chat_is_another_model(model: Path, tmp_path: Path) -> None:
    """Captions become other tokens."""
    copy = shutil.copytree(model, tmp_path / "model")
    template = copy / "tokenizer" / "chat_template.jinja"
    template.write_text(f"Listen: {template.read_text()}")
    first, second = (load_model(str(folder), torch.device("cpu")).digest for folder in (model, copy))
    assert first != second


def test_a_tokenizer_that_knows_more_than_its_encoder(model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    copy = shutil.copytree(model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(copy / "tokenizer")
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(copy / "tokenizer")
    with pytest.raises(CheckpointError, match="whose tokenizer/ makes ids up to"):
        load_model(str(copy), torch.device("cpu"))
