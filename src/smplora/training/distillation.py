"""Teachers of ``--objective distill_lora``: adapters, each of which has not seen the images of its fold.

The training set is divided at random into K folds, cell by cell. Teacher k is a plain run with the same options on all
images but fold k's; it lies in ``teachers/teacher-k`` of the run folder and is as private as the images are. What the
adapter then learns of an image in fold k is teacher k's prediction, which does not depend on that image but through the
question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smplora.adapters.base import PublishedAdaptation
from smplora.config.distill import DistillOptions
from smplora.config.monitor import UNWATCHED
from smplora.config.train import TrainConfig
from smplora.core.errors import ConfigError
from smplora.core.random_streams import generator, stream_seed
from smplora.data.split import Split, write_split
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion
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


def check_teachers(config: TrainConfig, split: Split) -> None:
    """See, before anything is written, whether every teacher has images to learn from and some to leave out.

    Raises:
        ConfigError: not so.
    """
    images, least = len(split.train), min(len(split.cells[cell]) for cell in TRAINED)
    if config.num_teachers > images or least < 2:
        raise ConfigError(
            f"--num_teachers got {config.num_teachers} for {images} training images; allowed: 2 to {images}, with 2 "
            "images or more in each cell"
        )


def teacher_runs(config: TrainConfig, split: Split) -> list[TrainConfig]:
    """The runs of all teachers; writes their splits below the run folder.

    Args:
        config: of the run, resolved.
        split: of the run, with captions as they are on disk.

    Raises:
        OSError: a split cannot be written.
    """
    folder = Path(config.output_dir)
    fold_of = folds(split, config.num_teachers, config.seed)
    passes = (config.max_train_steps or 1) / split.pass_length
    runs = []
    for k in range(config.num_teachers):
        own = replace(split, cells=split.cells | {"reference": ()}).only(
            lambda s, k=k: fold_of.get(s.digest) != k,  # type: ignore[misc]
            PROTOCOL,
            config.seed,
        )
        steps = config.teacher_steps or max(1, round(passes * own.pass_length))
        options: dict[str, Any] = UNWATCHED | {
            "objective": "lora",
            "num_teachers": DistillOptions.num_teachers,
            "teacher_steps": None,
            "split_manifest": str(write_split(own, folder / TEACHERS / "splits" / f"teacher-{k}")),
            "output_dir": str(folder / TEACHERS / f"teacher-{k}"),
            "seed": stream_seed(config.seed, "teacher", k) % 2**31,
            "max_train_steps": steps,
            "checkpointing_steps": min(config.checkpointing_steps, steps),
            "checkpoints_total_limit": 1,
            "save_precision": "float",
        }
        if config.preserves_prior:  # images of the class are nobody's: one set for all
            options["class_data_dir"] = config.class_data_dir or str(folder / CLASS_IMAGES)
        runs.append(replace(config, **options))
    return runs


@dataclass(frozen=True)
class Teachers:
    """Trained teachers. They predict through the adapter's model, whose trained tensors theirs replace meanwhile."""

    model: LatentDiffusion
    adaptation: PublishedAdaptation
    parameters: Sequence[nn.Parameter]
    weights: tuple[tuple[Tensor, ...], ...]  # of each teacher, in the order of ``parameters``
    fold_of: Mapping[str, int]  # the teacher that has not seen an image, by its digest

    @classmethod
    def read(
        cls,
        config: TrainConfig,
        split: Split,
        model: LatentDiffusion,
        adaptation: PublishedAdaptation,
        parameters: Sequence[nn.Parameter],
    ) -> Teachers:
        """Those of a run folder; the model keeps its own adapter.

        Raises:
            CheckpointError: one is gone or damaged.
        """
        own, weights = adaptation.state_dict(model), []
        for k in range(config.num_teachers):
            adaptation.load_state_dict(model, adaptation.read(Path(config.output_dir) / TEACHERS / f"teacher-{k}"))
            weights.append(tuple(p.detach().clone() for p in parameters))
        adaptation.load_state_dict(model, own)
        return cls(model, adaptation, parameters, tuple(weights), folds(split, config.num_teachers, config.seed))

    @torch.no_grad()
    def predictions(self, batch: Batch, draw: Draw) -> Tensor:
        """Of each sample, the prediction of the teacher that has not seen it: [b, c, h, w] fp32."""
        noised = self.model.add_noise(self.model.latents(batch, draw), draw)
        predictions = torch.empty_like(noised, dtype=torch.float32)
        of_row = [self.fold_of[digest] for digest in batch.digests]
        for k in sorted(set(of_row)):
            rows = [row for row, fold in enumerate(of_row) if fold == k]
            with self._teaching(k):
                prediction = self.model.predict(noised[rows], draw.timesteps[rows], batch[rows].conditioning)
            predictions[rows] = prediction.float()
        return predictions

    @contextmanager
    def _teaching(self, k: int) -> Iterator[None]:
        """Inside, the model is teacher ``k``, without dropout."""
        own = [p.data for p in self.parameters]
        for parameter, weight in zip(self.parameters, self.weights[k], strict=True):
            parameter.data = weight
        self.adaptation.train(self.model, False)
        try:
            yield
        finally:
            for parameter, weight in zip(self.parameters, own, strict=True):
                parameter.data = weight
            self.adaptation.train(self.model, True)
