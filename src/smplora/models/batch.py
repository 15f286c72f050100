"""What a denoiser is given: encoded images and the randomness of one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images as the denoiser takes them: scaled VAE posterior and conditioning, one row per sample."""

    mean: Tensor  # [b, c, h, w], posterior mean times the VAE's scaling factor
    std: Tensor  # [b, c, h, w], its standard deviation, likewise scaled
    conditioning: Mapping[str, Tensor]  # what the denoiser is told: embeddings or token ids, each [b, ...]
    digests: tuple[str, ...]  # content digests, b of them: the names of the samples' random streams

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, where: list[int] | slice) -> Batch:
        """The given rows."""
        picked = range(len(self))[where] if isinstance(where, slice) else where
        rows = as_index(where, self.mean.device)
        return Batch(
            mean=self.mean[rows],
            std=self.std[rows],
            conditioning={name: value[rows] for name, value in self.conditioning.items()},
            digests=tuple(self.digests[i] for i in picked),
        )

    def split(self, size: int) -> Iterator[Batch]:
        """Consecutive batches of at most ``size`` rows."""
        return (self[start : start + size] for start in range(0, len(self), size))


@dataclass(frozen=True)
class Draw:
    """The randomness of one pass: what the paper writes as t and epsilon."""

    timesteps: Tensor  # [b], integers in [0, T)
    noise: Tensor  # [b, c, h, w], standard normal
    posterior: Tensor | None = None  # [b, c, h, w], standard normal; None: the posterior's mode (audits)

    def __getitem__(self, where: slice | list[int]) -> Draw:
        """The given rows."""
        rows = as_index(where, self.noise.device)
        return Draw(self.timesteps[rows], self.noise[rows], None if self.posterior is None else self.posterior[rows])


def as_index(where: slice | list[int], device: torch.device) -> slice | Tensor:
    """A list as a tensor on the device: indexed with the list itself, the host would wait for the device."""
    return where if isinstance(where, slice) else torch.tensor(where).to(device, non_blocking=True)
