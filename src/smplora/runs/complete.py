"""Runs that need nothing any more; seen without importing torch, which takes longer than to look."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from smplora.adapters.files import ADAPTER_FILE
from smplora.config.train import TrainConfig
from smplora.core.files import files_sha256
from smplora.results.run import PAGE, Done
from smplora.runs.folder import DONE, FREE_OPTIONS, RunFolder, read_config


def train_done(config: TrainConfig) -> bool:
    """Whether the run is complete, and was made with every option given here (None: the default, whatever it was)."""
    folder = RunFolder(Path(config.output_dir))
    if folder.done is None:
        return False
    before = read_config(folder.path, TrainConfig)
    set_options = {n: v for n, v in asdict(config).items() if v is not None and n not in FREE_OPTIONS}
    return all(getattr(before, name) == value for name, value in set_options.items())


def needs_nothing(config: TrainConfig) -> Done | None:
    """What is said of a run that is complete in all its parts: the options are the same, the adapter is the one that
    training left, its page was written after that. None wherever something is to be done, or to be looked at closer;
    and where several processes run, of which one has to speak for all.

    Raises:
        CheckpointError: the folder's files are damaged.
    """
    run = Path(config.output_dir)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    if config.adaptation != "lora" or config.resume_from_checkpoint != "latest" or not train_done(config):
        return None
    done, adapter = RunFolder(run).done, run / ADAPTER_FILE
    if done is None or not adapter.is_file() or files_sha256([adapter]) != done.adapter_sha256:
        return None
    return done if not config.run_page or page_is_final(run) else None


def page_is_final(run: Path) -> bool:
    """Whether a run's page was written after the run was marked as complete; a kill may come in between."""
    page = run / PAGE
    return page.exists() and page.stat().st_mtime_ns >= (run / DONE).stat().st_mtime_ns
