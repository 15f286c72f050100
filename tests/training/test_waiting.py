"""The host never waits for the device between two steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import short_config
from smplora.experiments.tasks import train
from smplora.runs.base_model import load_base
from smplora.runs.folder import RunFolder
from smplora.training.distributed import make_accelerator
from smplora.training.loop import optimise
from smplora.training.resolve import load_split, resolved
from smplora.training.setup import prepare
from transfers import CountTransfers


@pytest.mark.parametrize("sharing", ["none", "aux"])
@pytest.mark.usefixtures("trained_run")  # a process's first training counts otherwise, whatever its length
def test_no_host_synchronisation_per_step(sharing: str, image_folder: Path, tmp_path: Path) -> None:
    counts = []
    for steps in (4, 12):
        config = short_config(
            image_folder, tmp_path / str(steps), max_train_steps=steps, logging_steps=1000, checkpointing_steps=1000,
            proxy_sharing=sharing,
        )  # fmt: skip
        with CountTransfers() as counter:
            train(config, progress=False)
        counts.append(counter.count)
    assert counts[0] > 0, "the log at the end reads values"
    assert counts[1] == counts[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA tells when the host waits")
@pytest.mark.parametrize("sharing", ["none", "aux"])
def test_the_host_never_waits_for_the_gpu(sharing: str, image_folder: Path, tmp_path: Path) -> None:
    """Between the second step and the last, which has a line of metrics."""
    modes = {1: "error", 5: "default"}

    class Watch:
        def after_step(self, done: int) -> dict[str, str]:
            torch.cuda.set_sync_debug_mode(modes.get(done, torch.cuda.get_sync_debug_mode()))
            return {}

        def finish(self) -> None:
            pass

    config = short_config(image_folder, tmp_path, device="cuda", proxy_sharing=sharing, checkpointing_steps=1000)
    config = replace(config, logging_steps=1000)
    model, split = load_base(config, torch.device("cuda")), load_split(config, tmp_path / "none")
    config = resolved(config, model, split)
    setup = prepare(config, model, split, make_accelerator(torch.device("cuda")))
    folder = RunFolder(tmp_path)
    folder.open(config, model)
    optimise(config, setup, folder, Watch(), 0, False)  # type: ignore[arg-type]
