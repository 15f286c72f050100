"""What a step sees: batches and draws, functions of (seed, name, step). Several processes share one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from smplora.core.random_streams import generator
from smplora.data.cells import Cell, rows_of, take
from smplora.models.batch import Batch, Draw

TimestepsOf: TypeAlias = Callable[[Tensor], Tensor]
NONMEMBERS = "aux_nonmember"  # the name of their walk


@dataclass(frozen=True)
class Pair:
    """One process's share of the proxy's batch: as many members as non-members, members first; in one part, or in two
    where their shapes differ."""

    parts: tuple[tuple[Batch, Draw], ...]
    timesteps: Tensor  # [2 * size * processes], of the whole batch
    is_member: Tensor  # likewise, bool


@dataclass(frozen=True)
class Feed:
    """The batches of a run. ``batch_size`` is each process's; what N processes see together is what one process with N
    times the batch size would see."""

    train: Cell
    aux_member: Cell
    aux_nonmember: Cell
    batch_size: int
    accumulated: int
    seed: int
    num_train_timesteps: int
    process: int = 0
    processes: int = 1
    noise_offset: float = 0.0
    timesteps_of: TimestepsOf | None = None  # see ``LatentDiffusion.timesteps_of``
    proxy_member: Cell | None = None  # whom the proxy learns as members; None: the aux members
    prior: Cell | None = None  # images of the class, for prior preservation
    proxy_batch_size: int | None = None  # of each kind and process; None: ``batch_size``

    def adapter(self, step: int) -> Iterator[tuple[Batch, Draw]]:
        """The step's ``accumulated`` batches of the training set."""
        return self._batches(self.train, step, "train", "adapter")

    def class_images(self, step: int) -> Iterator[tuple[Batch, Draw] | None]:
        """As many of images of the class; None for each where there are none."""
        if self.prior is None:
            return iter([None] * self.accumulated)
        return self._batches(self.prior, step, "class images", "class images")

    def _batches(self, cell: Cell, step: int, walk: str, stream: str) -> Iterator[tuple[Batch, Draw]]:
        size = self.batch_size * self.processes
        whole = take(cell, size * self.accumulated, step, self.seed, walk)
        draw = self._draw(whole, stream, step)
        for k in range(self.accumulated):
            start = k * size + self.process * self.batch_size
            rows = slice(start, start + self.batch_size)
            yield whole[rows], draw[rows]

    def digests(self, step: int) -> tuple[str, ...]:
        """The images of the first of ``adapter``'s batches, those of all processes."""
        size = self.batch_size * self.processes
        group, rows = rows_of(self.train, size * self.accumulated, step, self.seed, "train")
        return tuple(group.digests[row] for row in rows[:size])

    def proxy(self, turn: int) -> Pair:
        """The proxy's batch number ``turn``."""
        members = self.proxy_member or self.aux_member
        member, nonmember = self._taken(members, "aux_member", turn), self._taken(self.aux_nonmember, NONMEMBERS, turn)
        size = len(member)
        is_member = torch.arange(2 * size, device=member.mean.device) < size
        if member.mean.shape == nonmember.mean.shape:
            whole = join(member, nonmember)
            draw = self._draw(whole, "proxy", turn)
            if self.processes == 1:
                return Pair(((whole, draw),), draw.timesteps, is_member)
            own = self._own_rows(size)
            rows = [*own, *(size + row for row in own)]
            return Pair(((whole[rows], draw[rows]),), draw.timesteps, is_member)
        draws = [self._draw(batch, f"proxy {k}", turn) for k, batch in enumerate((member, nonmember))]
        own = self._own_rows(size)
        share = slice(own.start, own.stop)
        shares = zip((member, nonmember), draws, strict=True)
        return Pair(
            tuple((batch[share], draw[share]) for batch, draw in shares),
            torch.cat([draw.timesteps for draw in draws]),
            is_member,
        )

    def nonmembers(self, turn: int, count: int) -> tuple[tuple[Batch, Draw], Tensor]:
        """This process's share of the proxy's first ``count`` non-members of ``turn``, and all their timesteps [count].
        Every process has as many: some of the last come twice where it does not come out even."""
        whole = self._taken(self.aux_nonmember, NONMEMBERS, turn)
        draw = self._draw(whole, "proxy 1", turn)
        each = -(-count // self.processes)
        start = self.process * each
        rows = slice(start, start + each) if start + each <= count else [min(start + k, count - 1) for k in range(each)]
        return (whole[rows], draw[rows]), draw.timesteps[:count]

    def _taken(self, cell: Cell, name: str, turn: int) -> Batch:
        """Of one kind, what the proxies of all processes see."""
        return take(cell, (self.proxy_batch_size or self.batch_size) * self.processes, turn, self.seed, name)

    def _own_rows(self, size: int) -> range:
        each = size // self.processes
        return range(self.process * each, (self.process + 1) * each)

    def _draw(self, batch: Batch, name: str, turn: int) -> Draw:
        named = (self.num_train_timesteps, self.seed, name, turn)
        return training_draw(batch, *named, self.noise_offset, self.timesteps_of)


def members_first(gathered: Tensor, processes: int) -> Tensor:
    """Shares of several processes, one below the other, as the whole batch: [2 * b * processes, ...], members first."""
    shares = gathered.reshape(processes, 2, -1, *gathered.shape[1:])
    return shares.transpose(0, 1).flatten(0, 2)


def join(first: Batch, second: Batch) -> Batch:
    """The rows of both."""
    return Batch(
        mean=torch.cat([first.mean, second.mean]),
        std=torch.cat([first.std, second.std]),
        conditioning={
            name: torch.cat([value, second.conditioning[name]]) for name, value in first.conditioning.items()
        },
        digests=first.digests + second.digests,
    )


def training_draw(
    batch: Batch,
    num_train_timesteps: int,
    seed: int,
    name: str,
    step: int,
    noise_offset: float = 0.0,
    timesteps_of: TimestepsOf | None = None,
) -> Draw:
    """Timesteps, uniform or as ``timesteps_of`` has them, normal noise and a posterior sample for every row, a function
    of (seed, name, step).

    With an offset o the noise is eps + o u, u [b, c, 1, 1] standard normal: one shift per channel (diffusers'
    ``--noise_offset``; Guttenberg 2023).
    """
    rng, shape, device = generator(seed, name, step), batch.mean.shape, batch.mean.device
    if timesteps_of is None:
        timesteps = torch.randint(num_train_timesteps, (len(batch),), generator=rng)
    else:
        timesteps = timesteps_of(torch.rand(len(batch), generator=rng))
    noise, posterior = torch.randn((2, *shape), generator=rng)
    if noise_offset:
        noise = noise + noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator(seed, name, "offset", step))
    return Draw(*(on_device(x, device) for x in (timesteps, noise, posterior)))


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Copied while the host goes on, which takes pinned memory on a GPU."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)
