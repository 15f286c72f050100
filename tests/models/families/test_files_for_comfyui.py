"""Files of flow-matching adapters for ComfyUI, which reads no header: alphas and magnitudes are tensors, under the
names that its maps of all families have (docs/log/2026-11-30-comfyui-names-of-flows.md)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flow_checkpoints import CHECKPOINTS, z_image
from smplora.adapters.files.read import read_adapter
from smplora.adapters.files.write import (
    ADAPTER_FILE,
    KOHYA_FILE,
    AdapterFacts,
    LoraSettings,
    kohya_bytes,
    needs_kohya,
)
from smplora.adapters.foreign.attach import attach_file
from smplora.adapters.lora import LoRAAdaptation
from smplora.cli.main import main
from smplora.models.load import load_model

CPU = torch.device("cpu")
RANK, ALPHA = 2, 3.0


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("family", CHECKPOINTS)
def test_names_and_effect(family: str, use_dora: bool, tmp_path: Path) -> None:
    """Three tensors a layer, four with DoRA, which make the same model."""
    folder = str(CHECKPOINTS[family](tmp_path / "model"))
    model, other = load_model(folder, CPU), load_model(folder, CPU)
    ends = model.lora_targets["all"]
    linear = (torch.nn.Linear,)
    layers = [n for n, m in model.denoiser.named_modules() if n.endswith(ends) and isinstance(m, linear)]
    told, latents = model.encode_captions(["a digit"], 32), torch.randn(1, model.latent_channels, 4, 4)
    ask: Any = (latents, torch.tensor([500]), told)
    adaptation = LoRAAdaptation(rank=RANK, lora_alpha=ALPHA, lora_targets="all", use_dora=use_dora)
    with torch.no_grad():
        base = model.predict(*ask)
        for parameter in adaptation.attach(model)["transformer"]:
            parameter += torch.randn_like(parameter) * 0.1
        settings = LoraSettings(RANK, ALPHA, ends, use_dora=use_dora)
        content = kohya_bytes(
            adaptation.state_dict(model), {"transformer": settings}, AdapterFacts("lora", model.family, 32)
        )
        (tmp_path / KOHYA_FILE).write_bytes(content)
        file = read_adapter(tmp_path / KOHYA_FILE, 0, transformer=True, convert=other.converted_adapter)
        attach_file(file, tmp_path / KOHYA_FILE, other, folder)
        ours, theirs = model.predict(*ask), other.predict(*ask)
    assert (ours - base).norm() > 1e-3
    assert (theirs - ours).norm() / (ours - base).norm() < 1e-5
    tensors = load_file(tmp_path / KOHYA_FILE)
    parts = ("lora_down.weight", "lora_up.weight", "alpha", *["dora_scale"] * use_dora)
    assert tensors.keys() == {f"transformer.{layer}.{part}" for layer in layers for part in parts}
    for name, tensor in tensors.items():
        if name.endswith(".alpha"):
            assert tensor == ALPHA
        elif name.endswith(".dora_scale"):
            assert tensor.shape == (len(tensors[name.replace("dora_scale", "lora_up.weight")]), 1)


@pytest.mark.parametrize(
    ("changed", "needed"),
    [({}, False), ({"alpha": 1.0}, True), ({"use_dora": True}, True), ({"use_rslora": True}, True)],
)
def test_where_it_would_be_the_same_there_is_none(changed: dict[str, Any], needed: bool) -> None:
    settings = LoraSettings(**{"rank": 4, "alpha": 4.0, "targets": ("to_q",), **changed})
    assert needs_kohya({"transformer": settings}) == needed
    assert needs_kohya({"unet": settings}), "it has other names there"


def test_train_and_export_write_it(image_folder: Path, tmp_path: Path) -> None:
    base = ["--pretrained_model_name_or_path", str(z_image(tmp_path / "model")), "--resolution", "32"]
    words = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--aux_size", "10"]
    few = ["--max_train_steps", "1", "--monitor_steps", "0", "--validation_steps", "0", "--device", "cpu"]
    assert main(["train", *base, *words, *few, "--rank", "2", "--lora_alpha", "3"]) == 0
    before = (tmp_path / "run" / KOHYA_FILE).read_bytes()
    assert main(["export", "--adapter", str(tmp_path / "run"), "--output_dir", str(tmp_path / "public")]) == 0
    assert (tmp_path / "public" / KOHYA_FILE).read_bytes() == before
    (tmp_path / "run" / KOHYA_FILE).unlink()
    shutil.rmtree(tmp_path / "public")
    assert main(["export", "--adapter", str(tmp_path / "run"), "--output_dir", str(tmp_path / "public")]) == 0
    assert (tmp_path / "public" / KOHYA_FILE).read_bytes() == before
    assert KOHYA_FILE in (tmp_path / "public" / "README.md").read_text()
    assert (tmp_path / "public" / ADAPTER_FILE).exists()
