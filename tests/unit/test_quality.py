"""FID and KID against closed forms and torchmetrics; when they are refused; their intervals."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from smplora.features import load_digit_features
from smplora.quality import compare, fid, kid, with_interval


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
    for seed in range(60):
        interval = with_interval(kid, features(80, seed=2 * seed + 10), features(100, seed=2 * seed + 11, shift=0.5))
        inside += interval["low"] <= truth <= interval["high"]
    assert inside >= 52


def test_fid_is_refused_where_features_outnumber_images() -> None:
    result = compare(features(60, d=64), features(200, d=64, seed=1))
    assert result["fid"]["value"] is None
    assert "60 images, 64 features; use KID" in result["fid"]["reason"]
    assert result["kid"]["value"] is not None
    assert compare(features(80, d=64), features(200, d=64, seed=1))["fid"]["value"] is not None


def test_bundled_features_know_digits_from_noise() -> None:
    from smplora.examples import digit_images

    extractor = load_digit_features()
    pictures, _ = digit_images(range(5, 10))
    real = torch.stack([torch.tensor(list(p.tobytes())).view(32, 32, 3).permute(2, 0, 1) / 255 for p in pictures[:200]])
    a, b, noise = extractor(real[:100]), extractor(real[100:]), extractor(torch.rand(100, 3, 32, 32))
    assert kid(a, b) < 0.05 * kid(noise, b)
