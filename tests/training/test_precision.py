"""Precision, optimizers and averages in whole runs: what moves, what is skipped, what is published, exact resume."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

import warm
from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE, KOHYA_FILE
from smplora.cli.main import main
from smplora.config.data import ModelOptions
from smplora.config.train import TrainConfig
from smplora.core.errors import TrainingError
from smplora.core.random_streams import generator
from smplora.experiments.tasks import train
from smplora.runs.base_model import load_base
from smplora.runs.folder import RunFolder, read_config
from smplora.training import setup as trainstate
from smplora.training.batches import Feed, training_draw
from smplora.training.precision import LossScaler, compile_denoiser, fastest
from smplora.training.resolve import load_split, resolved
from toys import toy_batch, toy_cell
from transfers import CountTransfers

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]
ALONE = {"monitor_steps": 0, "validation_steps": 0, "run_page": False}  # nothing beside the steps


def states(run: Path, step: int) -> dict[str, Tensors]:
    folder = run / "checkpoints" / f"checkpoint-{step}"
    return {p.stem: load_file(p) for p in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def precise_runs(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("precision")
    settings = {"learning_rate": 1e-4, "rank": 8, "max_train_steps": 8, "checkpointing_steps": 2, "logging_steps": 1}
    settings |= {**ALONE, "train_batch_size": 2, "objective": "lora"}
    return {
        kind: train(short_config(image_folder, folder / kind, mixed_precision=kind, **settings), progress=False)
        for kind in ("no", "bf16", "fp16")
    }


def share_that_moved(run: Path) -> float:
    first, last = (states(run, step)["adapter_state"] for step in (2, 8))
    names = [n for n in first if "lora_A" in n]
    return sum(int((first[n] != last[n]).sum()) for n in names) / sum(first[n].numel() for n in names)


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_the_adapter_stays_fp32_and_moves_as_in_fp32(kind: str, precise_runs: dict[str, Path]) -> None:
    """In bf16 a learning rate of 1e-4 would leave most entries of lora_A where they are (an update below half a unit
    in the last place is lost)."""
    run, plain = precise_runs[kind], precise_runs["no"]
    assert share_that_moved(run) > 0.999
    assert share_that_moved(run) >= share_that_moved(plain) - 1e-3
    for name, tensors in states(run, 8).items():
        if name == "scaler":  # plain numbers
            continue
        assert {t.dtype for t in tensors.values() if t.ndim} == {torch.float32}, name
    ours, theirs = (states(r, 8)["adapter_state"] for r in (run, plain))
    moved = [n for n in ours if "lora_B" in n]
    gap = torch.cat([(ours[n] - theirs[n]).flatten() for n in moved]).norm()
    assert 0 < gap < 0.5 * torch.cat([theirs[n].flatten() for n in moved]).norm()


def test_only_fp16_logs_a_scale(precise_runs: dict[str, Path]) -> None:
    rows = {kind: RunFolder(run).metrics() for kind, run in precise_runs.items()}
    assert all(r["loss_scale"] == 2.0**16 for r in rows["fp16"])
    assert not any("loss_scale" in r for kind in ("no", "bf16") for r in rows[kind])


def test_accelerates_precision_is_not_taken_and_that_is_said(image_folder: Path, tmp_path: Path) -> None:
    """What ``accelerate launch --mixed_precision fp16`` or ``accelerate config`` leaves in the environment."""
    quick = ["--max_train_steps", "1", "--aux_size", "10", "--device", "cpu", "--output_dir", str(tmp_path / "run")]
    command = ["train", "--train_data_dir", str(image_folder), *quick]
    environment = os.environ | {"ACCELERATE_MIXED_PRECISION": "fp16"}
    done = warm.run(*command, env=environment)
    assert done.returncode == 0, done.stderr
    assert "accelerate is set to fp16, which is not used: --mixed_precision is 'no'" in done.stderr


def test_auto_is_fp32_on_a_cpu_and_that_is_said(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ["--max_train_steps", "1", "--aux_size", "10", "--device", "cpu", "--output_dir", str(tmp_path / "run")]
    assert main(["train", "--train_data_dir", str(image_folder), *quick, "--mixed_precision", "auto"]) == 0
    assert "--mixed_precision auto: 'no' on this CPU" in capsys.readouterr().err
    assert read_config(tmp_path / "run", TrainConfig).mixed_precision == "no"
    assert main(["train", "--train_data_dir", str(image_folder), *quick, "--mixed_precision", "auto"]) == 0, "resumes"
    for native, kind in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert fastest(torch.device("cuda")) == kind


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).relu()


def test_what_cannot_be_compiled_runs_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """With torch's tracing, and a backend that fails or does nothing."""
    x, compiled = torch.randn(4, 3), []

    def failing(graph: torch.fx.GraphModule, _: object) -> None:
        compiled.append(graph)
        raise RuntimeError("no compiler here")

    for backend in (failing, "eager"):
        torch.compiler.reset()
        layer = Small()
        names, expected = [*layer.state_dict()], layer(x)
        compile_denoiser(layer, CPU, backend=backend)
        assert torch.equal(layer(x), expected)
        assert [*layer.state_dict()] == names
    assert len(compiled) == 1
    compile_denoiser(layer, CPU)
    assert "nothing is compiled on a CPU" in capsys.readouterr().err


