"""Trains only what was not trained yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from smplora.config.train import TrainConfig, steps_before, steps_of_drawing
from smplora.runs.folder import CONFIG, RunFolder, read_config
from smplora.training.synthesis import FOLDER
from smplora.training.teachers import TEACHERS
from smplora.training.train import train

UNKNOWN_STEPS = 1000  # of a run whose epochs are not yet steps
UNKNOWN_IMAGES = 1000  # likewise, to draw


def train_once(config: TrainConfig, *, progress: bool = False) -> None:
    """Train, or resume. A finished run is left alone."""
    train(config, progress=progress)


def train_length(options: TrainConfig) -> int:
    """How long a training is, in steps, those of its teachers among them."""
    folder = Path(options.output_dir)
    if not options.max_train_steps and (folder / CONFIG).exists():
        options = read_config(folder, TrainConfig)
    steps, images = options.max_train_steps or UNKNOWN_STEPS, options.num_synthetic_images or UNKNOWN_IMAGES
    return steps + steps_before(replace(options, max_train_steps=steps, num_synthetic_images=images))


def latest_step(options: TrainConfig) -> int:
    """How far a run and its teachers are, read from their metrics, and its drawing, from the images."""
    folder = Path(options.output_dir)
    one = f"{TEACHERS}/teacher-*"  # a walk through everything would meet checkpoints that are being written
    each = [RunFolder(path).metrics() for path in (folder, *folder.glob(one), *folder.glob(f"{one}/{one}"))]
    drawn = sum(1 for _ in (folder / FOLDER).glob("*.png"))
    return sum(int(rows[-1]["step"]) for rows in each if rows) + steps_of_drawing(options, drawn)
