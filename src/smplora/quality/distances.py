"""Quality of generated images: features -> statistics -> metric, with intervals. No files, no models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.stats import t as student_t
from torch import Tensor

GROUPS = 20  # of the jackknife
FEWEST = 10  # images in each set, for anything with an interval
PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5  # as in the papers
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0

Value = dict[str, Any]  # the VALUE of docs/formats.md


def fid(generated: Tensor, reference: Tensor) -> float:
    """Frechet distance of the two feature sets' Gaussians (Heusel et al. 2017), [n, d] and [m, d].

    |mu_g - mu_r|^2 + tr(S_g + S_r - 2 (S_g S_r)^(1/2)). With S = R'R the trace of the root is the sum of the singular
    values of R_g R_r', which is exact where libraries take roots of the eigenvalues of a matrix that is not symmetric.
    """
    x, y = generated.double(), reference.double()
    centred = [(s - s.mean(0)) / (len(s) - 1) ** 0.5 for s in (x, y)]
    r_x, r_y = (torch.linalg.qr(c, mode="r").R for c in centred)
    shared = torch.linalg.svdvals(r_x @ r_y.mT).sum()
    traces = sum(c.square().sum() for c in centred)
    return float((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * shared)


def kid(generated: Tensor, reference: Tensor) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 (Binkowski et al. 2018) of the sets [n, d] and [m, d].

    torchmetrics' kernel; its estimator is not used because it wants sets of equal size.
    """
    return _mmd(*_kernels(_cubic, generated, reference))


def cmmd(generated: Tensor, reference: Tensor) -> float:
    """CMMD (Jayasumana et al. 2024): 1000 times the squared MMD with the kernel exp(-|x - y|^2 / 200) of unit vectors
    [n, d] and [m, d]. The unbiased estimate of the paper's text; its code takes the biased one, which is larger."""
    return _mmd(*_kernels(_gaussian, generated, reference))


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    from torchmetrics.image.kid import poly_kernel

    kernel: Tensor = poly_kernel(x, y)
    return kernel


def _gaussian(x: Tensor, y: Tensor) -> Tensor:
    return CMMD_SCALE * torch.exp(-_squared_distances(x, y) / (2 * CMMD_SIGMA**2))


