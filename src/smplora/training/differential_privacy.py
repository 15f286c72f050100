"""Differentially private gradients: Poisson samples of images, each image's gradient clipped, noise (DP-SGD).

Of n training images every step takes each with probability q, independently. With l_i the mean loss of image i over K
draws of timestep and noise, g_i its gradient and C = --max_grad_norm, the adapter's optimizer gets

    (sum over the images taken of g_i min(1, C / ||g_i||)  +  sigma C N(0, I)) / (q n).

Abadi et al. 2016 (arXiv 1607.00133); several draws per image before clipping: Dockhorn et al. 2023 (arXiv 2210.09929),
DP-LoRA (arXiv 2406.01355). Epsilon for adding or removing one image is the PRV accountant's (Gopi et al. 2021), from
Opacus. Where little noise makes its grid too large for memory, it is the RDP accountant's (Mironov 2017), never
smaller. It holds while nobody can guess the noise, so its seed is drawn by the operating system and never published.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smplora.config.optimization import OptimizationOptions
from smplora.config.private import PrivateOptions
from smplora.core.console import say
from smplora.core.errors import CheckpointError, ConfigError
from smplora.core.files import write_atomically
from smplora.core.random_streams import generator
from smplora.core.reading import Unreadable, read_text
from smplora.data.cells import Cell, VariantChoice
from smplora.models.batch import Batch
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.models.sample_gradients import recorded, sample_weights
from smplora.results.run import Privacy
from smplora.runs.folder import NOISE_SEED
from smplora.training.batches import training_draw

PRV, RDP = "PRV", "RDP"  # accountants
PRV_ERROR = 0.01  # of the PRV accountant's epsilon
MOST_REACH = 300  # of the PRV accountant's grid: its exponentials overflow at 709
MOST_POINTS = 2**23  # of its grid: some hundred MiB, some seconds
NO_PROTECTION = 100  # an epsilon that promises nothing of use
MOST_NOISE, EPSILON_TOLERANCE = 1e6, 0.01  # of the search for the least noise


@dataclass(frozen=True)
class Guarantee:
    """The mechanism, and what it promises."""

    noise_multiplier: float  # sigma
    sample_rate: float  # q
    delta: float

    def epsilon(self, steps: int) -> float:
        """Epsilon after so many steps, an upper bound; infinity where no number is small enough."""
        return _epsilon(self, steps)

    def accountant(self, steps: int) -> str:
        """The one that bounds epsilon after so many steps."""
        reach, points = self.grid(steps)
        return PRV if reach <= MOST_REACH and points <= MOST_POINTS else RDP

    def grid(self, steps: int) -> tuple[float, float]:
        """What the PRV accountant computes with: numbers from -L to L, with L the epsilon of RDP at a smaller delta, on
        a mesh that keeps its error (Gopi et al. 2021, remark 5.6). Returns L and how many they are."""
        return _grid(self, steps)

    def describe(self, max_grad_norm: float, noise_multiplicity: int, steps: int) -> Privacy:
        """What is promised after so many steps."""
        return Privacy(
            epsilon=self.epsilon(steps),
            delta=self.delta,
            neighbours="data sets that differ by one image and its caption",
            accountant=f"{self.accountant(steps)} (Opacus)",
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=steps,
            max_grad_norm=max_grad_norm,
            noise_multiplicity=noise_multiplicity,
        )


@lru_cache
def _epsilon(mechanism: Guarantee, steps: int) -> float:
    from opacus.accountants import PRVAccountant, RDPAccountant

    accountant = RDPAccountant() if mechanism.accountant(steps) == RDP else PRVAccountant()
    accountant.history = [(mechanism.noise_multiplier, mechanism.sample_rate, steps)]
    with warnings.catch_warnings(action="ignore"):  # PRV's first guess is RDP's, which may be coarse
        bound = float(accountant.get_epsilon(mechanism.delta))
    return math.inf if math.isnan(bound) else bound


@lru_cache
def _grid(mechanism: Guarantee, steps: int) -> tuple[float, float]:
    from opacus.accountants import RDPAccountant

    rdp, delta = RDPAccountant(), mechanism.delta / 1000
    rdp.history = [(mechanism.noise_multiplier, mechanism.sample_rate, steps)]
    with warnings.catch_warnings(action="ignore"):
        reach = float(rdp.get_epsilon(delta / 4)) + 3
    points = 2 * reach * math.sqrt(steps * math.log(12 / delta) / 2) / PRV_ERROR
    return reach, points


def check_private(
    options: PrivateOptions, batch_size: int, images: int, steps: int, processes: int, progress: bool, repeats: int = 1
) -> None:
    """Say what will be promised; arguments as of ``guarantee``.

    Args:
        repeats: how often the image that is trained on most often is taken in a pass.

    Raises:
        ConfigError: it cannot be.
    """
    if processes > 1:
        raise ConfigError(f"--objective dp_lora runs in one process; accelerate started {processes}")
    if repeats > 1:
        raise ConfigError(
            f"--objective dp_lora takes every image equally often, and some are to be taken {repeats} times in a pass "
            "(folder names such as '10_dog'); give --folder_repeats false"
        )
    promise = guarantee(options, batch_size, images, steps)
    epsilon = promise.epsilon(steps)
    if not math.isfinite(epsilon):
        raise ConfigError(
            f"--noise_multiplier got {options.noise_multiplier}, so little noise over {steps} steps that no epsilon "
            "can be promised; give more, such as 1"
        )
    if progress:
        useless = f"; above {NO_PROTECTION} it protects nobody: give more noise" * (epsilon > NO_PROTECTION)
        say(
            f"differential privacy: epsilon {epsilon:.3g} ({promise.accountant(steps)}), delta {promise.delta:g} after "
            f"{steps} steps; noise multiplier {promise.noise_multiplier:.3g}, {promise.sample_rate:.3g} of the images "
            f"in a step{useless}"
        )


def guarantee(options: PrivateOptions, batch_size: int, images: int, steps: int) -> Guarantee:
    """That of a run, with the least noise that keeps ``--target_epsilon``.

    Args:
        batch_size: images in a step on average.
        images: that are trained on.

    Raises:
        ConfigError: no noise keeps it, Opacus is not installed, or a batch holds more than all images.
    """
    if batch_size > images:
        raise ConfigError(
            f"--train_batch_size got {batch_size} of {images} training images; allowed: at most all of them"
        )
    rate = batch_size / images
    if find_spec("opacus") is None:
        raise ConfigError("--objective dp_lora needs opacus: pip install smplora[dp]")
    if options.noise_multiplier:
        return Guarantee(options.noise_multiplier, rate, options.target_delta)
    try:
        sigma = _least_noise(options.target_epsilon or 0.0, options.target_delta, rate, steps)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--target_epsilon got {options.target_epsilon}, which no noise keeps over {steps} steps with a share of "
            f"{rate:.3g} of the images in each: give more, or fewer steps, or a smaller --train_batch_size"
        ) from error
    return Guarantee(sigma, rate, options.target_delta)


@lru_cache
def _least_noise(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """By bisection, as Opacus' ``get_noise_multiplier``, which would ask the PRV accountant whatever its grid."""

    def promised(sigma: float) -> float:
        return Guarantee(sigma, rate, delta).epsilon(steps)

    low, high = 0.0, 20.0
    while (reached := promised(high)) > epsilon:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise ValueError("no noise is enough")
    while epsilon - reached > EPSILON_TOLERANCE and high - low > 1e-6 * high:
        middle = (low + high) / 2
        of_middle = promised(middle)
        if of_middle < epsilon:
            high, reached = middle, of_middle
        else:
            low = middle
    return high


