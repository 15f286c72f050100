"""Figure 4: more generated images."""

from __future__ import annotations

from smplora.experiments.reproduce.galleries import GalleryTarget

TARGET = GalleryTarget(
    name="figure_4",
    title="Figure 4: generated images, CelebA_Small and CelebA_Large",
    caption="Same captions and same noise for every adapter.",
    datasets=("CelebA_Small", "CelebA_Large"),
)
