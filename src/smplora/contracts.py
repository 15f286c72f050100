"""READ FIRST: the few types that everything else speaks.

Shapes: b samples; latents [b, c, h, w]. Losses are per sample; the caller reduces. Noise and timesteps are arguments.
A score always means "higher = member".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from smplora.core.arrays import Bools, Floats

if TYPE_CHECKING:
    from smplora.config.audit import AuditConfig
    from smplora.diffusion import LatentDiffusion
    from smplora.export import Facts
    from smplora.gradients import Watched


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
    """What is trained, and how it is handed out. One file each in ``adapt/``."""

    @property
    def freezes_base(self) -> bool:
        """The base model's weights stay as they are, so that 16 bits will do for them."""
        ...

    @property
    def noun(self) -> str:
        """For model cards, behind the title: "adapter"."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Likewise, of the hub."""
        ...

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Freeze ``model``, add what is trained, note where in ``model.adapted`` and itself in ``model.adaptation``;
        return what is trained by component (fp32). The model still computes what it did."""
        ...

    def check(self, model: LatentDiffusion) -> None:
        """See, before anything is written, whether the options fit ``model``.

        Raises:
            ConfigError: they do not.
        """
        ...

    def base(self, model: LatentDiffusion) -> AbstractContextManager[None]:
        """Inside, ``model`` is the base model, bit for bit."""
        ...

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Switch on or off whatever the adaptation does in training only, such as dropout."""
        ...

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The trained tensors; names begin with the component's, as "unet." or "text_encoder."."""
        ...

    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Restore them exactly.

        Raises:
            KeyError, RuntimeError: tensors that this model does not have, or lacks, or of other shapes.
        """
        ...

    def layers(self, model: LatentDiffusion) -> Watched:
        """What white-box attacks look at."""
        ...

    def publish(
        self, model: LatentDiffusion, folder: Path, facts: Facts, *, precision: str, complete: bool
    ) -> list[str]:
        """Write what is handed out into ``folder``, in the format that other programs read; returns what could not be
        written, one sentence each.

        Args:
            facts: what the file may tell of the training.
            precision: of storage, a key of ``export.PRECISIONS``.
            complete: everything that users expect; False: only what audits need, for a checkpoint.
        """
        ...

    def weights(self, folder: Path) -> list[Path]:
        """The files of ``publish`` that hold what was trained, whether they exist or not; the first one's header tells
        the facts."""
        ...

    def published(self, folder: Path) -> list[str]:
        """Names, relative to ``folder``, of the files that ``publish`` wrote there."""
        ...

    def read(self, folder: Path) -> dict[str, Tensor]:
        """What ``publish`` wrote, as ``load_state_dict`` takes it; libraries' versions may differ in some names.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        ...

    def usage(self, source: str, pipeline: str, base: str) -> list[str]:
        """Lines of Python that load it in diffusers, for the model card.

        Args:
            source: where the files are: a folder, or the id of a repository.
            pipeline: the class of diffusers' pipeline.
            base: the base model's id.
        """
        ...


class Access(Enum):
    """What the attacker holds; decides which view of the model the attack receives."""

    BLACK_BOX = "black box"  # generates images from captions
    GREY_BOX = "grey box"  # sees the denoiser's predictions at chosen noise and timestep
    WHITE_BOX = "white box"  # sees weights and gradients
    INSIDER = "insider"  # has the run's private files too: the proxy that the adapter was trained against


@dataclass(frozen=True)
class Pictures:
    """What an attacker holds of the samples themselves, model or no model; one entry per row of a batch."""

    captions: tuple[str, ...]  # as in training
    other_captions: tuple[str, ...]  # each that of another image of the same cell: for controls
    load_pixels: Callable[[], Tensor]  # [b, 3, H, W] in [-1, 1], prepared as in training


class BlackBoxView(Protocol):
    """A batch under attack, seen through what a service offers: images for captions, variations of images. Repeated
    questions are answered from memory, so that attacks share their work without knowing each other. Randomness is a
    function of (audit seed, sample digest, name of the draw): the same for members and non-members, whatever the batch
    size."""

    captions: tuple[str, ...]
    other_captions: tuple[str, ...]
    digests: tuple[str, ...]  # of the images

    @property
    def pixels(self) -> Tensor:
        """The batch's images, [b, 3, H, W] in [-1, 1]."""
        ...

    def generate(self, draw: str, *, num_inference_steps: int, guidance_scale: float) -> Tensor:
        """The adapted model's image for each sample's caption: [b, 3, H, W] in [0, 1]."""
        ...

    def vary(self, draw: str, *, strength: float, steps: int) -> Tensor:
        """The adapted model's variation of each image, noised to ``strength`` (a share of the schedule) and denoised
        with its caption in ``steps`` deterministic DDIM steps: [b, 3, H, W] in [0, 1]."""
        ...


