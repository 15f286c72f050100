"""READ FIRST: the few types that everything else speaks.

Shapes: b samples; latents [b, c, h, w]. Losses are per sample; the caller reduces. Noise and timesteps are arguments.
A score always means "higher = member".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from smplora.diffusion import LatentDiffusion

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


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
        kept = range(len(self))[where] if isinstance(where, slice) else where
        rows = where if isinstance(where, slice) else torch.tensor(where).to(self.mean.device, non_blocking=True)
        return Batch(
            mean=self.mean[rows],
            std=self.std[rows],
            conditioning={name: value[rows] for name, value in self.conditioning.items()},
            digests=tuple(self.digests[i] for i in kept),
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

    def __getitem__(self, rows: slice | list[int]) -> Draw:
        """The given rows."""
        return Draw(self.timesteps[rows], self.noise[rows], None if self.posterior is None else self.posterior[rows])


class Objective(Protocol):
    """What the adapter minimises. One file each in ``objectives/``."""

    uses_proxy: bool

    def __call__(self, adaptation_loss: Tensor, log_member: Tensor) -> Tensor:
        """Per-sample losses whose mean is minimised.

        Args:
            adaptation_loss: [b], l_ada of each sample of the training batch (Eq. 1, element mean).
            log_member: [b], log h of each sample, differentiable with respect to the adapter; zeros without a proxy.
        """
        ...


class Adaptation(Protocol):
    """What is trained. One file each in ``adapt/``."""

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Freeze ``model``, add what is trained, note it in ``model.adapted``, return it by component (fp32)."""
        ...

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Switch on or off whatever the adaptation does in training only, such as dropout."""
        ...

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The trained tensors; names begin with the component's, as "unet." or "text_encoder."."""
        ...

    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Restore them exactly."""
        ...


class Access(Enum):
    """What the attacker holds; decides which view of the model the attack receives."""

    BLACK_BOX = "black box"  # generates images from captions
    GREY_BOX = "grey box"  # sees the denoiser's predictions at chosen noise and timestep
    WHITE_BOX = "white box"  # sees weights and gradients


class GreyBoxView(Protocol):
    """A batch under attack, seen through the denoiser's predictions. Repeated questions are answered from memory, so
    that attacks share their work without knowing each other."""

    batch: Batch
    num_train_timesteps: int

    def error_maps(self, draw: str, timesteps: int | None, *, adapted: bool = True) -> Tensor:
        """Squared errors [b, c, h, w] of the adapted or the base model.

        The noise is a function of (audit seed, sample digest, ``draw``): the same for members and non-members, for
        base and adapted model, whatever the batch size.

        Args:
            draw: names the noise; ``-name`` is the negative of ``name`` (antithetic).
            timesteps: one timestep for all samples, or None: a random one per sample, drawn like the noise.
        """
        ...

    def timesteps_of(self, draw: str) -> Tensor:
        """The random timesteps [b] that ``error_maps(draw, None)`` uses."""
        ...


@dataclass(frozen=True)
class AttackInfo:
    """What a reader of a report must know of an attack."""

    title: str
    access: Access
    reference: str
    bibtex: str


class Scorer(Protocol):
    """Turns signals into scores. Fitted on aux only."""

    def fit(self, signals: Floats, is_member: Bools) -> Scorer:
        """Choose everything there is to choose from ``signals`` [n, ...] with known membership [n]."""
        ...

    def score(self, signals: Floats) -> Floats:
        """[n, ...] -> [n], higher = member."""
        ...


class Attack(Protocol):
    """Looks at samples through a view; its scorer learns on aux what members look like. One file in ``attacks/``."""

    info: AttackInfo

    def signals(self, view: GreyBoxView) -> Floats:
        """What the attack measures on the view's batch: [b, ...], independent of the batch's other samples."""
        ...

    def scorer(self, seed: int) -> Scorer:
        """A fresh scorer."""
        ...

    def paper_protocol(
        self, aux: Floats, aux_member: Bools, test: Floats, test_member: Bools, seed: int
    ) -> dict[str, Any] | None:
        """The number that the attack's authors would report, with a ``label`` that says how it was chosen; None where
        that is the number of the common protocol."""
        ...
