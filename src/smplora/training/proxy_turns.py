"""When the proxy learns, and from whose error maps: drawn anew (paper, Algorithms 1 and 2), or of the adapter's own
batch (``--proxy_sharing``), which leaves nothing but the non-members to be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from smplora.config.game import GameOptions
from smplora.core.random_streams import stream_seed
from smplora.models.batch import Batch, Draw, as_index
from smplora.models.diffusion import LatentDiffusion
from smplora.models.proxy import GainStep, at_size
from smplora.objectives.game import SMPLoRAGame
from smplora.training.batches import Feed, members_first
from smplora.training.distributed import gather


@dataclass(frozen=True)
class Waiting:
    """A turn for which the members' error maps are not there yet."""

    turn: int
    rows: list[int]  # of the adapter's batch, that of all processes: the members
    error_maps: Tensor  # [n, c, h, w] of as many non-members
    timesteps: Tensor  # [n]


class ProxyTurns:
    """The proxy's part of a training.

    Args:
        options: their ``proxy_`` options count.
        seed: of the proxy's dropout.
    """

    def __init__(
        self,
        options: GameOptions,
        seed: int,
        model: LatentDiffusion,
        game: SMPLoRAGame,
        feed: Feed,
        accelerator: Accelerator,
        autocast: Callable[[], torch.autocast],
    ) -> None:
        self.autocast = autocast
        self.model, self.game, self.feed, self.accelerator = model, game, feed, accelerator
        self.steps, self.interval, self.seed = options.proxy_steps, options.proxy_interval, seed
        self.shares = options.proxy_sharing != "none"
        self.most = (feed.proxy_batch_size or feed.batch_size) * feed.processes
        self.aux = None
        if options.proxy_sharing == "aux":
            self.aux = {digest for group in feed.aux_member.groups for digest in group.digests}
        self.waiting: Waiting | None = None

    def before(self, step: int) -> Iterator[GainStep]:
        """What comes before the adapter's forward pass: the turns on error maps drawn anew, or, where they are shared,
        the error maps of the non-members. No gradient reaches the adapter."""
        if not self.game.uses_proxy or step % self.interval:
            return
        number = step // self.interval
        if self.shares:
            self.waiting = self._nonmembers(step, number)
            return
        for turn in range(number * self.steps, (number + 1) * self.steps):
            pair = self.feed.proxy(turn)
            error_maps = members_first(self._errors(turn, *pair.parts), self.feed.processes)
            yield self._ascend(turn, error_maps, pair.timesteps, pair.is_member)

    def _nonmembers(self, step: int, turn: int) -> Waiting | None:
        """Nothing, where the adapter's batch has no member that may be shared."""
        digests = self.feed.digests(step)
        rows = [row for row, digest in enumerate(digests) if self.aux is None or digest in self.aux][: self.most]
        if not rows:
            return None
        share, timesteps = self.feed.nonmembers(turn, len(rows))
        return Waiting(turn, rows, self._errors(turn, share)[: len(rows)], timesteps)

    def beside(self, error_maps: Tensor, timesteps: Tensor) -> Iterator[GainStep]:
        """The turn that waited for the adapter's error maps: [b, c, h, w] and [b] of this process; before the objective
        asks the proxy. Once a step: later batches of it change nothing."""
        if self.waiting is None:
            return
        waiting, self.waiting = self.waiting, None
        rows = as_index(waiting.rows, error_maps.device)
        shared = at_size(error_maps.detach(), self.game.proxy.size)
        members, told = (gather(self.accelerator, of_all)[rows] for of_all in (shared, timesteps))
        count = len(waiting.rows)
        yield self._ascend(
            waiting.turn,
            torch.cat([members, waiting.error_maps]),
            torch.cat([told, waiting.timesteps]),
            torch.arange(2 * count, device=error_maps.device) < count,
        )

    def _errors(self, turn: int, *parts: tuple[Batch, Draw]) -> Tensor:
        """Those of all processes' parts, without gradients."""
        torch.manual_seed(stream_seed(self.seed, "adapter dropout", "proxy", turn, self.feed.process))
        with torch.no_grad(), self.autocast():
            share = torch.cat([at_size(self.model.error_maps(*part), self.game.proxy.size) for part in parts])
        return gather(self.accelerator, share)

    def _ascend(self, turn: int, error_maps: Tensor, timesteps: Tensor, is_member: Tensor) -> GainStep:
        torch.manual_seed(stream_seed(self.seed, "dropout", turn))
        return self.game.ascend(error_maps, timesteps, is_member)
