"""Images that are generated to be measured: drawn in batches, each from its own seed, kept in the private cache as they
come.

An image is known by everything that decides it, so that what was killed goes on where it was, an evaluation with other
features draws nothing, and another adapter or setting never gets this one's images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from smplora.core.console import bar
from smplora.core.errors import ConfigError
from smplora.models.diffusion import LatentDiffusion
from smplora.models.encoders.transformers import LARGEST_FOR_BUNDLED
from smplora.runs.subject import Loaded

KIND = "generated/1"
AT_ONCE = 100


class Images:
    """Pictures [n, 3, H, W] in [0, 1]; those above 64 pixels as 8 bits, which is what PNG files hold."""

    def __init__(self, pictures: list[Tensor]) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, rows: slice) -> Tensor:
        """Some of them, as numbers between 0 and 1."""
        stacked = torch.stack(self._pictures[rows])
        return stacked.float() / 255 if stacked.dtype == torch.uint8 else stacked

    def parts(self) -> Iterator[Tensor]:
        """All of them, some at a time."""
        return (self[start : start + AT_ONCE] for start in range(0, len(self), AT_ONCE))


def check_inference_steps(steps: int, option: str, model: LatentDiffusion) -> None:
    """See whether an image can be drawn in so many steps.

    Raises:
        ConfigError: the model has fewer timesteps.
    """
    most = model.num_train_timesteps
    if steps > most:
        raise ConfigError(f"--{option} got {steps}; allowed: {most} at most, the timesteps of the base model")


def generate(
    loaded: Loaded,
    captions: Sequence[str],
    seeds: Sequence[int],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    batch_size: int,
    progress: bool,
    title: str = "generate",
) -> Images:
    """One image per caption, each from its own seed."""
    settings = [str(x) for x in (loaded.resolution, num_inference_steps, guidance_scale)]
    keys = [_key(loaded, [*settings, str(seed)], caption) for caption, seed in zip(captions, seeds, strict=True)]
    cached = {i: entry["image"] for i, key in enumerate(keys) if loaded.cache and (entry := loaded.cache.load(*key))}
    lacking = [i for i in range(len(captions)) if i not in cached]
    title = f"{title} {loaded.subject.label}"
    with bar(len(captions), title, unit="image", initial=len(cached), show=progress and bool(lacking)) as display:
        for start in range(0, len(lacking), batch_size):
            part = lacking[start : start + batch_size]
            images = loaded.model.generate(
                [captions[i] for i in part],
                [seeds[i] for i in part],
                resolution=loaded.resolution,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
            )
            for i, image in zip(part, _as_cached(images), strict=True):
                cached[i] = image.clone()
                if loaded.cache:
                    loaded.cache.save({"image": image}, *keys[i])
            display.update(len(part))
    return Images([cached[i] for i in range(len(captions))])


def _as_cached(images: Tensor) -> Tensor:
    return images if images.shape[-1] <= LARGEST_FOR_BUNDLED else (images * 255).round().byte()


def _key(loaded: Loaded, settings: Sequence[str], caption: str) -> tuple[str, ...]:
    model = loaded.model
    schedule = {name: str(value) for name, value in model.sampler().config.items() if not name.startswith("_")}
    precision = [str(model.denoiser.dtype), str(model.vae.dtype), model.device.type]
    words = [str(model.text.clip_skip), str(model.text.chunks)]
    words.append(str(getattr(loaded.adapted.adaptation, "alphas", "")))  # of peft's files they lie in another one
    what = json.dumps(schedule, sort_keys=True)
    return (KIND, model.digest, loaded.adapter_sha256, what, *precision, *words, *settings, caption)
