"""Figure 1c: images of LoRA, MP-LoRA and SMP-LoRA."""

from __future__ import annotations

from smplora.experiments.reproduce.galleries import GalleryTarget

TARGET = GalleryTarget(
    name="figure_1c",
    title="Figure 1c: generated images, Pokemon",
    caption="Same captions and same noise for every adapter.",
    datasets=("Pokemon",),
)
