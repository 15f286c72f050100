"""Options of the loop: accumulation, schedules, precision, checkpointing of activations, weighting of the loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from safetensors.torch import load_file

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.experiments.tasks import train
from smplora.models.diffusion import min_snr_weights
from smplora.runs.folder import RunFolder


def adapter(images: Path, output: Path, **changes: object) -> dict[str, torch.Tensor]:
    return load_file(train(short_config(images, output, **changes), progress=False) / ADAPTER_FILE)


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Relative to the size of what was learned (lora_B starts at zero)."""
    moved = [name for name in first if "lora_B" in name]
    gap = sum((first[n] - second[n]).square().sum() for n in moved)
    return float((gap / sum(first[n].square().sum() for n in moved)).sqrt())


@pytest.mark.parametrize("objective", ["lora", "smp_lora"])
def test_accumulation_is_a_larger_batch(objective: str, image_folder: Path, tmp_path: Path) -> None:
    """The proxy's own batches are of train_batch_size, so SMP-LoRA is compared after one step of the adapter."""
    steps = {
        "max_train_steps": 1 if objective == "smp_lora" else 6,
        "objective": objective,
        "proxy_learning_rate": 1e-9,
    }
    whole = adapter(image_folder, tmp_path / "whole", train_batch_size=4, **steps)
    parts = adapter(image_folder, tmp_path / "parts", train_batch_size=2, gradient_accumulation_steps=2, **steps)
    other = adapter(image_folder, tmp_path / "other", train_batch_size=2, **steps)
    assert distance(whole, parts) < 1e-3
    assert distance(whole, other) > 1e-2


def test_gradient_checkpointing_changes_nothing(image_folder: Path, tmp_path: Path) -> None:
    plain = adapter(image_folder, tmp_path / "plain", train_text_encoder=True)
    saving = adapter(image_folder, tmp_path / "saving", train_text_encoder=True, gradient_checkpointing=True)
    assert any(name.startswith("text_encoder.") for name in plain)
    assert distance(plain, saving) < 1e-4


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("constant_with_warmup", [0, 0.5, 1, 1]),
        ("linear", [0, 0.5, 1, 0.5]),
        ("cosine", [0, 0.5, 1, 0.5]),
    ],
)
def test_schedules(name: str, rates: list[float], image_folder: Path, tmp_path: Path) -> None:
    config = short_config(
        image_folder,
        tmp_path,
        lr_scheduler=name,
        lr_warmup_steps=2,
        max_train_steps=4,
        logging_steps=1,
        objective="lora",
    )
    rows = RunFolder(train(config, progress=False)).metrics()
    assert [r["learning_rate"] for r in rows] == pytest.approx([1e-3 * r for r in rates])


def test_a_resumed_schedule_goes_on_where_it_was(image_folder: Path, tmp_path: Path) -> None:
    settings = {"lr_scheduler": "cosine", "snr_gamma": 5.0, "gradient_accumulation_steps": 2}
    config = short_config(image_folder, tmp_path, **settings)
    whole = (train(config, progress=False) / ADAPTER_FILE).read_bytes()
    train(short_config(image_folder, tmp_path, resume_from_checkpoint="checkpoint-3", **settings), progress=False)
    assert (tmp_path / ADAPTER_FILE).read_bytes() == whole


def test_min_snr_is_diffusers() -> None:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    t = torch.tensor([1, 100, 500, 998])
    snr = compute_snr(scheduler, t)
    abar = scheduler.alphas_cumprod[t]
    capped = torch.stack([snr, 5 * torch.ones_like(t)], 1).min(1)[0]
    assert torch.allclose(min_snr_weights(abar, 5, "epsilon"), capped / snr, rtol=1e-4)
    assert torch.allclose(min_snr_weights(abar, 5, "v_prediction"), capped / (snr + 1), rtol=1e-4)


def test_min_snr_changes_what_is_learned(image_folder: Path, tmp_path: Path) -> None:
    plain = adapter(image_folder, tmp_path / "plain", objective="lora")
    weighted = adapter(image_folder, tmp_path / "weighted", objective="lora", snr_gamma=5.0)
    assert distance(plain, weighted) > 1e-2


def test_the_proxy_may_learn_the_whole_training_set(image_folder: Path, tmp_path: Path) -> None:
    game = {"objective": "smp_lora", "mi_lambda": 1.0, "proxy_learning_rate": 0.1, "max_train_steps": 4}
    aux, whole = (adapter(image_folder, tmp_path / who, proxy_members=who, **game) for who in ("aux", "train"))
    assert distance(aux, whole) > 1e-3
