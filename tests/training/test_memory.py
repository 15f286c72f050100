"""What a training step takes, against what it really took; what is said when there was not enough."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flow_checkpoints import CHECKPOINTS
from smplora.adapters.lora import LoRAAdaptation
from smplora.cli.main import main
from smplora.core.errors import is_out_of_memory
from smplora.models.batch import Batch
from smplora.models.diffusion import LatentDiffusion
from smplora.models.flow import FlowMatching
from smplora.models.load import load_model
from smplora.models.text import configured
from smplora.training import memory
from smplora.training.memory import PeakMemory, step_bytes

CPU = torch.device("cpu")
CELLS = ["--aux_size", "2", "--test_size", "2"]
FULL_PRECISION = torch.autocast("cpu", enabled=False)


def test_peak_of_known_tensors() -> None:
    with PeakMemory() as memory_used:
        first = torch.zeros(1000)  # 4000 bytes
        second = first + 1  # 8000
        view = second[:10]
        del first
        third = torch.zeros(500) + view.sum()  # 4000 + 2000 + 4 + 2000
    assert memory_used.peak == 8004 + 0 * third.numel()
    assert memory_used.bytes == 6000


def test_a_step_without_memory_takes_what_a_step_with_memory_takes() -> None:
    model = load_model("tiny", CPU)
    parameters = LoRAAdaptation().attach(model)["unet"]

    def batch(size: int) -> Batch:
        mean = torch.zeros(size, 4, 8, 8)[:, : model.vae.config.latent_channels]
        return Batch(mean, mean, model.encode_captions(["a"] * size, 32), ("a",) * size)

    one, four = (step_bytes(model, parameters, batch(size), FULL_PRECISION) for size in (1, 4))
    assert 3 * one < four < 4.1 * one  # the gradients of the adapter do not grow
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.denoiser.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        told = batch(4)
        model.predict(told.mean, torch.zeros(4, dtype=torch.int64), told.conditioning)
    saved = sum(size for pointer, size in seen.items() if pointer not in weights)
    assert 0.9 * saved < four < 1.5 * saved  # what the backward pass needs, and what is in work beside it


def test_checkpointing_reaches_the_text_encoder() -> None:
    model = load_model("tiny", CPU)
    trained = LoRAAdaptation(train_text_encoder=True).attach(model)
    model.text = configured(model.text, 1, 225)
    mean = torch.zeros(1, model.vae.config.latent_channels, 8, 8)
    batch = Batch(mean, mean, model.encode_captions(["a"], 32), ("a",))
    parameters = [p for several in trained.values() for p in several]
    unet: Any = model.denoiser
    unet.enable_gradient_checkpointing()
    of_the_unet = step_bytes(model, parameters, batch, FULL_PRECISION)
    model.checkpoint_activations(True, ["text_encoder"])
    assert step_bytes(model, parameters, batch, FULL_PRECISION) < of_the_unet


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said after the progress bar, which must be one line."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.rstrip("\n").splitlines()[-1]


FAILURES = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_what_counts_as_out_of_memory(kind: str) -> None:
    assert is_out_of_memory(FAILURES[kind])
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_training_out_of_memory(
    tmp_path: Path, noise_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names the settings that would help, with figures; the given ones are not offered again."""
    error_maps = LatentDiffusion.error_maps
    command = ["train", "--train_data_dir", str(noise_folder), "--max_train_steps", "2", "--device", "cpu", *CELLS]

    def said(kind: str, *options: str) -> str:
        failures = [FAILURES[kind]]

        def fail_once(self: LatentDiffusion, *arguments: Any) -> Tensor:
            if failures:
                raise failures.pop()
            return error_maps(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(LatentDiffusion, "error_maps", fail_once)
            assert main([*command, "--output_dir", str(tmp_path / f"{kind}{len(options)}"), *options]) == 2
        return last_line(capsys)

    line = said("gpu", "--train_batch_size", "4", "--resolution", "96")
    offered = re.findall(r"(--\w+) [^;]*? \(about ([\d.]+) MiB less\)", line)
    assert [name for name, _ in offered] == [
        "--gradient_checkpointing", "--train_batch_size", "--mixed_precision", "--resolution",
    ]  # fmt: skip
    assert all(float(size) > 0 for _, size in offered)
    fewer = said("cpu", "--gradient_checkpointing", "--mixed_precision", "bf16")
    assert "out of memory: the base model takes" in fewer
    assert "(1 image of 32 pixels at once). What would help: a device with more memory" in fewer
    flow = said("gpu", "--pretrained_model_name_or_path", "tiny-flow")
    assert "--mixed_precision bf16 (about" in flow
    assert "--quantize 4bit (about" in flow
    rounded = said("cpu", "--pretrained_model_name_or_path", "tiny-flow", "--quantize", "4bit")
    assert "--quantize" not in rounded


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_step_of_a_flow_model_is_measured(tmp_path: Path, family: str) -> None:
    """In bytes that are not taken; checkpointing keeps fewer of them."""
    model = load_model(str(CHECKPOINTS[family](tmp_path / "model")), CPU)
    assert isinstance(model, FlowMatching)
    parameters = LoRAAdaptation(rank=2).attach(model)["transformer"]
    edge = 32 // model.downsampling
    mean = torch.zeros(1, model.latent_channels, edge, edge)
    batch = Batch(mean, mean, model.encode_captions(["a digit"], 32), ("a",))
    whole = step_bytes(model, parameters, batch, FULL_PRECISION)
    model.checkpoint_activations(True)
    assert 0 < step_bytes(model, parameters, batch, FULL_PRECISION) < whole


def test_other_errors_stay_what_they_are(tmp_path: Path, noise_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(LatentDiffusion, "error_maps", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        main(["train", "--train_data_dir", str(noise_folder), "--output_dir", str(tmp_path / "run"), *CELLS])


def test_out_of_memory_elsewhere(
    tmp_path: Path, noise_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a step to measure, and where the measurement fails: the options that the command has."""

    def fail(*_: Any, **__: Any) -> nn.Module:
        raise FAILURES["cpu"]

    command = ["train", "--train_data_dir", str(noise_folder), *CELLS, "--output_dir"]
    with monkeypatch.context() as patch:
        patch.setattr("smplora.training.train.load_base", fail)
        assert main([*command, str(tmp_path / "a")]) == 2
    told = last_line(capsys)
    assert told.startswith("smplora: out of memory; lower ")
    assert set(re.findall(r"--\w+", told)) == {"--train_batch_size", "--resolution", "--device"}
    monkeypatch.setattr(LatentDiffusion, "error_maps", fail)
    monkeypatch.setattr(memory, "advice", fail)
    assert main([*command, str(tmp_path / "b")]) == 2
    assert last_line(capsys) == told
