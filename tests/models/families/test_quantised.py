"""A frozen transformer in 4 or 8 bits: against dequantised weights, trained, killed and resumed, audited as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from torch import nn

from conftest import short_config
from flow_checkpoints import CHECKPOINTS
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.adapters.lora import LoRAAdaptation
from smplora.cli.main import main
from smplora.experiments.tasks import train
from smplora.models.load import load_model
from smplora.runs.folder import DONE
from smplora.runs.subject import load_adapted, load_subject

CPU = torch.device("cpu")
BITS = ["8bit", "4bit"]


def rounded(layer: Any) -> torch.Tensor:
    """The weights that a quantised layer stands for."""
    if isinstance(layer, bitsandbytes.nn.Linear8bitLt):
        scales: torch.Tensor = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
        return layer.weight.data.float() * scales[:, None] / 127
    whole: torch.Tensor = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return whole.float()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("family", [*CHECKPOINTS])
def test_it_predicts_as_the_rounded_weights_do(family: str, bits: str, tmp_path: Path) -> None:
    """All linear layers, and nothing else, are rounded; what the model is called by is what is in the files."""
    folder = str(CHECKPOINTS[family](tmp_path / "model"))
    plain, quantised = load_model(folder, CPU), load_model(folder, CPU, quantize=bits)
    assert plain.digest == quantised.digest
    layers = dict(quantised.denoiser.named_modules())
    kind = {"8bit": bitsandbytes.nn.Linear8bitLt, "4bit": bitsandbytes.nn.Linear4bit}[bits]
    linear = [name for name, module in plain.denoiser.named_modules() if isinstance(module, nn.Linear)]
    assert {name for name, module in layers.items() if isinstance(module, kind)} == set(linear)
    size = 2 * plain.multiple
    noised = torch.randn(2, plain.latent_channels, size // plain.downsampling, size // plain.downsampling,
                         generator=torch.Generator().manual_seed(0))  # fmt: skip
    t, told = torch.tensor([100, 800]), plain.encode_captions(["a digit", "a house"], size)
    with torch.no_grad():
        before = plain.predict(noised, t, told)
        for name in linear:
            whole: Any = plain.denoiser.get_submodule(name)
            whole.weight.copy_(rounded(layers[name]))
        expected, found = plain.predict(noised, t, told), quantised.predict(noised, t, told)
    tolerance = 1e-4 if bits == "4bit" else 0.02  # with 8 bits what goes in is rounded too
    assert (found - expected).norm() < tolerance * expected.norm()
    assert (found - before).norm() > 1e-4 * before.norm()
    half = load_model(folder, CPU, dtype=torch.bfloat16, quantize=bits)
    LoRAAdaptation(rank=2, lora_targets="all").attach(half)
    assert half.dtype is torch.bfloat16, "what is computed in, whatever the adapter has"


@pytest.mark.parametrize("bits", BITS)
def test_a_run_resumes_and_its_adapter_is_audited(bits: str, image_folder: Path, tmp_path: Path) -> None:
    """On the base model as it is in its files, which is what people put the adapter on."""
    config = short_config(
        image_folder, tmp_path / "run", pretrained_model_name_or_path="tiny-flow", quantize=bits, objective="smp_lora",
        mixed_precision="bf16",
    )  # fmt: skip
    run = train(config, progress=False)
    once = (run / ADAPTER_FILE).read_bytes()
    for gone in (DONE, ADAPTER_FILE):
        (run / gone).unlink()
    shutil.rmtree(run / "checkpoints" / "checkpoint-6")
    train(config, progress=False)
    assert (run / ADAPTER_FILE).read_bytes() == once
    kinds = {type(module).__module__ for module in load_subject(str(run), None, "cpu").model.denoiser.modules()}
    assert not [kind for kind in kinds if "bnb" in kind or "bitsandbytes" in kind]


def test_teachers_draw_in_as_few_bits(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were trained: it would not fit otherwise."""
    loaded: list[Any] = []

    def remembered(*arguments: Any) -> Any:
        loaded.append(load_adapted(*arguments))
        return loaded[-1]

    monkeypatch.setattr("smplora.training.synthesis.load_adapted", remembered)
    drawn = {"objective": "synth_lora", "num_synthetic_images": 4, "synthetic_inference_steps": 1, "teacher_steps": 1}
    base = {"pretrained_model_name_or_path": "tiny-flow", "quantize": "4bit", "mixed_precision": "bf16"}
    train(short_config(image_folder, tmp_path / "run", **drawn, **base, max_train_steps=1), progress=False)
    (one,) = loaded
    assert one.model.dtype is torch.bfloat16
    assert any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in one.model.denoiser.modules())


def test_what_is_refused(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["train", "--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--aux_size", "10"]
    flow = ["--pretrained_model_name_or_path", "tiny-flow"]
    for words, said in (
        ([], "--quantize is of flow matching; 'tiny' predicts epsilon"),
        ([*flow, "--use_dora", "true"], "--quantize 4bit is for --adaptation lora without --use_dora"),
        ([*flow, "--adaptation", "full"], "--quantize 4bit is for --adaptation lora without --use_dora"),
    ):
        assert main([*common, "--quantize", "4bit", *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_the_library(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smplora.training.optimizers.find_spec", lambda name: None if name == "bitsandbytes" else name)
    words = ["--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--quantize", "8bit"]
    assert main(["train", *words]) == 2
    err = capsys.readouterr().err
    assert "--quantize got '8bit', which needs bitsandbytes: pip install smplora[bitsandbytes]" in err
