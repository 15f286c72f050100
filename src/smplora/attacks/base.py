"""What an attack is, and what it sees of a model.

Shapes: b samples; latents [b, c, h, w]. Losses are per sample; the caller reduces. Noise and timesteps are arguments.
A score always means "higher = member".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from torch import Tensor

from smplora.core.arrays import Bools, Floats
from smplora.models.batch import Batch
from smplora.models.sample_gradients import Gradients


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
    other_captions: tuple[str, ...]  # each that of another of the audited images: for controls
    load_pixels: Callable[[], Tensor]  # [b, 3, H, W] in [-1, 1], prepared as in training


class BlackBoxView(Protocol):
    """A batch under attack, seen through what a service offers: images for captions, variations of images. Repeated
    requests are served from memory, so that attacks share their work without knowing each other. Randomness is a
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
    """Adds the denoiser's predictions, of the adapted and of the base model, and the public VAE."""

    batch: Batch
    num_train_timesteps: int
    alphas_cumprod: Tensor  # [T]
    latent_size: tuple[int, int] | None  # what maps of several shapes are averaged down to; None: all have one shape

    def predict(
        self, latents: Tensor, timestep: int, *, adapted: bool = True, captions: Sequence[str] | None = None
    ) -> Tensor:
        """The predicted noise at the given (noised) latents: [b, c, h, w] -> [b, c, h, w] fp32 on the CPU; predictions of
        models with v-prediction and of flow matching are converted, which take z_t = sqrt(abar) z0 + sqrt(1 - abar) eps
        like all others here.

        Args:
            captions: others than the samples' own; "" for every sample is the unconditional prediction.
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
        """What attacks measure distances by: ``one - other``, unless an add-on filters it (low_pass.py)."""
        ...

    def encode(self, pixels: Tensor) -> Tensor:
        """Images [b, 3, H, W] in [-1, 1] -> clean latents [b, c, h, w], the posterior's mode."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents -> images [b, 3, H, W] in [0, 1]."""
        ...


class WhiteBoxView(GreyBoxView, Protocol):
    """Adds gradients."""

    def gradients(self, draws: Sequence[str], timesteps: Sequence[int], layers: str) -> Gradients:
        """Of the adaptation loss at ``noise(draws[k])``, ``timesteps[k]``.

        Args:
            layers: "adapter" (the low-rank tensors; the weights themselves where all are trained) or "base" (the weights of
                the adapted layers, adapter on).
        """
        ...


class InsiderView(WhiteBoxView, Protocol):
    """Adds the proxy of the min-max game, as it was when the adapter was saved."""

    def log_odds(self, draw: str, timesteps: int | None, *, adapted: bool = True) -> Tensor:
        """log h - log(1 - h), the proxy's prediction for ``error_maps(draw, timesteps)`` of the adapted or the base model,
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
    """Looks at samples through a view; its scorer learns on aux what members look like. One file in
    ``attacks/methods/``, each a subclass of this; a dataclass, whose fields bear the names of options (``registry.from_options``)."""

    info: AttackInfo

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
