"""What a training says before its first step: what is adapted, how much there is to do, and about how long it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from smplora.config.train import TrainConfig
from smplora.core.files import BUNDLED
from smplora.core.wording import duration
from smplora.models.diffusion import LatentDiffusion
from smplora.statistics.power import detectable_auc
from smplora.training.setup import Setup

OF_A_STEP = 2.0  # passes of the denoiser: one forward, and back through frozen weights about as much
SAYS_MUCH, IMAGES_THAT_SAY_MUCH = 0.66, 278  # an AUC that an audit finds, and images in all, a fifth of them a cell
OF_THE_PROXY = {"none": 2.0, "aux": 0.5, "all": 1.0}  # forward passes a turn, by --proxy_sharing


def toy_warning(name: str) -> str | None:
    """What to know first about one of the bundled models; None for any other."""
    if name not in BUNDLED:
        return None
    return (
        f"{BUNDLED[name][0]} ('{name}') is a toy that draws digits of 32 x 32 pixels: good for trying smplora, not for "
        "pictures or for judging how private yours are; --pretrained_model_name_or_path names another"
    )


def what_can_be_found(sizes: Mapping[str, int]) -> str | None:
    """Of cells that are too small for an audit that says much: what it could find; None of larger ones."""
    members, nonmembers = (min(sizes[f"{half}_{kind}"] for half in ("aux", "test")) for kind in ("member", "nonmember"))
    if min(members, nonmembers) < 1 or (least := detectable_auc(members, nonmembers)) <= SAYS_MUCH:
        return None
    return (
        f"cells of {members} members and {nonmembers} others are small: of leaks with an AUC of {least:.2f} an audit "
        f"finds four in five, of smaller ones fewer; {IMAGES_THAT_SAY_MUCH} images in all do so at {SAYS_MUCH:.2f}"
    )


def base_in_words(model: LatentDiffusion, resolution: int | None, buckets: bool = False) -> str:
    """Base model, resolution (pixels) and token limit."""
    edge = resolution or model.resolution
    size = f"about as many pixels as {edge} x {edge}" if buckets else f"{edge} x {edge} pixels"
    return f"base model: {model.name}; images of {size}, captions of up to {model.text.longest} tokens"


def what_is_done(config: TrainConfig, model: LatentDiffusion, processes: int) -> str:
    """The base model, objective and steps, in a line."""
    batch = config.train_batch_size * config.gradient_accumulation_steps * processes
    base = base_in_words(model, config.resolution, config.enable_bucket)
    return f"{base}; {config.objective}: {config.max_train_steps:,} steps, {batch} images at a time"


def expected_seconds(config: TrainConfig, setup: Setup, start: int) -> float | None:
    """About how long the steps from ``start`` on take, from the forward pass of one batch.

    None where that says too little: nothing left, a denoiser that is compiled first, private gradients.
    """
    left = setup.steps - start
    if left <= 0 or config.compile or setup.private:
        return None
    batch, draw = next(setup.feed.adapter(start))
    began = 0.0
    with torch.no_grad(), setup.autocast():
        for _ in range(2):  # the first is slower: libraries choose how to compute
            began = time.perf_counter()
            float(setup.model.error_maps(batch, draw).sum())  # waits for the device
    forward = time.perf_counter() - began
    passes = OF_A_STEP + config.gradient_checkpointing + (setup.teachers is not None)
    proxy = 0.0
    if setup.game.uses_proxy:
        size = (config.proxy_batch_size or config.train_batch_size) / config.train_batch_size
        proxy = OF_THE_PROXY[config.proxy_sharing] * size * config.proxy_steps / config.proxy_interval
    return left * forward * (passes * config.gradient_accumulation_steps + proxy)


def how_long(config: TrainConfig, setup: Setup, start: int) -> str | None:
    """The line about it, if there is one."""
    seconds = expected_seconds(config, setup, start)
    return (
        None if seconds is None else f"about {duration(seconds)} by the speed of one batch; the bar knows better soon"
    )
