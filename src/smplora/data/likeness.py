"""How near pictures are to one another, by their pixels. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

GRID = 4  # tiles by side, 16 in all: 128 pixels of 512 in Carlini et al. 2023, in proportion elsewhere
ALPHA, NEIGHBOURS = 0.5, 50  # Carlini et al. 2023, section 5, of CIFAR-10


def pixel_distances(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Of 8-bit images [a, 3, H, W] and [b, 3, H, W], H and W multiples of 4: two matrices [a, b], the largest over 16
    tiles and that of the whole image, of sqrt(mean((x - y)^2)) with pixels in [0, 1].

    Exact: sums of squares of whole numbers.
    """
    largest = total = torch.zeros(len(one), len(other), dtype=torch.float64, device=one.device)
    for x, y in zip(_tiles(one), _tiles(other), strict=True):
        squared = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        mean = squared / (x.shape[1] * 255**2)
        largest, total = largest.maximum(mean), total + mean / GRID**2
    return largest.sqrt(), total.sqrt()


def _tiles(images: Tensor) -> Iterator[Tensor]:
    grid = images.unflatten(3, (GRID, -1)).unflatten(2, (GRID, -1))  # [n, 3, GRID, h, GRID, w]
    return (grid[:, :, r, :, c].flatten(1).double() for r in range(GRID) for c in range(GRID))


def adaptive_ratios(distances: Tensor, alpha: float = ALPHA, neighbours: int = NEIGHBOURS) -> Tensor:
    """d(x, y) / (alpha * mean distance of the ``neighbours`` images nearest to x), [a, b] -> [a, b] (Carlini et al.
    2023, section 5): small where an image is much nearer than the next ones. All images count where there are fewer."""
    nearest = distances.topk(min(neighbours, distances.shape[1]), dim=1, largest=False).values
    return distances / (alpha * nearest.mean(1, keepdim=True)).clamp_min(1e-12)
