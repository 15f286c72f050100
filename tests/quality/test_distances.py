"""Distances between sets of features against closed forms, slow twins and torchmetrics; refusals; intervals."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import t as student_t
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from smplora.models.encoders.digits import load_digit_features
from smplora.quality.distances import (
    cmmd,
    compare,
    fewest_for_fid,
    fid,
    kid,
    nearest,
    neighbourhoods,
    pair_distances,
    with_interval,
)


def features(n: int, d: int = 4, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return shift + scale * torch.randn((n, d), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_fid_of_gaussians_is_the_closed_form() -> None:
    """|mu|^2 + sum (s_1 - s_2)^2 for diagonal covariances."""
    found = fid(features(200_000, shift=1.0, scale=2.0), features(200_000, seed=1))
    assert found == pytest.approx(4 * 1.0 + 4 * (2 - 1) ** 2, rel=0.02)


def test_kid_is_torchmetrics_for_equal_sizes() -> None:
    x, y = features(50), features(50, seed=1, shift=0.5)
    assert kid(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)


def test_kid_one_pair_at_a_time() -> None:
    x, y = features(5), features(7, seed=1, shift=0.5)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / 4 + 1) ** 3

    xx = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    xy = [k(a, b) for a in x for b in y]
    assert kid(x, y) == pytest.approx(sum(xx) / len(xx) + sum(yy) / len(yy) - 2 * sum(xy) / len(xy))


def test_kid_is_unbiased_where_fid_is_not() -> None:
    kids = [kid(features(30, seed=2 * s), features(40, seed=2 * s + 1)) for s in range(200)]
    assert abs(sum(kids) / 200) < 3 * float(torch.tensor(kids).std()) / 200**0.5
    assert sum(fid(features(30, seed=2 * s), features(40, seed=2 * s + 1)) for s in range(10)) / 10 > 0.1


def test_interval_covers_the_truth() -> None:
    truth = kid(features(4000, seed=7), features(4000, seed=8, shift=0.5))
    inside = 0
    for seed in range(40):
        interval = with_interval(kid, features(80, seed=2 * seed + 10), features(100, seed=2 * seed + 11, shift=0.5))
        inside += interval["low"] <= truth <= interval["high"]
    assert inside >= 34


@pytest.mark.parametrize("sizes", [(12, 20), (20, 12), (12, 15), (20, 20)])
def test_few_images_give_fewer_degrees_of_freedom(sizes: tuple[int, int]) -> None:
    """Groups of one image and a difference of means: the textbook's variance, and t of the smaller set."""
    x, y = (features(n, seed=n)[:, 0] for n in sizes)
    found = with_interval(lambda a, b: float(a.mean() - b.mean()), x, y)
    half = student_t.ppf(0.975, min(sizes) - 1) * float(x.var() / len(x) + y.var() / len(y)) ** 0.5
    assert found["high"] - found["value"] == pytest.approx(half)


def test_fid_is_refused_where_features_outnumber_images() -> None:
    result = compare(features(60, d=64), features(200, d=64, seed=1))
    assert result["fid"]["value"] is None
    assert "60 images, 64 features; use KID" in result["fid"]["reason"]
    assert result["kid"]["value"] is not None
    assert compare(features(80, d=64), features(200, d=64, seed=1))["fid"]["value"] is not None


def test_bundled_features_know_digits_from_noise() -> None:
    from smplora.data.digits import digit_images

    extractor = load_digit_features()
    pictures, _ = digit_images(range(5, 10))
    real = torch.stack([torch.tensor(list(p.tobytes())).view(32, 32, 3).permute(2, 0, 1) / 255 for p in pictures[:200]])
    a, b, noise = extractor(real[:100]), extractor(real[100:]), extractor(torch.rand(100, 3, 32, 32))
    assert kid(a, b) < 0.05 * kid(noise, b)


def test_fid_is_torchmetrics() -> None:
    """Whose way is the eigenvalues of S_g S_r; also where features correlate."""
    x, y = features(80, d=6) @ features(6, d=6, seed=2), features(90, d=6, seed=1, shift=0.5)
    metric = FrechetInceptionDistance(feature=Given(6)).set_dtype(torch.float64)
    metric.update(y, real=True)
    metric.update(x, real=False)
    assert fid(x, y) == pytest.approx(float(metric.compute()), rel=1e-6)