def _kernels(kernel: Callable[[Tensor, Tensor], Tensor], generated: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
    x, y = generated.double(), reference.double()
    return kernel(x, x), kernel(y, y), kernel(x, y)


def _mmd(k_xx: Tensor, k_yy: Tensor, k_xy: Tensor) -> float:
    n, m = k_xy.shape
    within_x = (k_xx.sum() - k_xx.trace()) / (n * (n - 1))
    within_y = (k_yy.sum() - k_yy.trace()) / (m * (m - 1))
    return float(within_x + within_y - 2 * k_xy.mean())


def neighbourhoods(d_gg: Tensor, d_rr: Tensor, d_gr: Tensor) -> list[float]:
    """From squared distances [n, n], [m, m], [n, m], with B_k(x) the ball around x that reaches its k-th nearest other
    image of the same set.

    Precision: the share of generated images in the union of the B_3 of the reference images; recall: the share of
    reference images in the union of the B_3 of the generated ones (Kynkaanniemi et al. 2019). Density: how many B_5 of
    reference images a generated image lies in, divided by 5; coverage: the share of reference images whose B_5 holds a
    generated image (Naeem et al. 2020).
    """
    around_g, around_r = _radii(d_gg, PRECISION_NEIGHBOURS), _radii(d_rr, PRECISION_NEIGHBOURS)
    wide = d_gr <= _radii(d_rr, DENSITY_NEIGHBOURS)
    return [
        float((d_gr <= around_r).any(1).double().mean()),
        float((d_gr <= around_g[:, None]).any(0).double().mean()),
        float(wide.double().sum(1).mean() / DENSITY_NEIGHBOURS),
        float(wide.any(0).double().mean()),
    ]


def _radii(distances: Tensor, neighbours: int) -> Tensor:
    """Squared distance of each image to its k-th nearest other."""
    return distances.topk(neighbours + 1, largest=False).values[:, -1]  # the nearest is the image itself


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.mT
    return squares.clamp(min=0)


def pair_distances(generated: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
    """Squared distances [n, n], [m, m] and [n, m] within and between the sets [n, d] and [m, d]."""
    d_gg, d_rr, d_gr = _kernels(_squared_distances, generated, reference)
    d_gg.fill_diagonal_(0)
    d_rr.fill_diagonal_(0)
    return d_gg, d_rr, d_gr


def jackknife(metric: Callable[..., Sequence[float]], *sets: Tensor) -> list[dict[str, float]]:
    """Each number of a metric of several sets of images and its 95 % interval by the delete-a-group jackknife over all
    of them (Efron and Tibshirani 1993, chapter 11): value +- t s, s^2 = (g - 1)/g sum over groups of (theta_without -
    mean)^2, added over the sets, with t of Student's distribution with g - 1 degrees of freedom, of the set with the
    fewest groups: g is 20, or the number of images where there are fewer.

    The bootstrap would not do: repeated images bias KID and FID upwards, and are their own nearest neighbours.
    """
    values = metric(*sets)
    variances = torch.zeros(len(values), dtype=torch.float64)
    fewest = min(GROUPS, *(len(members) for members in sets))
    for which, members in enumerate(sets):
        order = torch.randperm(len(members), generator=torch.Generator().manual_seed(which))
        groups = min(GROUPS, len(order))
        left_out = []
        for g in range(groups):
            rest = order[torch.arange(len(order)) % groups != g]
            left_out.append(metric(*(s[rest] if i == which else s for i, s in enumerate(sets))))
        thetas = torch.tensor(left_out, dtype=torch.float64)
        variances += (groups - 1) / groups * (thetas - thetas.mean(0)).square().sum(0)
    half = float(student_t.ppf(0.975, fewest - 1)) * variances.sqrt()
    return [{"value": v, "low": v - h, "high": v + h} for v, h in zip(values, half.tolist(), strict=True)]


def with_interval(metric: Callable[[Tensor, Tensor], float], generated: Tensor, reference: Tensor) -> dict[str, float]:
    """A metric that is one number; see ``jackknife``."""
    return jackknife(lambda *sets: [metric(*sets)], generated, reference)[0]


def _of_pairs(
    metric: Callable[[Tensor, Tensor, Tensor], Sequence[float]], pairs: tuple[Tensor, ...]
) -> list[dict[str, float]]:
    """``jackknife`` of a metric that sees the sets through numbers of pairs, [n, n], [m, m] and [n, m], which are
    computed once."""
    gg, rr, gr = pairs

    def of_some(g: Tensor, r: Tensor) -> Sequence[float]:
        return metric(gg[g][:, g], rr[r][:, r], gr[g][:, r])

    return jackknife(of_some, torch.arange(len(gg)), torch.arange(len(rr)))


def compare(generated: Tensor, reference: Tensor, *, unit_clip: bool = False) -> dict[str, Any]:
    """An entry of "against" in quality.json.

    Args:
        generated, reference: features [n, d] and [m, d].
        unit_clip: they are CLIP's unit vectors, which CMMD is made for.
    """
    smallest, features = min(len(generated), len(reference)), generated.shape[1]
    names = ("precision", "recall", "density", "coverage")
    if smallest < FEWEST:
        too_few = f"needs {FEWEST} images in both sets; the smaller has {smallest}"
        values = {name: missing(f"{name} {too_few}") for name in names}
        kids = missing(f"KID {too_few}")
        cmmds = missing(f"CMMD {too_few}")
    else:
        shares = _of_pairs(neighbourhoods, pair_distances(generated, reference))
        values = dict(zip(names, (_clamped(v, n) for v, n in zip(shares, names, strict=True)), strict=True))
        kids = _of_pairs(lambda *k: [_mmd(*k)], _kernels(_cubic, generated, reference))[0]
        cmmds = _of_pairs(lambda *k: [_mmd(*k)], _kernels(_gaussian, generated, reference))[0] if unit_clip else {}
    return {
        "n": len(reference),
        "kid": kids,
        "fid": with_interval(fid, generated, reference)
        if smallest >= fewest_for_fid(features)
        else missing(
            f"FID needs more images than features: {smallest} images, {features} features; use KID, or "
            f"{fewest_for_fid(features)} images in both sets"
        ),
        **({"cmmd": cmmds} if unit_clip else {}),
        **values,
    }


def fewest_for_fid(features: int) -> int:
    """The smallest set whose covariance has full rank, also without one group of the jackknife."""
    n = features + 1
    while n - -(-n // GROUPS) <= features:
        n += 1
    return n


def nearest(generated: Tensor, train: Tensor, held_out: Tensor) -> dict[str, Any]:
    """Whether generated images [n, d] lie nearer to the training images than to others of their kind: the mean distance
    to the nearest of k training images divided by that to the nearest of k held-out images, k as many as both sets
    have (chosen at random from the larger one). 1 without copying, below 1 with it."""
    k = min(len(train), len(held_out))
    result: dict[str, Any] = {"n": k}
    if min(k, len(generated)) < FEWEST:
        reason = f"nearest images need {FEWEST} images in every set; the smallest has {min(k, len(generated))}"
        return {**result, **{name: missing(reason) for name in ("train", "held_out", "ratio")}}
    sets = [s[torch.randperm(len(s), generator=torch.Generator().manual_seed(0))[:k]] for s in (train, held_out)]
    to_train, to_held_out = (_squared_distances(generated.double(), s.double()).sqrt() for s in sets)

    def of_some(g: Tensor, t: Tensor, h: Tensor) -> Sequence[float]:
        means = [float(d[g][:, s].amin(1).mean()) for d, s in ((to_train, t), (to_held_out, h))]
        return [*means, means[0] / means[1] if means[1] else 1.0]

    ratio = jackknife(of_some, torch.arange(len(generated)), torch.arange(k), torch.arange(k))
    return {**result, **dict(zip(("train", "held_out", "ratio"), ratio, strict=True))}


def normal_interval(values: Tensor) -> dict[str, float]:
    """The mean of independent values [n] with its normal 95 % interval."""
    values = values.double()
    half = 1.96 * float(values.std(correction=min(1, len(values) - 1))) / len(values) ** 0.5
    mean = float(values.mean())
    return {"value": mean, "low": mean - half, "high": mean + half}


def missing(reason: str) -> Value:
    """A number that does not exist."""
    return {"value": None, "reason": reason}


def _clamped(value: dict[str, float], name: str) -> dict[str, float]:
    """With an interval inside of what the number can be: a share between 0 and 1, a density above 0."""
    highest = value["high"] if name == "density" else min(1.0, value["high"])
    return {**value, "low": max(0.0, value["low"]), "high": highest}
