"""Teachers: adapters that are trained before the one that is published, which learns from them instead of the images.

Each is a run of its own in ``teachers/teacher-k`` of the run folder, as private as the images are. With ``--objective
distill_lora`` teacher k has seen all images but fold k's, with ``synth_lora`` fold k's alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from smplora.config.distill import DISTILLED
from smplora.config.dreambooth import DreamBoothOptions
from smplora.config.monitor import UNWATCHED
from smplora.config.synthetic import SYNTHETIC
from smplora.config.train import OF_A_TEACHER, TrainConfig
from smplora.core.errors import ConfigError
from smplora.core.random_streams import generator, stream_seed
from smplora.data.pool import Sample
from smplora.data.split import Split, write_split
from smplora.training.prior_preservation import FOLDER as CLASS_IMAGES

TEACHERS = "teachers"  # in the run folder
PROTOCOL = "fold"
TRAINED = ("aux_member", "test_member")


def folds(split: Split, count: int, seed: int) -> dict[str, int]:
    """The fold of every training image by its digest: a function of (seed, which images there are). Folds take equal
    parts of each cell, but for one image."""
    fold_of: dict[str, int] = {}
    canaries = split.canaries.cells if split.canaries else {}
    trained = {cell: split.cells[cell] for cell in TRAINED}
    trained |= {f"canary_{cell}": canaries[cell] for cell in TRAINED if cell in canaries}
    for cell, samples in trained.items():
        digests = sorted(s.digest for s in samples)
        order = torch.randperm(len(digests), generator=generator(seed, "folds", cell)).tolist()
        fold_of |= {digests[i]: place % count for place, i in enumerate(order, len(fold_of))}
    return fold_of


def number_of_teachers(config: TrainConfig) -> int:
    """How many there are."""
    return config.num_teachers if config.objective == DISTILLED else config.synthetic_teachers


def check_teachers(config: TrainConfig, split: Split) -> None:
    """See, before anything is written, whether every teacher has images to learn from and, to be distilled, some to
    leave out.

    Raises:
        ConfigError: not so.
    """
    images, least = len(split.train), min(len(split.cells[cell]) for cell in TRAINED)
    if config.objective == DISTILLED and (config.num_teachers > images or least < 2):
        raise ConfigError(
            f"--num_teachers got {config.num_teachers} for {images} training images; allowed: 2 to {images}, with 2 "
            "images or more in each cell"
        )
    if config.objective == SYNTHETIC and config.synthetic_teachers > least:
        raise ConfigError(
            f"--synthetic_teachers got {config.synthetic_teachers}; allowed: 1 to {least}, so that each has an "
            "image of each cell"
        )


def teacher_runs(config: TrainConfig, split: Split) -> list[TrainConfig]:
    """The runs of all teachers; writes their splits below the run folder.

    Args:
        config: of the run, resolved.
        split: of the run, with captions as they are on disk.

    Raises:
        OSError: a split cannot be written.
    """
    folder, count = Path(config.output_dir), number_of_teachers(config)
    fold_of = folds(split, count, config.seed)
    passes = (config.max_train_steps or 1) / split.pass_length

    def knows(k: int, sample: Sample) -> bool:
        fold = fold_of.get(sample.digest)  # None of images that nobody trains on
        return fold is None or (fold != k if config.objective == DISTILLED else fold == k)

    # a budget's images are kept from the teachers' proxies too
    known = split.without_aside().aside_as_test() if config.measured_budget else split
    runs = []
    for k in range(count):
        rest = replace(known, cells=known.cells | {"reference": ()})
        own = rest.only(lambda s, k=k: knows(k, s), PROTOCOL, config.seed)  # type: ignore[misc]
        steps = config.teacher_steps or max(1, round(passes * own.pass_length))
        options: dict[str, Any] = (
            UNWATCHED
            | OF_A_TEACHER
            | {
                "objective": "lora" if config.objective == DISTILLED else config.teacher_objective,
                "split_manifest": str(write_split(own, folder / TEACHERS / "splits" / f"teacher-{k}")),
                "output_dir": str(folder / TEACHERS / f"teacher-{k}"),
                "seed": stream_seed(config.seed, "teacher", k) % 2**31,
                "max_train_steps": steps,
                "lr_scheduler": config.teacher_lr_scheduler or config.lr_scheduler,
                "checkpointing_steps": min(config.checkpointing_steps, steps),
                "checkpoints_total_limit": 1,
                "save_precision": "float",
                "weight_noise": 0.0,
            }
        )
        if config.objective == SYNTHETIC and not config.preserves_prior:
            options["sample_batch_size"] = DreamBoothOptions.sample_batch_size
        if config.preserves_prior:  # images of the class are nobody's: one set for all
            options["class_data_dir"] = config.class_data_dir or str(folder / CLASS_IMAGES)
        runs.append(replace(config, **options))
    return runs
