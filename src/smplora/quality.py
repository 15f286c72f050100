"""Quality of generated images: features -> statistics -> metric, with intervals. No files, no models."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import t as student_t
from torch import Tensor, nn

GROUPS = 20  # of the jackknife


class _Given(nn.Module):
    """Hands torchmetrics features that are already computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(generated: Tensor, reference: Tensor) -> float:
    """Frechet distance of the two feature sets' Gaussians (Heusel et al. 2017), [n, d] and [m, d], by torchmetrics.

    |mu_g - mu_r|^2 + tr(S_g + S_r - 2 (S_g S_r)^(1/2)).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(generated.shape[1])).set_dtype(torch.float64)
    return _compute(metric, generated, reference)


def kid(generated: Tensor, reference: Tensor) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 (Binkowski et al. 2018) of the sets [n, d] and [m, d].

    torchmetrics' kernel; its estimator is not used because it wants sets of equal size.
    """
    from torchmetrics.image.kid import poly_kernel

    x, y = generated.double(), reference.double()
    n, m = len(x), len(y)
    k_xx, k_yy, k_xy = poly_kernel(x, x), poly_kernel(y, y), poly_kernel(x, y)
    within_x = (k_xx.sum() - k_xx.trace()) / (n * (n - 1))
    within_y = (k_yy.sum() - k_yy.trace()) / (m * (m - 1))
    return float(within_x + within_y - 2 * k_xy.mean())


def _compute(metric: Any, generated: Tensor, reference: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric.update(reference.double(), real=True)
        metric.update(generated.double(), real=False)
        return float(metric.compute())


def with_interval(metric: Callable[[Tensor, Tensor], float], generated: Tensor, reference: Tensor) -> dict[str, float]:
    """The metric and its 95 % interval by the delete-a-group jackknife over both samples (Efron and Tibshirani 1993,
    chapter 11): value +- t s, s^2 = (g - 1)/g sum over groups of (theta_without - mean)^2, added over the two, with t
    of Student's distribution with g - 1 degrees of freedom.

    The bootstrap would not do: repeated images bias KID and FID upwards.
    """
    value = metric(generated, reference)
    variance = 0.0
    for which in (0, 1):
        sets = [generated, reference]
        order = torch.randperm(len(sets[which]), generator=torch.Generator().manual_seed(which))
        groups = min(GROUPS, len(order))
        left_out = []
        for g in range(groups):
            kept = order[torch.arange(len(order)) % groups != g]
            left_out.append(metric(*(s[kept] if i == which else s for i, s in enumerate(sets))))
        thetas = torch.tensor(left_out, dtype=torch.float64)
        variance += float((groups - 1) / groups * (thetas - thetas.mean()).square().sum())
    half = float(student_t.ppf(0.975, GROUPS - 1)) * variance**0.5
    return {"value": value, "low": value - half, "high": value + half}


def compare(generated: Tensor, reference: Tensor) -> dict[str, Any]:
    """The "against" entry of quality.json: KID, and FID where there are more images than features."""
    smallest, features = min(len(generated), len(reference)), generated.shape[1]
    result: dict[str, Any] = {"n": len(reference), "kid": None, "fid": None}
    result["kid"] = (
        with_interval(kid, generated, reference)
        if smallest >= 10
        else {"value": None, "reason": f"KID needs 10 images in both sets; the smaller has {smallest}"}
    )
    result["fid"] = (
        with_interval(fid, generated, reference)
        if smallest > features * GROUPS / (GROUPS - 1)
        else {
            "value": None,
            "reason": f"FID needs more images than features: {smallest} images, {features} features; use KID",
        }
    )
    return result
