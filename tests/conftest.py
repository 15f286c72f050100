"""Shared fixtures. Everything runs on the CPU with one thread and without a network."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # threads would not outlive a fork
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from smplora.cli.commands import VERBS

ASKING = {name: VERBS[name] for name in VERBS if VERBS[name].asks_for_base}
VERBS |= {name: replace(verb, asks_for_base=False) for name, verb in ASKING.items()}  # the digits are bundled too
torch.set_num_threads(1)
gc.disable()  # until everything is imported, see pytest_collection_finish


def pytest_collection_finish() -> None:
    """What was imported stays: half a million objects that no search for garbage needs to look at again."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that connects anywhere fails."""

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"network access to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Latents of tests are not kept among the user's; also for subprocesses."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMPLORA_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def what_processes_are_forked_from() -> None:
    """Before the first test: commands in processes of their own, see warm.py, start from here and import nothing."""
    import warm

    warm.start_server()


@pytest.fixture(scope="session", autouse=True)
def forked_workers() -> Iterator[None]:
    """Worker processes are forked from the tests', which have imported everything. core/test_parallel.py has the real
    ones, which import it all again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smplora.core.parallel.get_context", lambda method: get_context("fork"))
        yield


@pytest.fixture(scope="session", autouse=True)
def bundled_models_are_read_once() -> Iterator[None]:
    """Commands in this process get copies. tests/models reads the files each time, and so do processes of their own."""
    from smplora.core.files import BUNDLED, BUNDLED_FOLDER
    from smplora.runs import base_model

    kept: dict[tuple[Any, ...], Any] = {}
    read = base_model.load_model

    def copied(name: str, device: torch.device, **options: Any) -> Any:
        if name not in (*BUNDLED, str(BUNDLED_FOLDER)) or options.get("quantize"):
            return read(name, device, **options)
        key = (name, device, *sorted(options.items()))
        if key not in kept:
            kept[key] = read(name, device, **options)
        return deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_model, "load_model", copied)
        yield


@pytest.fixture(scope="session", autouse=True)
def losses_at_two_timesteps() -> Iterator[None]:
    """Of held-out images, in evaluations: nobody looks at how large they are, and they would be most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smplora.quality.evaluate.LOSS_TIMESTEPS", 2)
        yield


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 private digits with captions, an ordinary image folder."""
    from smplora.data.digits import write_private_digits

    everything = write_private_digits(tmp_path_factory.mktemp("digits"))
    folder = tmp_path_factory.mktemp("images")
    rows = (everything / "metadata.jsonl").read_text().splitlines()[:60]
    for number in range(60):
        (folder / f"{number:04d}.png").write_bytes((everything / f"{number:04d}.png").read_bytes())
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture
def noise_folder(tmp_path: Path) -> Path:
    """12 distinct pictures with .txt captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"p{k:02d}.png")
        (folder / f"p{k:02d}.txt").write_text(f"picture {k}")
    return folder


@pytest.fixture(scope="session")
def trained_run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 steps of SMP-LoRA with checkpoints at 3 and 6."""
    from smplora.experiments.tasks import train

    return train(short_config(image_folder, tmp_path_factory.mktemp("runs") / "smp"), progress=False)


def short_config(images: Path, output: Path, **changes: Any) -> Any:
    """A few steps on the bundled model."""
    from smplora.config.train import TrainConfig

    settings: dict[str, Any] = {
        "train_data_dir": str(images),
        "output_dir": str(output),
        "objective": "smp_lora",
        "aux_size": 10,
        "train_batch_size": 4,
        "learning_rate": 1e-3,
        "proxy_learning_rate": 1e-3,
        "max_train_steps": 6,
        "checkpointing_steps": 3,
        "logging_steps": 2,
        "device": "cpu",
        "monitor_steps": 0,
        "validation_steps": 0,
        "run_page": False,
    }
    return TrainConfig(**{**settings, **changes})
