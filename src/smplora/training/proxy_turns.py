"""When the proxy learns, and from whose error maps: drawn anew (paper, Algorithms 1 and 2), or of the adapter's own
batch (``--proxy_sharing``), which leaves nothing but the non-members to be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

    def before(self, step: int) -> Iterator[GainStep]:
        """The turns on error maps drawn anew, before the adapter's step. No gradient reaches the adapter."""
        if self.shares or not self._has_turn(step):
            return
        number = step // self.interval
        for turn in range(number * self.steps, (number + 1) * self.steps):
            pair = self.feed.proxy(turn)
            error_maps = members_first(self._errors(turn, *pair.parts), self.feed.processes)
            yield self._ascend(turn, error_maps, pair.timesteps, pair.is_member)

    def after(self, step: int, error_maps: Tensor, timesteps: Tensor) -> Iterator[GainStep]:
        """The turn on the error maps of the adapter's first batch of the step, when its backward pass has freed the
        memory: [b, c, h, w] and [b] of this process. So the objective asks a proxy that has not seen this batch, as in
        the paper. None where the batch has no member that may be shared.
        """
        if not self.shares or not self._has_turn(step):
            return
        digests = self.feed.digests(step)
        shared = [row for row, digest in enumerate(digests) if self.aux is None or digest in self.aux][: self.most]
        count, turn = len(shared), step // self.interval
        if not count:
            return
        rows = as_index(shared, error_maps.device)
        own = at_size(error_maps.detach(), self.game.proxy.size)
        members, told = (gather(self.accelerator, share)[rows] for share in (own, timesteps))
        others, told_of_others = self.feed.nonmembers(turn, count)
        yield self._ascend(
            turn,
            torch.cat([members, self._errors(turn, others)[:count]]),
            torch.cat([told, told_of_others]),
            torch.arange(2 * count, device=error_maps.device) < count,
        )

    def _has_turn(self, step: int) -> bool:
        return self.game.uses_proxy and step % self.interval == 0

    def _errors(self, turn: int, *parts: tuple[Batch, Draw]) -> Tensor:
        """Those of all processes' parts, without gradients."""
        torch.manual_seed(stream_seed(self.seed, "adapter dropout", "proxy", turn, self.feed.process))
        with torch.no_grad(), self.autocast():
            share = torch.cat([at_size(self.model.error_maps(*part), self.game.proxy.size) for part in parts])
        return gather(self.accelerator, share)

    def _ascend(self, turn: int, error_maps: Tensor, timesteps: Tensor, is_member: Tensor) -> GainStep:
        torch.manual_seed(stream_seed(self.seed, "dropout", turn))
        return self.game.ascend(error_maps, timesteps, is_member)
