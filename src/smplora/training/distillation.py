"""What ``--objective distill_lora`` learns: of each training image the prediction of the teacher that has not seen it.

The training set is divided at random into K folds, cell by cell; teacher k is trained on all images but fold k's
(teachers.py). What the adapter then learns of an image in fold k does not depend on that image but through the
question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from smplora.adapters.base import PublishedAdaptation
from smplora.config.train import TrainConfig
from smplora.data.split import Split
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion
from smplora.training.teachers import TEACHERS, folds


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
        return cls(
            model, adaptation, parameters, tuple(weights), folds(split.whole(), config.num_teachers, config.seed)
        )

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
