"""``--stop_when held_out_loss``: the adapter of the step with the lowest held-out loss is what is published.

Half of the reference images is looked at (``Split.without_choosers``); evaluations leave these out, audits never see
them. A look is the mean adaptation loss on them at ten timesteps and fixed noise, so that looks differ by the adapter
alone. The least of about twenty counts: what it says of itself is a little too good, an evaluation is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smplora.config.train import TrainConfig
from smplora.core.cache import open_cache
from smplora.core.errors import SplitError, TrainingError
from smplora.core.random_streams import stream_seed
from smplora.data.cells import Cell
from smplora.data.encode import encode
from smplora.data.pool import open_source
from smplora.data.prepare import preparation
from smplora.data.split import Split
from smplora.runs.folder import EARLY_STOPPING, RunFolder
from smplora.training.best import BestAdapter, over_processes
from smplora.training.running_attack import fixed_losses
from smplora.training.setup import Setup

TIMESTEPS, LOOKS = 10, 20
FEWEST = 10  # images that are looked at


def check_images(config: TrainConfig, split: Split) -> None:
    """See, before anything is trained, whether there are images to look at.

    Raises:
        SplitError: too few.
    """
    count = len(split.without_choosers().choosers)
    if config.stop_when and count < FEWEST:
        raise SplitError(
            f"--stop_when {config.stop_when} looks at half of the reference images, which are {count}; allowed: "
            f"{FEWEST} or more: give --reference_size {4 * FEWEST} or more, or smaller cells"
        )


@dataclass
class BestKeeper:
    """Looks and keeps the best; its state is in every checkpoint."""

    setup: Setup
    folder: RunFolder
    cell: Cell
    steps: int  # between looks
    patience: int
    seed: int
    batch_size: int
    worse: int = 0  # looks in a row that were no better
    best: BestAdapter = field(default_factory=BestAdapter)
    state_name = "early_stopping"
    title = "--stop_when held_out_loss"

    @classmethod
    def make(cls, config: TrainConfig, setup: Setup, split: Split, folder: RunFolder) -> BestKeeper | None:
        """Of a run; None without ``--stop_when``."""
        if config.stop_when is None:
            return None
        prepared = preparation(config, config.resolution or setup.model.resolution).plain()
        source, cache = open_source(config), open_cache(config.cache_dir, config.cache_latents_to_disk)
        return cls(
            setup, folder, encode(setup.model, source, split.choosers, prepared, cache),
            max(1, setup.steps // LOOKS), config.early_stopping_patience, stream_seed(config.seed, "early stopping"),
            2 * config.train_batch_size,
        )  # fmt: skip

    @property
    def over(self) -> bool:
        """Whether the training should end."""
        return self.worse >= self.patience

    def after_step(self, done: int) -> dict[str, str]:
        """Look, where it is time to; returns what the progress bar shows."""
        if done % self.steps and done != self.setup.steps:
            return {}
        with self.setup.as_published():
            loss = fixed_losses(
                self.setup.adapted, self.cell, TIMESTEPS, self.seed, self.batch_size, self.setup.autocast
            ).mean()
        held_out_loss = float(*over_processes(self.setup, loss))
        better = held_out_loss < self.best.loss
        self.worse = 0 if better else self.worse + 1
        if better:
            self.best.take(self.setup, done, held_out_loss)
        if self.setup.accelerator.is_main_process and math.isfinite(held_out_loss):
            self.folder.log({"step": done, "held_out_loss": held_out_loss, "best_step": self.best.step}, EARLY_STOPPING)
        return {"best": str(self.best.step)}

    def finish(self) -> int:
        """Put the best adapter in place; returns its step.

        Raises:
            TrainingError: no look gave a number.
        """
        if not self.best.state:
            raise TrainingError("no look of --stop_when gave a number; lower --learning_rate in a new --output_dir")
        return self.best.put_back(self.setup)

    def tensors(self) -> dict[str, Tensor]:
        """Its state, for a checkpoint."""
        numbers = torch.tensor([self.best.step, self.best.loss, self.worse], dtype=torch.float64)
        return {"numbers": numbers, **self.best.tensors()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``.

        Raises:
            KeyError, ValueError: something is missing.
        """
        best_step, best_loss, worse = tensors["numbers"].tolist()
        self.worse, self.best = int(worse), BestAdapter.of(best_step, best_loss, tensors)