def noise_seed(folder: Path) -> str:
    """The run's secret, made when it starts; readable by its owner alone.

    Raises:
        OSError: it cannot be written.
        CheckpointError: it is damaged: other noise on resuming would void the guarantee.
    """
    path = folder / NOISE_SEED
    if not path.exists():
        write_atomically(path, os.urandom(32).hex())
    try:
        secret = read_text(path)
    except Unreadable as error:
        raise CheckpointError(f"{path} is damaged ({error}); train anew in another folder") from error
    if not re.fullmatch(r"[0-9a-f]{64}", secret):
        raise CheckpointError(f"{path} is damaged (not 64 hexadecimal digits); train anew in another folder")
    return secret


def poisson_sample(cell: Cell, rate: float, secret: str, step: int) -> list[tuple[int, list[int]]]:
    """The images of a step, each taken with probability ``rate``: (group, rows) of every group that has any."""
    taken = torch.rand(len(cell), generator=generator(secret, "poisson", step)) < rate
    sampled = [(g, [r for r, place in enumerate(group.places) if taken[place]]) for g, group in enumerate(cell.groups)]
    return [(g, rows) for g, rows in sampled if rows]


def clip_factors(norms: Tensor, bound: float) -> Tensor:
    """min(1, C / ||g_i||) [b]; an image without gradient stays as it is."""
    return (bound / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1)


