"""What a step sees: batches and draws, functions of (seed, name, step). Several processes share one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smplora.batches import join, take, training_draw
from smplora.contracts import Batch, Draw


@dataclass(frozen=True)
class Pair:
    """One process's share of the proxy's batch: as many members as non-members, members first."""

    batch: Batch
    draw: Draw
    timesteps: Tensor  # [2 * batch_size * processes], of the whole batch
    is_member: Tensor  # likewise, bool


@dataclass(frozen=True)
class Feed:
    """The batches of a run. ``batch_size`` is each process's; what N processes see together is what one process with N
    times the batch size would see."""

    train: Batch
    aux_member: Batch
    aux_nonmember: Batch
    batch_size: int
    accumulated: int
    seed: int
    num_train_timesteps: int
    process: int = 0
    processes: int = 1
    noise_offset: float = 0.0

    def adapter(self, step: int) -> Iterator[tuple[Batch, Draw]]:
        """The step's ``accumulated`` batches of the training set."""
        size = self.batch_size * self.processes
        whole = take(self.train, size * self.accumulated, step, self.seed, "train")
        draw = self._draw(whole, "adapter", step)
        for k in range(self.accumulated):
            start = k * size + self.process * self.batch_size
            rows = slice(start, start + self.batch_size)
            yield whole[rows], draw[rows]

    def proxy(self, turn: int) -> Pair:
        """The proxy's batch number ``turn``."""
        size = self.batch_size * self.processes
        whole = join(
            take(self.aux_member, size, turn, self.seed, "aux_member"),
            take(self.aux_nonmember, size, turn, self.seed, "aux_nonmember"),
        )
        draw = self._draw(whole, "proxy", turn)
        first = self.process * self.batch_size
        members = list(range(first, first + self.batch_size))
        rows = members + [size + row for row in members]
        is_member = torch.arange(2 * size, device=draw.timesteps.device) < size
        return Pair(whole[rows], draw[rows], draw.timesteps, is_member)

    def _draw(self, batch: Batch, name: str, turn: int) -> Draw:
        return training_draw(batch, self.num_train_timesteps, self.seed, name, turn, self.noise_offset)


def members_first(gathered: Tensor, processes: int) -> Tensor:
    """Shares of several processes, one below the other, as the whole batch: [2 * b * processes, ...], members first."""
    shares = gathered.reshape(processes, 2, -1, *gathered.shape[1:])
    return shares.transpose(0, 1).flatten(0, 2)
