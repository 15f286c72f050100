"""Two by two latents as one place of a transformer: FLUX.1, Qwen-Image."""

from __future__ import annotations

from torch import Tensor


def packed(latents: Tensor) -> Tensor:
    """Two by two latents in a row: [b, c, 2 h, 2 w] -> [b, h w, 4 c]."""
    parts = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [b, c, h, 2, w, 2]
    rows: Tensor = parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return rows


def unpacked(rows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``packed``: [b, h w, 4 c] -> [b, c, 2 h, 2 w]."""
    parts = rows.unflatten(2, (-1, 2, 2)).unflatten(1, (height, width))  # [b, h, w, c, 2, 2]
    latents: Tensor = parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return latents