class GreyBoxView(BlackBoxView, Protocol):
    """Adds the denoiser's answers, of the adapted and of the base model, and the public VAE."""

    batch: Batch
    num_train_timesteps: int
    alphas_cumprod: Tensor  # [T]
    latent_size: tuple[int, int] | None  # what maps of several shapes are averaged down to; None: all have one shape

    def predict(
        self, latents: Tensor, timestep: int, *, adapted: bool = True, captions: Sequence[str] | None = None
    ) -> Tensor:
        """The predicted noise at the given (noised) latents: [b, c, h, w] -> [b, c, h, w] fp32 on the CPU; answers of
        models with v-prediction are converted.

        Args:
            captions: others than the samples' own; "" for every sample is the unconditional answer.
        """
        ...

    def noise(self, draw: str) -> Tensor:
        """The named standard normal noise [b, c, h, w]; "-name" is the negative of "name" (antithetic)."""
        ...

    def error_maps(
        self,
        draw: str,
        timesteps: int | None,
        *,
        adapted: bool = True,
        captions: Sequence[str] | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Squared errors [b, c, h, w] of the adapted or the base model at ``noise(draw)``.

        Args:
            timesteps: one timestep for all samples, or None: a random one per sample, drawn like the noise.
            captions: see ``predict``.
            latents: clean latents others than the samples' own, such as those of an edited image.
        """
        ...

    def losses(self, draw: str, timestep: int, *, adapted: bool = True) -> Tensor:
        """l_ada [b]: the means of the maps of ``error_maps``. Remembered longer than maps are."""
        ...

    def timesteps_of(self, draw: str) -> Tensor:
        """The random timesteps [b] that ``error_maps(draw, None)`` uses."""
        ...

    def noised(self, draw: str, timestep: int) -> Tensor:
        """The samples' latents at ``noise(draw)`` [b, c, h, w]: ``error_maps(draw, timestep)`` are their errors."""
        ...

    def difference(self, one: Tensor, other: Tensor) -> Tensor:
        """What attacks measure distances by: ``one - other``, unless an add-on filters it (lowpass.py)."""
        ...

    def encode(self, pixels: Tensor) -> Tensor:
        """Images [b, 3, H, W] in [-1, 1] -> clean latents [b, c, h, w], the posterior's mode."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents -> images [b, 3, H, W] in [0, 1]."""
        ...


@dataclass(frozen=True)
class Gradients:
    """Of each sample's loss at K draws, with respect to P weights."""

    norms: Tensor  # [b, K, P], of each draw's gradient
    norms_of_mean: Tensor  # [b, P], of the mean over draws
    along_update: Tensor  # [b, K, P'], inner products with what the adapter added to each of P' layers' weight


class WhiteBoxView(GreyBoxView, Protocol):
    """Adds gradients."""

    def gradients(self, draws: Sequence[str], timesteps: Sequence[int], of: str) -> Gradients:
        """Of the adaptation loss at ``noise(draws[k])``, ``timesteps[k]``.

        Args:
            of: "adapter" (the low-rank tensors; the weights themselves where all are trained) or "base" (the weights of
                the adapted layers, adapter on).
        """
        ...


class InsiderView(WhiteBoxView, Protocol):
    """Adds the proxy of the min-max game, as it was when the adapter was saved."""

    def log_odds(self, draw: str, timesteps: int | None, *, adapted: bool = True) -> Tensor:
        """log h - log(1 - h), the proxy's answer to ``error_maps(draw, timesteps)`` of the adapted or the base model,
        dropout off: [b] in double precision."""
        ...


@dataclass(frozen=True)
class AttackInfo:
    """What a reader of a report must know of an attack."""

    title: str
    access: Access
    reference: str
    bibtex: str
    fitted_on: str = "aux"
    saw_aux: bool = False  # what it asks was trained on the aux cells, so that it proves nothing about them


class Scorer(Protocol):
    """Turns signals into scores. Fitted on aux only."""

    def fit(self, signals: Floats, is_member: Bools) -> Scorer:
        """Choose everything there is to choose from ``signals`` [n, ...] with known membership [n]."""
        ...

    def score(self, signals: Floats) -> Floats:
        """[n, ...] -> [n], higher = member."""
        ...


class Attack(Protocol):
    """Looks at samples through a view; its scorer learns on aux what members look like. One file in ``attacks/``, each
    a subclass of this."""

    info: AttackInfo

    @classmethod
    def from_config(cls, config: AuditConfig) -> Self:
        """With the audit's options; here, without any."""
        return cls()

    def signals(self, view: Any) -> Floats:
        """What the attack measures on the batch of the view that its access level gives it: [b, ...], each sample
        independent of the others."""
        ...

    def scorer(self, seed: int) -> Scorer:
        """A fresh scorer."""
        ...

    def paper_protocol(
        self, aux: Floats, aux_member: Bools, test: Floats, test_member: Bools, seed: int
    ) -> dict[str, Any] | None:
        """The number that the attack's authors would report, with a ``label`` that says how it was chosen; None where
        that is the number of the common protocol."""
        return None
