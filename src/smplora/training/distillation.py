"""What ``--objective distill_lora`` learns: of each training image the prediction of the teacher that has not seen it.

The training set is divided at random into K folds, cell by cell; teacher k is trained on all images but fold k's
(teachers.py). What the adapter then learns of an image in fold k does not depend on that image but through the
question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from smplora.adapters.base import PublishedAdaptation
from smplora.config.train import TrainConfig
from smplora.data.split import Split
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion
from smplora.training.teacher_weights import TeacherWeights
from smplora.training.teachers import folds


@dataclass(frozen=True)
class Teachers:
    """Trained teachers, and which of them has not seen an image."""

    weights: TeacherWeights
    adaptation: PublishedAdaptation
    fold_of: Mapping[str, int]  # by the image's digest

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
        count = config.num_teachers
        weights = TeacherWeights.read(Path(config.output_dir), count, model, adaptation, parameters)
        return cls(weights, adaptation, folds(split.whole(), count, config.seed))

    @torch.no_grad()
    def predictions(self, batch: Batch, draw: Draw) -> Tensor:
        """Of each sample, the prediction of the teacher that has not seen it, without dropout: [b, c, h, w] fp32."""
        model = self.weights.model
        noised = model.add_noise(model.latents(batch, draw), draw)
        predictions = torch.empty_like(noised, dtype=torch.float32)
        of_row = [self.fold_of[digest] for digest in batch.digests]
        self.adaptation.train(model, False)
        for k in sorted(set(of_row)):
            rows = [row for row, fold in enumerate(of_row) if fold == k]
            with self.weights.teaching(k):
                prediction = model.predict(noised[rows], draw.timesteps[rows], batch[rows].conditioning)
            predictions[rows] = prediction.float()
        self.adaptation.train(model, True)
        return predictions
