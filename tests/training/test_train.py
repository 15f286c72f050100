"""The loop: exact resume after a real SIGKILL, refusal of changed settings, what the steps compute."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import warm
from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE, KOHYA_FILE
from smplora.config.train import TrainConfig
from smplora.core.errors import CheckpointError, ConfigError, SplitError, TrainingError
from smplora.core.files import BUNDLED_FOLDER
from smplora.data.pool import open_source, read_samples
from smplora.data.split import make_split, write_split
from smplora.experiments.tasks import train
from smplora.runs.folder import RunFolder, read_config
from smplora.runs.subject import load_subject

FLAGS = (
    "objective",
    "aux_size",
    "train_batch_size",
    "max_train_steps",
    "checkpointing_steps",
    "logging_steps",
    "device",
    "run_page",
)
PATHS_AND_RATES = ("learning_rate", "proxy_learning_rate", "train_data_dir", "output_dir")
KILL_AT_FSYNC = """
import os, signal, sys
from smplora.cli.main import main
real, count = os.fsync, 0
def fsync(handle):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
sys.exit(main(sys.argv[2:]))
"""


def flags(config: TrainConfig) -> list[str]:
    return ["train", *(x for name in FLAGS + PATHS_AND_RATES for x in (f"--{name}", str(getattr(config, name))))]


def contents(run: Path, step: int) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"checkpoint-{step}"
    return {p.name: p.read_bytes() for p in folder.iterdir()} | {"adapter": (run / ADAPTER_FILE).read_bytes()}


def test_killed_and_resumed_is_bit_identical(image_folder: Path, tmp_path: Path) -> None:
    """The real command is killed with SIGKILL three times: between two steps, and twice in the middle of writing a
    checkpoint. The same command again ends with the adapter, proxy and optimizers of an undisturbed run."""
    steps = 20
    settings: dict[str, Any] = {"max_train_steps": steps, "checkpointing_steps": 5, "logging_steps": 3}
    whole = train(short_config(image_folder, tmp_path / "whole", **settings), progress=False)
    config = short_config(image_folder, tmp_path / "killed", **settings)
    run = Path(config.output_dir)

    process = warm.start(*flags(config))
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    reached = []
    for fsyncs in (13, 11):  # 3 or 4 files at the start, 6 per checkpoint
        killed = warm.run(str(fsyncs), *flags(config), program=KILL_AT_FSYNC)
        assert killed.returncode == -signal.SIGKILL
        assert list(run.glob("checkpoints/.smplora-*")), "it was to be killed while it wrote a checkpoint"
        reached.append(steps_of(run)[-1])
    assert reached[0] < reached[1] < steps
    assert warm.run(*flags(config)).returncode == 0

    assert contents(run, steps) == contents(whole, steps)
    assert not list(run.glob("checkpoints/.smplora-*"))
    assert [without_time(r) for r in RunFolder(run).metrics()] == [without_time(r) for r in RunFolder(whole).metrics()]


def test_the_page_of_a_run_that_was_killed_when_it_was_complete_is_written(image_folder: Path, tmp_path: Path) -> None:
    """A kill between DONE.json and the last page leaves a page that says "step 0"; the same command mends it."""
    config = short_config(image_folder, tmp_path / "run", max_train_steps=1, checkpointing_steps=1, run_page=True)
    run = train(config, progress=False)
    page = run / "index.html"
    whole, written = page.read_text(), page.stat().st_mtime_ns
    train(config, progress=False)
    assert page.stat().st_mtime_ns == written, "what is done is not done again"
    page.write_text("Step 0 of 1.")
    os.utime(page, ns=(0, (run / "DONE.json").stat().st_mtime_ns - 1))
    train(config, progress=False)
    assert "Step 1 of 1: done." in page.read_text()
    assert len(page.read_text()) == len(whole)


LONG: dict[str, Any] = {"max_train_steps": 40, "checkpointing_steps": 1000, "logging_steps": 2}


@pytest.fixture(scope="module")
def undisturbed(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    return train(short_config(image_folder, tmp_path_factory.mktemp("whole") / "run", **LONG), progress=False)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_and_resumed_is_bit_identical(
    number: signal.Signals, status: int, image_folder: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A scheduler's stop, or Ctrl-C: a checkpoint of the step that was reached, a line that says so, and the same
    command goes on from there to the adapter of an undisturbed run."""
    config = short_config(image_folder, tmp_path / "stopped", **LONG)
    run = Path(config.output_dir)
    with (tmp_path / "said").open("w") as said:
        process = warm.start(*flags(config), stderr=said)
        while process.poll() is None and not (run / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(process.pid, number)
        assert process.wait() == status
    (step,) = steps_of(run)
    assert 0 < step < 40
    text = (tmp_path / "said").read_text()
    assert f"stopped after step {step}, which is checkpoint-{step}" in text
    assert text.rstrip().endswith("run the same command again to resume")
    assert not (run / "DONE.json").exists()
    again = warm.run(*flags(config))
    assert again.returncode == 0, again.stderr
    assert f"resuming {run} at step {step}" in again.stderr
    assert contents(run, 40).keys() == contents(undisturbed, 40).keys()
    assert (run / ADAPTER_FILE).read_bytes() == (undisturbed / ADAPTER_FILE).read_bytes()


def test_who_has_read_enough_ends_us_in_silence() -> None:
    """As in ``smplora --help | head -1``."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w") as stdout, tempfile.TemporaryFile("w+") as stderr:
        assert warm.start("--help", stdout=stdout, stderr=stderr).wait() == 141
        stderr.seek(0)
        assert stderr.read() == ""


def steps_of(run: Path) -> list[int]:
    return RunFolder(run).steps() if run.exists() else []


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "elapsed_s"}


def test_resume_from_a_named_checkpoint(image_folder: Path, trained_run: Path, tmp_path: Path) -> None:
    config = short_config(image_folder, tmp_path / "run")
    run = train(config, progress=False)
    before = (run / ADAPTER_FILE).read_bytes()
    again = short_config(image_folder, run, resume_from_checkpoint="checkpoint-3")
    train(again, progress=False)
    assert (run / ADAPTER_FILE).read_bytes() == before == (trained_run / ADAPTER_FILE).read_bytes()
    with pytest.raises(CheckpointError, match="allowed: latest, or one of this run: checkpoint-3, checkpoint-6"):
        train(short_config(image_folder, run, resume_from_checkpoint="checkpoint-4"), progress=False)


def test_changed_settings_are_refused_with_the_differences(image_folder: Path, trained_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained_run.rglob("*")}
    with pytest.raises(ConfigError) as error:
        train(short_config(image_folder, trained_run, rank=8, mi_lambda=0.5), progress=False)
    assert "3 problems" in str(error.value)
    assert "rank was 4, now 8" in str(error.value)
    assert "lora_alpha was 4.0, now 8.0" in str(error.value)
    assert "mi_lambda was 0.05, now 0.5" in str(error.value)
    assert before == {p: p.stat().st_mtime_ns for p in trained_run.rglob("*")}


def test_only_the_user_can_enter_the_run_folder(trained_run: Path) -> None:
    assert trained_run.stat().st_mode & 0o777 == 0o700


def test_run_folder_is_complete(trained_run: Path, image_folder: Path) -> None:
    assert {p.name for p in trained_run.iterdir()} == {
        "config.yaml", "environment.json", "split.json", "metrics.jsonl", "model.json", "checkpoints", "DONE.json",
        ADAPTER_FILE, KOHYA_FILE, "README.md",
    }  # fmt: skip
    asked = short_config(image_folder, trained_run)
    filled_in = {
        "lora_alpha": 4.0,
        "resolution": 32,
        "test_size": 10,
        "test_nonmember_size": 10,
        "reference_size": 20,
        "validation_guidance_scale": 1.0,
    }
    assert read_config(trained_run, TrainConfig) == replace(asked, **filled_in)
    rows = [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [2, 3, 4, 6]
    assert all(r["mi_gain"] < 0 and 0 <= r["proxy_accuracy"] <= 1 and r["grad_norm"] > 0 for r in rows)


def test_checkpoint_limit(image_folder: Path, tmp_path: Path) -> None:
    config = short_config(image_folder, tmp_path / "run", checkpointing_steps=1, checkpoints_total_limit=2)
    assert RunFolder(train(config, progress=False)).steps() == [5, 6]


def test_lambda_zero_is_lora(image_folder: Path, tmp_path: Path) -> None:
    """With lambda = 0 MP-LoRA's whole run is LoRA's, bit for bit: the proxy's draws and steps touch nothing else."""
    runs = [
        train(short_config(image_folder, tmp_path / name, objective=name, mi_lambda=0.0), progress=False)
        for name in ("lora", "mp_lora")
    ]
    first, second = (load_file(run / ADAPTER_FILE) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_lambda_matters(image_folder: Path, tmp_path: Path, trained_run: Path) -> None:
    other = train(short_config(image_folder, tmp_path / "run", mi_lambda=1.0), progress=False)
    first, second = (load_file(run / ADAPTER_FILE) for run in (trained_run, other))
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_not_a_number_stops_the_run_and_keeps_no_bad_checkpoint(image_folder: Path, tmp_path: Path) -> None:
    config = short_config(image_folder, tmp_path / "run", learning_rate=1e30, max_train_steps=12)
    with pytest.raises(TrainingError, match=r"not a number by step \d+; .*Lower --learning_rate"):
        train(config, progress=False)
    run = Path(config.output_dir)
    assert not (run / "DONE.json").exists()
    assert not (run / ADAPTER_FILE).exists()
    for step in RunFolder(run).steps():
        tensors = load_file(run / "checkpoints" / f"checkpoint-{step}" / ADAPTER_FILE)
        assert all(t.isfinite().all() for t in tensors.values())


def test_tensorboard_on_request(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(short_config(image_folder, tmp_path / "run", report_to="tensorboard"), progress=False)
    events = EventAccumulator(str(run / "logs" / "smplora")).Reload()
    logged = [(e.step, pytest.approx(e.value)) for e in events.Scalars("adaptation_loss")]
    assert [(r["step"], r["adaptation_loss"]) for r in RunFolder(run).metrics()] == logged
    monkeypatch.setattr("smplora.training.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install smplora\[tensorboard\]"):
        train(short_config(image_folder, tmp_path / "other", report_to="tensorboard"), progress=False)
    assert not (tmp_path / "other").exists()


def test_the_split_of_a_run_stays(noise_folder: Path, tmp_path: Path) -> None:
    """An image more in the folder changes nothing; an image less, another caption or another manifest is refused."""
    config = short_config(noise_folder, tmp_path / "run", aux_size=2, train_batch_size=2, max_train_steps=2)
    run = train(config, progress=False)
    before = (run / "split.json").read_bytes()
    (run / "DONE.json").unlink()
    Image.new("RGB", (40, 40), "red").save(noise_folder / "new.png")
    (noise_folder / "new.txt").write_text("a new picture")
    train(config, progress=False)
    assert (run / "split.json").read_bytes() == before

    other = write_split(make_split(read_samples(open_source(config)), replace(config, split_seed=9)), tmp_path)
    with pytest.raises(SplitError, match="is not the split that"):
        train(replace(config, split_manifest=str(other)), progress=False)
    (noise_folder / "p00.png").unlink()
    with pytest.raises(SplitError, match="are gone or changed"):
        train(config, progress=False)
    assert (run / "split.json").read_bytes() == before


def test_other_weights_under_the_same_name_are_refused(image_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BUNDLED_FOLDER, model)
    config = short_config(image_folder, tmp_path / "run", pretrained_model_name_or_path=str(model), max_train_steps=1)
    run = train(config, progress=False)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += 1e-3
    save_file(tensors, weights, {"format": "pt"})
    for act in (lambda: train(config, progress=False), lambda: load_subject(str(run), None, "cpu")):
        with pytest.raises(CheckpointError, match="has other weights, settings or tokenizer than when"):
            act()


def test_a_finished_run_is_left_alone_even_without_its_checkpoints(
    image_folder: Path, trained_run: Path, tmp_path: Path
) -> None:
    config = short_config(image_folder, tmp_path / "run")
    run = Path(shutil.copytree(trained_run, config.output_dir))
    shutil.rmtree(run / "checkpoints")
    metrics = (run / "metrics.jsonl").read_bytes()
    train(config, progress=False)
    assert (run / "metrics.jsonl").read_bytes() == metrics


def test_killed_while_deleting_a_checkpoint(
    image_folder: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short_config(image_folder, tmp_path / "run")
    run = Path(shutil.copytree(trained_run, config.output_dir))
    whole = (run / ADAPTER_FILE).read_bytes()

    def killed(folder: Path, **_: Any) -> None:
        (Path(folder) / "state.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("smplora.runs.folder.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            train(replace(config, resume_from_checkpoint="checkpoint-3"), progress=False)
    train(config, progress=False)
    assert RunFolder(run).steps() == [3, 6]
    assert (run / ADAPTER_FILE).read_bytes() == whole


def flipped(path: Path) -> None:
    """Sixteen other bits in the middle."""
    content = bytearray(path.read_bytes())
    for k in range(16):
        content[len(content) // 2 + k] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["proxy", "state", "gone", "stateless"])
def test_a_damaged_checkpoint_is_stepped_over(
    file: str, image_folder: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on from the one before, says so, and ends as it would have."""
    config = short_config(image_folder, tmp_path / "run")
    run = Path(shutil.copytree(trained_run, config.output_dir))
    expected, newest = (run / ADAPTER_FILE).read_bytes(), run / "checkpoints" / "checkpoint-6"
    (run / "DONE.json").unlink()
    if file == "state":
        (newest / "state.json").write_text("[1]")
    elif file == "stateless":
        (newest / "state.json").unlink()
    elif file == "gone":
        (newest / "optimizer.safetensors").unlink()
    else:
        flipped(newest / f"{file}.safetensors")
    train(config, progress=False)
    said = capsys.readouterr().err
    assert "checkpoint-6 is damaged (" in said
    assert "it is now damaged-6" in said
    assert "the run goes on from checkpoint-3" in said
    assert (run / ADAPTER_FILE).read_bytes() == expected
    assert (run / "checkpoints" / "damaged-6").is_dir()
    (run / "DONE.json").unlink()
    flipped(newest / "adapter_state.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint-6 is damaged \(adapter_state.safetensors is not what was"):
        train(replace(config, resume_from_checkpoint="checkpoint-6"), progress=False)


def test_without_a_sound_checkpoint_a_run_starts_anew_and_says_so(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = short_config(image_folder, tmp_path / "run", max_train_steps=2, checkpointing_steps=1)
    run = train(config, progress=False)
    expected = (run / ADAPTER_FILE).read_bytes()
    (run / "DONE.json").unlink()
    for step in (1, 2):
        flipped(run / "checkpoints" / f"checkpoint-{step}" / "adapter_state.safetensors")
    train(config, progress=False)
    assert "no checkpoint is left: the run starts anew" in capsys.readouterr().err
    assert (run / ADAPTER_FILE).read_bytes() == expected


def test_a_finished_run_is_what_it_was(image_folder: Path, trained_run: Path, tmp_path: Path) -> None:
    config = short_config(image_folder, tmp_path / "run")
    run = Path(shutil.copytree(trained_run, config.output_dir))
    flipped(run / ADAPTER_FILE)
    for use in (lambda: train(config, progress=False), lambda: load_subject(str(run), None, "cpu")):
        with pytest.raises(CheckpointError, match=r"its adapter is not the one whose SHA-256 DONE\.json holds"):
            use()
    flipped(run / "checkpoints" / "checkpoint-3" / ADAPTER_FILE)
    with pytest.raises(CheckpointError, match=f"{ADAPTER_FILE} is not what was written"):
        load_subject(str(run / "checkpoints" / "checkpoint-3"), None, "cpu")
    train(replace(config, resume_from_checkpoint="checkpoint-6"), progress=False)
    load_subject(str(run), None, "cpu")
