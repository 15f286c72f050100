"""How pictures and captions are prepared: shapes, crops, mirroring, wordings. Functions of the content alone, so that
what was encoded once can be used again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from smplora.config.data import PreparationOptions
from smplora.core.errors import ConfigError
from smplora.core.random_streams import generator, stream_seed
from smplora.data.pictures import Framing
from smplora.data.pool import Sample

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Preparation:
    """What is made of each image and caption."""

    resolution: int
    buckets: tuple[Size, ...] = ()  # none: a square
    bucket_step: int = 64
    upscales: bool = True
    crops: int = 1
    flips: bool = False
    augmentation: str = ""
    augmentations: int = 1
    wordings: int = 1
    keep_tokens: int = 0
    dropout: float = 0.0
    every_caption: bool = True

    def plain(self) -> Preparation:
        """The same shapes; centred, not mirrored or changed, captions as written: what audits see."""
        return replace(
            self, crops=1, flips=False, augmentation="", augmentations=1, wordings=1, dropout=0.0, every_caption=False
        )

    def size(self, sample: Sample) -> Size:
        """Height and width in pixels: a square, or the bucket whose aspect ratio is nearest."""
        if not self.buckets:
            return self.resolution, self.resolution
        width, height = sample.size
        if not self.upscales and width * height < self.resolution**2:
            return tuple(max(self.bucket_step, n // self.bucket_step * self.bucket_step) for n in (height, width))  # type: ignore[return-value]
        from diffusers.training_utils import find_nearest_bucket

        return self.buckets[find_nearest_bucket(height, width, self.buckets)]

    def framings(self, sample: Sample) -> list[Framing]:
        """All variants of an image: crops times orientations times augmentations; the first is centred, not mirrored
        and not changed. Where nothing is too much, there is only one crop."""
        height, width = self.size(sample)
        places = [(0.5, 0.5)]
        if sample.size[0] * height != sample.size[1] * width:
            for k in range(1, self.crops):
                x, y = torch.rand(2, generator=generator("crop", sample.digest, k), dtype=torch.float64).tolist()
                places.append((round(x, 6), round(y, 6)))
        framings = [Framing(height, width, x, y, f) for f in (False, True)[: 1 + self.flips] for x, y in places]
        changed = [
            replace(framing, augmentation=self.augmentation, seed=stream_seed("augmentation", sample.digest, k, i))
            for k in range(1, self.augmentations)
            for i, framing in enumerate(framings)
        ]
        return framings + changed

    def words(self, sample: Sample) -> list[str]:
        """All wordings of an image's caption, or captions; the first is the first caption as written."""
        captions = (sample.caption, *sample.more_captions) if self.every_caption else (sample.caption,)
        first = [*captions, *(wording for caption in captions for wording in self.reworded(caption))]
        return list(dict.fromkeys(first))

    def reworded(self, caption: str) -> list[str]:
        """The caption as written, then with its tags (what commas separate) in other orders, the first ``keep_tokens``
        of them in place. No order twice."""
        tags = [tag.strip() for tag in caption.split(",")]
        fixed, loose = tags[: self.keep_tokens], tags[self.keep_tokens :]
        wordings = [caption]
        for k in range(1, self.wordings):
            order = torch.randperm(len(loose), generator=generator("shuffle", caption, k)).tolist()
            wordings.append(", ".join(fixed + [loose[i] for i in order]))
        return list(dict.fromkeys(wordings))


def size_numbers(sample: Sample, framing: Framing) -> list[int]:
    """SDXL's six numbers (Podell et al. 2023, section 2.2): height and width of the original, top and left of the crop
    in the resized (and mirrored) picture, height and width of what is seen."""
    width, height = sample.size
    scale = max(framing.height / height, framing.width / width)
    top = round(framing.y * (height * scale - framing.height))
    across = 1 - framing.x if framing.flipped else framing.x
    left = round(across * (width * scale - framing.width))
    return [height, width, top, left, framing.height, framing.width]


def preparation(options: PreparationOptions, resolution: int) -> Preparation:
    """The preparation that options ask for.

    Raises:
        ConfigError: no bucket lies between the given limits.
    """
    return Preparation(
        resolution,
        buckets=_buckets(options, resolution) if options.enable_bucket else (),
        bucket_step=options.bucket_reso_steps,
        upscales=not options.bucket_no_upscale,
        crops=options.num_crops if options.crops_at_random else 1,
        flips=options.random_flip,
        augmentation="" if options.augmentation == "none" else options.augmentation,
        augmentations=1 if options.augmentation == "none" else options.num_augmentations,
        wordings=options.num_caption_shuffles if options.shuffle_caption else 1,
        keep_tokens=options.keep_tokens,
        dropout=options.caption_dropout_rate,
    )


def check_edges(resolution: int | None, bucket_step: int | None, multiple: int) -> None:
    """See whether the denoiser takes images of the sizes that are asked for.

    Args:
        resolution: None: the model's own.
        bucket_step: None: without buckets.
        multiple: what the edges of images are multiples of, in pixels.

    Raises:
        ConfigError: it does not.
    """
    for name, pixels in (("resolution", resolution), ("bucket_reso_steps", bucket_step)):
        if pixels and pixels % multiple:
            below = max(1, pixels // multiple) * multiple
            raise ConfigError(
                f"--{name} got {pixels}; allowed: multiples of {multiple} with this base model, such as {below}"
            )


def _buckets(options: PreparationOptions, resolution: int) -> tuple[Size, ...]:
    from diffusers.training_utils import generate_aspect_ratio_buckets

    step = options.bucket_reso_steps
    if step > resolution:
        raise ConfigError(f"--bucket_reso_steps got {step}; allowed: at most --resolution, which is {resolution}")
    low, high = options.min_bucket_reso or step, options.max_bucket_reso or 2**31
    every = generate_aspect_ratio_buckets(resolution, divisibility=step)
    buckets = tuple(size for size in every if low <= min(size) and max(size) <= high)
    if not buckets:
        most = f" and --max_bucket_reso {options.max_bucket_reso}" if options.max_bucket_reso else ""
        there = ", ".join(f"{w}x{h}" for h, w in every)
        raise ConfigError(
            f"--min_bucket_reso {low}{most} leave no bucket; those of --resolution {resolution} are {there}"
        )
    return buckets
