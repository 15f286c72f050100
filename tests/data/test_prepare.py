"""Shapes, crops, mirroring, wordings: what is made of an image and its caption before it is encoded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from smplora.config.data import PreparationOptions
from smplora.core.errors import ConfigError
from smplora.data import augment
from smplora.data.pictures import Framing, frame
from smplora.data.pool import Sample
from smplora.data.prepare import Preparation, preparation, size_numbers

SOLARIZE = 4  # place among RandAugment's changes; inverts what is lighter than a threshold


def sample(width: int, height: int, digest: str = "d") -> Sample:
    return Sample("x.png", "a, b, c", digest, (width, height))


def ramp(width: int, height: int) -> Image.Image:
    """Red is the column, green the row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def test_default_is_the_centred_square_alone() -> None:
    plain = preparation(PreparationOptions(), 64)
    assert plain == Preparation(64)
    assert plain.plain() == Preparation(64, every_caption=False)
    assert plain.framings(sample(50, 200)) == [Framing(64, 64)]
    assert plain.reworded("a, b,c") == ["a, b,c"]


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(512, 512, (512, 512)), (600, 590, (512, 512)), (1000, 500, (384, 704)), (500, 1000, (704, 384)),
     (640, 480, (448, 576)), (9000, 100, (384, 704))],
)  # fmt: skip
def test_the_nearest_shape(width: int, height: int, size: tuple[int, int]) -> None:
    bucketed = preparation(PreparationOptions(enable_bucket=True), 512)
    assert bucketed.size(sample(width, height)) == size


def test_shapes_have_about_the_pixels_of_the_square() -> None:
    for resolution, step in ((512, 64), (1024, 64), (32, 8)):
        buckets = preparation(PreparationOptions(enable_bucket=True, bucket_reso_steps=step), resolution).buckets
        assert len(buckets) >= 5
        assert (resolution, resolution) in buckets
        assert all(h % step == w % step == 0 for h, w in buckets)
        assert all(0.7 < h * w / resolution**2 < 1.35 for h, w in buckets)


def test_limits_of_the_shapes() -> None:
    limits = PreparationOptions(enable_bucket=True, min_bucket_reso=448, max_bucket_reso=576)
    assert all(448 <= n <= 576 for size in preparation(limits, 512).buckets for n in size)
    with pytest.raises(ConfigError, match=r"leave no bucket; those of --resolution 512 are 512x512, "):
        preparation(PreparationOptions(enable_bucket=True, min_bucket_reso=520), 512)
    with pytest.raises(ConfigError, match="--bucket_reso_steps got 64; allowed: at most --resolution, which is 32"):
        preparation(PreparationOptions(enable_bucket=True), 32)


def test_small_images_are_not_enlarged_on_request() -> None:
    kept = preparation(PreparationOptions(enable_bucket=True, bucket_no_upscale=True), 512)
    assert kept.size(sample(300, 200)) == (192, 256)
    assert kept.size(sample(40, 40)) == (64, 64)
    assert kept.size(sample(3000, 2000)) in kept.buckets


def test_crops_and_mirrors() -> None:
    rich = preparation(PreparationOptions(random_crop=True, num_crops=3, random_flip=True), 32)
    framings = rich.framings(sample(60, 40))
    assert framings[0] == Framing(32, 32)
    assert len(set(framings)) == len(framings) == 6
    assert sum(f.flipped for f in framings) == 3
    assert rich.framings(sample(60, 40)) == framings
    assert rich.framings(sample(60, 40, "other"))[1] != framings[1]
    assert len(rich.framings(sample(64, 64))) == 2  # nothing to crop
    assert rich.plain().framings(sample(60, 40)) == [Framing(32, 32)]
    assert preparation(PreparationOptions(center_crop=False), 32).crops == 4
    assert preparation(PreparationOptions(center_crop=True), 32).crops == 1


def test_crops_lie_where_they_say() -> None:
    """No resizing: a crop of 20 x 20 out of 20 x 60."""
    picture = ramp(60, 20)
    for x, left in ((0.0, 0), (0.5, 20), (1.0, 40)):
        seen = (frame(picture, Framing(20, 20, x=x)) + 1) * 127.5
        assert seen[0, 0].tolist() == pytest.approx(list(range(left, left + 20)))
        flipped = (frame(picture, Framing(20, 20, x=x, flipped=True)) + 1) * 127.5
        assert torch.equal(flipped, seen.flip(-1))