def test_the_vae_encodes_in_fp32(image_folder: Path, tmp_path: Path) -> None:
    cached = []
    for kind in ("no", "fp16"):
        model = load_base(ModelOptions(), CPU)
        config = short_config(image_folder, tmp_path, mixed_precision=kind)
        split = load_split(config, tmp_path / "none")
        setup = trainstate.prepare(resolved(config, model, split), model, split, Accelerator(cpu=True))
        cached.append(setup.feed.train)
    assert model.vae.dtype == torch.float32
    assert next(p for p in model.denoiser.parameters() if not p.requires_grad).dtype == torch.float16
    plain, half = (cell.whole() for cell in cached)
    assert torch.equal(plain.mean, half.mean)
    assert all(torch.equal(v, half.conditioning[n]) for n, v in plain.conditioning.items())


def test_images_are_encoded_at_the_runs_resolution(image_folder: Path, tmp_path: Path) -> None:
    model = load_base(ModelOptions(), CPU)
    config = short_config(image_folder, tmp_path, resolution=24)
    split = load_split(config, tmp_path / "none")
    setup = trainstate.prepare(resolved(config, model, split), model, split, Accelerator(cpu=True))
    assert model.resolution == 32
    assert setup.feed.train.whole().mean.shape[2:] == (24 // model.downsampling,) * 2


def test_overflowing_steps_are_skipped_and_resumed(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a scale that is far too large: the first steps are skipped, none kills the run, the scale is halved each
    time, and the run that is resumed amid them ends as the undisturbed one."""
    monkeypatch.setattr(trainstate, "LossScaler", partial(LossScaler, initial=2.0**28))
    settings = {**ALONE, "mixed_precision": "fp16", "logging_steps": 1, "max_train_steps": 12, "train_batch_size": 2}
    config = short_config(image_folder, tmp_path, **settings)
    run = train(config, progress=False)
    rows = RunFolder(run).metrics()
    skipped = [r["grad_norm"] is None for r in rows]
    assert skipped[0]
    assert not skipped[-1]
    for number, row in enumerate(rows):
        assert row["loss_scale"] == 2.0 ** (28 - sum(skipped[: number + 1]))
    assert all(r["loss"] is not None for r in rows), "the loss itself did not overflow"
    before, after = states(run, 3), states(run, 12)
    assert all(not t.any() for n, t in before["adapter_state"].items() if "lora_B" in n), "nothing was stepped yet"
    train(replace(config, resume_from_checkpoint="checkpoint-3"), progress=False)
    resumed = states(run, 12)
    assert resumed.keys() == after.keys()
    assert all(torch.equal(t, resumed[name][n]) for name, tensors in after.items() for n, t in tensors.items())


def test_skipping_without_end_is_an_error(image_folder: Path, tmp_path: Path) -> None:
    config = short_config(
        image_folder, tmp_path / "run", mixed_precision="fp16", learning_rate=1e30, max_train_steps=100,
        checkpointing_steps=100, logging_steps=5, objective="lora", train_batch_size=1, **ALONE,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"no checkpoint was written.*--mixed_precision bf16"):
        train(config, progress=False)
    assert 30 <= RunFolder(tmp_path / "run").metrics()[-1]["step"] < 40
    assert not (tmp_path / "run" / ADAPTER_FILE).exists()


def test_scaling_and_averaging_do_not_make_the_host_wait(image_folder: Path, tmp_path: Path) -> None:
    counts = []
    for steps in (2, 5):
        config = short_config(
            image_folder, tmp_path / str(steps), max_train_steps=steps, mixed_precision="fp16", use_ema=True,
            logging_steps=100, checkpointing_steps=100, train_batch_size=1, **ALONE,
        )  # fmt: skip
        with CountTransfers() as counter:
            train(config, progress=False)
        counts.append(counter.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("optimizer", ["adamw8bit", "prodigy"])
def test_a_resumed_run_is_bit_identical(optimizer: str, image_folder: Path, tmp_path: Path) -> None:
    """Through the real command: every optimizer, with an average and a schedule."""
    rate = 1.0 if optimizer == "prodigy" else 1e-3
    config = short_config(image_folder, tmp_path, optimizer=optimizer, learning_rate=rate, use_ema=True, rank=64)
    names = ("optimizer", "learning_rate", "rank", "objective", "aux_size", "train_batch_size", "max_train_steps")
    names += ("proxy_learning_rate", "checkpointing_steps", "train_data_dir", "output_dir", "device")
    flags = ["train", *(x for n in names for x in (f"--{n}", str(getattr(config, n))))]
    flags += [x for name, value in ALONE.items() for x in (f"--{name}", str(value).lower())]
    flags += ["--use_ema", "true", "--lr_scheduler", "polynomial", "--lr_power", "2"]
    assert main(flags) == 0
    before = states(tmp_path, 6)
    assert main([*flags, "--resume_from_checkpoint", "checkpoint-3"]) == 0
    after = states(tmp_path, 6)
    assert before.keys() == after.keys()
    assert all(torch.equal(t, after[name][n]) for name, tensors in before.items() for n, t in tensors.items())
    if optimizer == "adamw8bit":
        assert torch.uint8 in {t.dtype for t in before["optimizer"].values()}


def test_the_average_is_published_and_both_are_kept(image_folder: Path, tmp_path: Path) -> None:
    """Checkpoints after each step hold the weights themselves, from which the averages follow."""
    config = short_config(image_folder, tmp_path, use_ema=True, ema_decay=0.2, checkpointing_steps=1, **ALONE)
    run = train(config, progress=False)
    average: Tensors = {}
    for step in range(1, 7):
        saved = states(run, step)
        decay = 0.0 if step == 1 else min(0.2, step / (step + 9))
        raw = saved["adapter_state"]
        average = {n: decay * average[n] + (1 - decay) * t for n, t in raw.items()} if average else dict(raw)
        published = saved[ADAPTER_FILE.removesuffix(".safetensors")]
        assert published.keys() == raw.keys()
        assert all(torch.allclose(published[n], average[n], atol=1e-7) for n in raw)
        assert step == 1 or not all(torch.equal(published[n], raw[n]) for n in raw)
    final = load_file(run / ADAPTER_FILE)
    kohya = load_file(run / KOHYA_FILE)
    assert all(torch.equal(final[n], published[n]) for n in final)
    downs = [t for n, t in kohya.items() if n.endswith("lora_down.weight")]
    firsts = [t for n, t in final.items() if "lora_A" in n]
    assert len(downs) == len(firsts) > 0
    assert all(any(a.shape == b.shape and torch.equal(a, b) for b in firsts) for a in downs)


def test_noise_offset_is_the_formula() -> None:
    """diffusers: noise += offset * randn(b, c, 1, 1). The other draws stay what they are without it."""
    batch = toy_batch(5, seed=0)
    plain, shifted = (training_draw(batch, 1000, 3, "adapter", 7, offset) for offset in (0.0, 0.1))
    shift = torch.randn((5, 4, 1, 1), generator=generator(3, "adapter", "offset", 7))
    assert torch.equal(shifted.noise, plain.noise + 0.1 * shift)
    assert torch.equal(shifted.timesteps, plain.timesteps)
    assert shifted.posterior is not None
    assert plain.posterior is not None
    assert torch.equal(shifted.posterior, plain.posterior)
    cell = toy_cell(batch)
    feeds = [Feed(cell, cell, cell, 2, 1, 0, 1000, noise_offset=o) for o in (0.0, 0.1)]
    for draws in ([f.proxy(0).parts[0][1] for f in feeds], [next(f.adapter(0))[1] for f in feeds]):
        gap = draws[1].noise - draws[0].noise
        assert gap.abs().max() > 0
        assert torch.allclose(gap, gap[..., :1, :1], atol=1e-6), "one shift per image and channel"


def test_noise_offset_reaches_the_run(image_folder: Path, tmp_path: Path) -> None:
    runs = [
        train(short_config(image_folder, tmp_path / str(o), noise_offset=o, max_train_steps=1), progress=False)
        for o in (0.0, 0.5)
    ]
    first, second = (load_file(run / ADAPTER_FILE) for run in runs)
    assert any(not torch.equal(first[n], second[n]) for n in first)