class Given(torch.nn.Module):
    """Hands torchmetrics features that are already computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given


@pytest.mark.parametrize("d", [4, 64])
def test_fid_needs_as_many_images_as_it_says(d: int) -> None:
    enough = fewest_for_fid(d)
    result = compare(features(enough - 1, d=d), features(200, d=d, seed=1))
    assert f"or {enough} images in both sets" in result["fid"]["reason"]
    for sizes in ((enough, 200), (200, enough)):
        found = compare(features(sizes[0], d=d), features(sizes[1], d=d, seed=1))["fid"]
        assert found["low"] < found["value"] < found["high"]


def test_cmmd_one_pair_at_a_time() -> None:
    x, y = (torch.nn.functional.normalize(f, dim=1) for f in (features(5), features(7, seed=1, shift=0.5)))

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(-float((a - b).square().sum()) / (2 * 10**2))

    xx = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    xy = [k(a, b) for a in x for b in y]
    expected = 1000 * (sum(xx) / len(xx) + sum(yy) / len(yy) - 2 * sum(xy) / len(xy))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-6)
    assert compare(x.repeat(2, 1), y.repeat(2, 1), unit_clip=True)["cmmd"]["value"] > 0


def test_neighbourhoods_as_the_papers_word_them() -> None:
    """Balls around each image, looked at one by one."""
    generated, real = features(14, seed=3, shift=0.4), features(17, seed=4)

    def radius(images: torch.Tensor, i: int, k: int) -> float:
        return sorted(float((images[i] - other).norm()) for j, other in enumerate(images) if j != i)[k - 1]

    def holds(around: torch.Tensor, i: int, k: int, other: torch.Tensor) -> bool:
        return float((around[i] - other).norm()) <= radius(around, i, k)

    n, m = len(generated), len(real)
    expected = [
        sum(any(holds(real, j, 3, g) for j in range(m)) for g in generated) / n,
        sum(any(holds(generated, i, 3, r) for i in range(n)) for r in real) / m,
        sum(holds(real, j, 5, g) for g in generated for j in range(m)) / (5 * n),
        sum(any(holds(real, j, 5, g) for g in generated) for j in range(m)) / m,
    ]
    assert neighbourhoods(*pair_distances(generated, real)) == pytest.approx(expected)
    assert len(set(expected)) > 2


def test_neighbourhoods_tell_bad_images_from_missing_ones() -> None:
    """Half the modes missing: precise, not diverse. Half the images elsewhere: the other way round."""
    real = torch.cat([features(60, seed=1, shift=-5), features(60, seed=2, shift=5)])
    one_mode, half_noise = features(120, seed=3, shift=5), torch.cat([real[::2] + 0.01, features(60, shift=40)])
    precision, recall, density, coverage = neighbourhoods(*pair_distances(one_mode, real))
    assert precision > 0.8 > 0.55 > max(recall, coverage)
    assert density > 0.8
    precision, recall, density, coverage = neighbourhoods(*pair_distances(half_noise, real))
    assert precision == 0.5
    assert density < 0.8 < min(recall, coverage)


def test_intervals_of_shares_stay_within_their_range() -> None:
    same = compare(features(40), features(40, seed=1))
    far = compare(features(40), features(40, seed=1, shift=100))
    for name in ("precision", "recall", "coverage"):
        assert 0 <= same[name]["low"] <= same[name]["value"] <= same[name]["high"] <= 1
        assert far[name] == {"value": 0, "low": 0, "high": 0}


def test_nearest_images_one_by_one() -> None:
    generated, train, held_out = features(12, seed=5), features(11, seed=6), features(11, seed=7, shift=1)
    result = nearest(generated, train, held_out)
    for name, reals in (("train", train), ("held_out", held_out)):
        distances = [min(float((g - r).norm()) for r in reals) for g in generated]
        assert result[name]["value"] == pytest.approx(sum(distances) / len(distances))
    assert result["ratio"]["value"] == pytest.approx(result["train"]["value"] / result["held_out"]["value"])


def test_copies_are_near_and_images_of_the_same_kind_are_not() -> None:
    """Sets of different size are made equal: the larger one would always be nearer."""
    train, held_out = features(60, d=16, seed=1), features(200, d=16, seed=2)
    honest = nearest(features(100, d=16, seed=3), train, held_out)
    assert honest["n"] == 60
    assert honest["ratio"]["low"] < 1 < honest["ratio"]["high"]
    copies = nearest(train.repeat(2, 1)[:100] + 0.1 * features(100, d=16, seed=3), train, held_out)
    assert copies["ratio"]["high"] < 0.6


def test_interval_of_the_ratio_covers_one_without_copying() -> None:
    inside = 0
    for s in range(0, 90, 3):
        sets = (features(40, seed=s), features(30, seed=s + 1), features(30, seed=s + 2))
        ratio = nearest(*sets)["ratio"]
        inside += ratio["low"] <= 1 <= ratio["high"]
    assert inside >= 26


def test_too_few_images_for_anything() -> None:
    result = compare(features(9), features(30, seed=1))
    assert all(result[n]["value"] is None for n in ("kid", "precision", "recall", "density", "coverage"))
    assert "needs 10 images" in result["precision"]["reason"]
    assert nearest(features(20), features(9), features(30))["ratio"]["value"] is None