def test_the_square_in_the_centre_is_pillows() -> None:
    picture = ramp(70, 50)
    theirs = np.asarray(ImageOps.fit(picture, (32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(((frame(picture, Framing(32, 32)) + 1) * 127.5).permute(1, 2, 0).round().numpy(), theirs)


def test_size_numbers() -> None:
    """Height, width, top, left, height, width: left counts in the resized and mirrored picture."""
    assert size_numbers(sample(32, 32), Framing(32, 32)) == [32, 32, 0, 0, 32, 32]
    wide = sample(120, 40)  # resized to 60 x 20
    assert size_numbers(wide, Framing(20, 20, x=0.5)) == [40, 120, 0, 20, 20, 20]
    assert size_numbers(wide, Framing(20, 20, x=0.25)) == [40, 120, 0, 10, 20, 20]
    assert size_numbers(wide, Framing(20, 20, x=0.25, flipped=True)) == [40, 120, 0, 30, 20, 20]
    assert size_numbers(sample(40, 120), Framing(20, 20, y=1.0)) == [120, 40, 40, 0, 20, 20]


def test_one_of_several_captions() -> None:
    several = replace(sample(9, 9), caption="a, b", more_captions=("c, d", "e"))
    plain = preparation(PreparationOptions(), 32)
    assert plain.words(several) == ["a, b", "c, d", "e"]
    assert plain.plain().words(several) == ["a, b"]
    shuffled = preparation(PreparationOptions(shuffle_caption=True, num_caption_shuffles=20), 32)
    assert shuffled.words(several) == ["a, b", "c, d", "e", "b, a", "d, c"]


def test_shuffled_tags() -> None:
    shuffled = preparation(PreparationOptions(shuffle_caption=True, keep_tokens=1, num_caption_shuffles=6), 32)
    wordings = shuffled.reworded("me,  red hair, b , c, d")
    assert wordings[0] == "me,  red hair, b , c, d"
    assert 3 < len(wordings) <= 6
    assert len(set(wordings)) == len(wordings)
    for wording in wordings[1:]:
        tags = wording.split(", ")
        assert tags[0] == "me"
        assert sorted(tags[1:]) == ["b", "c", "d", "red hair"]
    assert shuffled.reworded("me,  red hair, b , c, d") == wordings
    assert shuffled.reworded("a photo of a cat") == ["a photo of a cat"]
    assert shuffled.plain().reworded("a, b, c") == ["a, b, c"]


def test_augmentations_are_further_variants() -> None:
    options = PreparationOptions(random_flip=True, augmentation="cutout", num_augmentations=3)
    framings = preparation(options, 32).framings(sample(64, 64))
    assert framings[0] == Framing(32, 32)
    assert len(set(framings)) == len(framings) == 2 * 3
    assert len({f.seed for f in framings[2:]}) == 4
    assert preparation(options, 32).framings(sample(64, 64)) == framings
    assert preparation(options, 32).framings(sample(64, 64, "other"))[2] != framings[2]
    assert preparation(options, 32).plain().framings(sample(64, 64)) == [Framing(32, 32)]


def test_cutout_covers_a_square_with_grey_and_nothing_else() -> None:
    picture = ramp(80, 80)
    plain = frame(picture, Framing(80, 80))
    covered = []
    for seed in range(30):
        seen = frame(picture, Framing(80, 80, augmentation="cutout", seed=seed))
        changed = (seen != plain).any(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        height, width = (int(x.max() - x.min()) + 1 for x in (rows, columns))
        assert max(height, width) <= 40
        assert int(changed.sum()) >= height * width - 1  # a square, but for a pixel that is grey anyway
        assert seen[:, changed].abs().max() < 0.005
        covered.append(float(changed.float().mean()))
    assert max(covered) == pytest.approx(0.25, abs=0.01)
    assert min(covered) < 0.2  # some lie over the edge
    assert torch.equal(seen, frame(picture, Framing(80, 80, augmentation="cutout", seed=29)))


def test_every_change_of_randaugment() -> None:
    """Each changes the picture, keeps its size, is the same twice; by nothing, the continuous ones do nothing."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(40, 200, (20, 30, 3), dtype=np.uint8))
    for number, change in enumerate(augment.CHANGES):
        for m in (0.3, -0.3):
            seen = change(picture, m)
            assert (seen.size, seen.mode) == (picture.size, "RGB")
            differs = seen.tobytes() != picture.tobytes()
            assert differs or number == SOLARIZE, number
            assert seen.tobytes() == change(picture, m).tobytes()
        if number >= 2:
            assert change(picture, 0.0).tobytes() == picture.tobytes(), number
    assert augment.CHANGES[SOLARIZE](picture, 1.0).tobytes() == ImageOps.invert(picture).tobytes()


def test_a_shift_of_randaugment_is_one() -> None:
    picture = ramp(60, 30)
    seen = np.asarray(augment.CHANGES[-2](picture, 0.3))  # 6 columns to the left
    assert np.array_equal(seen[:, :50], np.asarray(picture)[:, 6:56])
    assert (seen[:, 56:] == 127).all()


def test_randaugment_draws() -> None:
    picture = ramp(60, 60)
    seen = {augment.augmented(picture, "randaugment", seed).tobytes() for seed in range(40)}
    assert len(seen) > 30