def clipped_sum(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    """Sum of the samples' gradients, each scaled down to the norm ``bound`` over all tensors together.

    Args:
        gradients: of each parameter, [b, ...].

    Returns:
        of each parameter [...]; each sample's norm before, [b].
    """
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    factors = clip_factors(norms, bound)
    return [torch.tensordot(factors, g, dims=1) for g in gradients], norms


class PrivateGradients:
    """Makes a step's gradients in place of the backward pass of a batch."""

    def __init__(
        self,
        options: OptimizationOptions,
        noise_multiplicity: int,
        seed: int,
        model: LatentDiffusion,
        train: Cell,
        layers: Sequence[nn.Module],
        promise: Guarantee,
        secret: str,
    ) -> None:
        self.options, self.noise_multiplicity, self.seed = options, noise_multiplicity, seed
        self.model, self.train, self.layers = model, train, list(layers)
        self.promise, self.secret = promise, secret
        self.weights: list[nn.Parameter] = [layer.get_parameter("weight") for layer in self.layers]

    def make(self, step: int, autocast: Callable[[], AbstractContextManager[Any]]) -> dict[str, Tensor]:
        """Set every weight's gradient.

        Returns:
            for the log: "loss" and "adaptation_loss", the mean over the step's images, and "clipped", the share of them
            whose gradient was longer than the bound. A step without any image has noise alone, and says 0 of each.
        """
        bound, device = self.options.max_grad_norm, self.model.device
        totals = [torch.zeros_like(weight) for weight in self.weights]
        losses = clipped = torch.zeros((), device=device)
        images = 0
        for k, batch in enumerate(self._batches(step)):
            gradients, mean_losses = self._each(batch, step, k, autocast)
            parts, norms = clipped_sum(gradients, bound)
            torch._foreach_add_(totals, parts)
            losses, clipped = losses + mean_losses.sum(), clipped + (norms > bound).sum()
            images += len(batch)
        rng = generator(self.secret, "noise", step)
        scale = self.promise.sample_rate * len(self.train)
        for weight, total in zip(self.weights, totals, strict=True):
            noise = torch.randn(weight.shape, generator=rng).to(device)
            weight.grad = (total + self.promise.noise_multiplier * bound * noise) / scale
        loss = losses / max(images, 1)
        return {"loss": loss, "adaptation_loss": loss, "clipped": clipped / max(images, 1)}

    def _batches(self, step: int) -> Iterator[Batch]:
        size, choose = self.options.train_batch_size, VariantChoice((self.seed, "train", step))
        for g, rows in poisson_sample(self.train, self.promise.sample_rate, self.secret, step):
            for start in range(0, len(rows), size):
                yield self.train.batch(self.train.groups[g], rows[start : start + size], choose)

    @contextmanager
    def _graph_of_outputs(self) -> Iterator[None]:
        """Inside, a backward pass makes no gradient of the whole batch, which nobody wants."""
        for weight in self.weights:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in self.weights:
                weight.requires_grad_(True)

    def _each(
        self, batch: Batch, step: int, part: int, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> tuple[list[Tensor], Tensor]:
        """Each image's gradient of its mean loss over the draws: of every weight [b, ...]; and those losses [b]."""
        draws, samples = self.noise_multiplicity, len(batch)
        sums: list[Tensor] = []
        losses = torch.zeros(samples, device=self.model.device)
        for k in range(draws):
            name = f"adapter {part} {k}"
            offset, model = self.options.noise_offset, self.model
            draw = training_draw(batch, model.num_train_timesteps, self.seed, name, step, offset, model.timesteps_of)
            with recorded(self.layers, samples) as records, self._graph_of_outputs():
                with autocast():
                    of_draw = adaptation_loss(self.model.error_maps(batch, draw))
                of_draw = of_draw * self.model.loss_weights(draw.timesteps, self.options.snr_gamma)
                of_draw.sum().backward()
            losses += of_draw.detach() / draws
            for i, layer in enumerate(self.layers):
                record = records[layer]
                slopes = torch.zeros_like(record.outputs) if record.slopes is None else record.slopes
                gradient = sample_weights(record.inputs, slopes).reshape(samples, *self.weights[i].shape) / draws
                if k == 0:
                    sums.append(gradient)
                else:
                    sums[i] += gradient
        return sums, losses
