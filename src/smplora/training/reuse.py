"""Trains only what was not trained yet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from smplora.config.train import TrainConfig
from smplora.runs.folder import FREE_OPTIONS, RunFolder, read_config
from smplora.training.train import train


def train_once(config: TrainConfig) -> str | None:
    """Train, or resume; says nothing. A finished run is left alone."""
    train(config, progress=False)
    return None


def train_done(config: TrainConfig) -> bool:
    """Whether the run is complete, and was made with every option given here (None: the default, whatever it was)."""
    folder = RunFolder(Path(config.output_dir))
    if folder.done is None:
        return False
    before = read_config(folder.path, TrainConfig)
    given = {n: v for n, v in asdict(config).items() if v is not None and n not in FREE_OPTIONS}
    return all(getattr(before, name) == value for name, value in given.items())
