"""A flow-matching transformer in one file, as ComfyUI has it, with the rest of its model in a folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import short_config
from flow_checkpoints import CHECKPOINTS
from smplora.cli.main import main
from smplora.core.console import forget_what_was_said
from smplora.core.errors import CheckpointError
from smplora.experiments.tasks import train
from smplora.models.load import load_model, usual_guidance
from smplora.runs.subject import load_subject

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
Tensors = dict[str, Tensor]


def z_image(tensors: Tensors) -> Tensors:
    """Its original names: queries, keys and values in one matrix."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        match = re.search(r"\.attention\.to_([qkv])\.weight$", name)
        if match and match[1] == "q":
            stem = name[: match.start()]
            parts = [tensors[f"{stem}.attention.to_{letter}.weight"] for letter in "qkv"]
            found[f"{stem}.attention.qkv.weight"] = torch.cat(parts)
        elif not match:
            for ours, theirs in (
                ("all_final_layer.2-1.", "final_layer."), ("all_x_embedder.2-1.", "x_embedder."), ("to_out.0.", "out."),
                ("norm_k.", "k_norm."), ("norm_q.", "q_norm."),
            ):  # fmt: skip
                name = name.replace(ours, theirs)
            found[name] = tensor
    return {f"model.diffusion_model.{name}": tensor for name, tensor in found.items()}


LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {"z_image": z_image, "qwen_image": dict}


@pytest.fixture(params=[*LAYOUTS])
def apart(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A whole model; its transformer in a file; all the rest of it."""
    whole = CHECKPOINTS[request.param](tmp_path / "whole")
    rest = Path(shutil.copytree(whole, tmp_path / "rest"))
    (rest / "transformer" / WEIGHTS).unlink()
    file = tmp_path / "transformer.safetensors"
    save_file(LAYOUTS[request.param](load_file(whole / "transformer" / WEIGHTS)), file)
    return whole, file, rest


def test_it_is_the_same_model(apart: tuple[Path, Path, Path]) -> None:
    whole, file, rest = apart
    one, other = load_model(str(whole), CPU), load_model(str(file), CPU, config=str(rest))
    assert one.digest == other.digest
    assert all(map(torch.equal, one.denoiser.state_dict().values(), other.denoiser.state_dict().values()))
    assert usual_guidance(str(file)) == 1.0


def test_it_is_trained_and_audited(apart: tuple[Path, Path, Path], image_folder: Path, tmp_path: Path) -> None:
    _, file, rest = apart
    base = {"pretrained_model_name_or_path": str(file), "model_config": str(rest), "resolution": 32}
    run = train(short_config(image_folder, tmp_path / "run", max_train_steps=1, **base), progress=False)
    assert load_subject(str(run), None, "cpu").model.family in LAYOUTS


def test_what_is_wrong_with_a_file(
    apart: tuple[Path, Path, Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not read is said, what is missing refused, and the way out is named."""
    _, file, rest = apart
    tensors = load_file(file)
    forget_what_was_said()
    save_file({**tensors, "text_encoders.big": torch.ones(1000)}, tmp_path / "more.safetensors")
    load_model(str(tmp_path / "more.safetensors"), CPU, config=str(rest))
    assert "also holds 1,000 numbers that are not the transformer's, which are not used" in capsys.readouterr().err
    save_file(dict([*tensors.items()][1:]), tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"less.safetensors', which lacks weights that"):
        load_model(str(tmp_path / "less.safetensors"), CPU, config=str(rest))
    eight = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}
    save_file(eight, tmp_path / "eight.safetensors")
    with pytest.raises(CheckpointError, match="has F8_E4M3 numbers; take the file in bf16, fp16 or fp32"):
        load_model(str(tmp_path / "eight.safetensors"), CPU, config=str(rest))
    words = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--aux_size", "10"]
    assert main(["train", *words, "--pretrained_model_name_or_path", str(file)]) == 2
    assert "--model_config names the diffusers folder with all its other parts" in capsys.readouterr().err
    other = json.loads((rest / "transformer" / "config.json").read_text())
    wider = "num_attention_heads" if "num_attention_heads" in other else "n_heads"
    layers = "num_layers" if "num_layers" in other else "n_layers"
    assert wider in other
    (rest / "transformer" / "config.json").write_text(json.dumps({**other, layers: other[layers] + 1}))
    with pytest.raises(CheckpointError, match=r"transformer.safetensors', which lacks weights that"):
        load_model(str(file), CPU, config=str(rest))
