"""Images and captions as the model takes them: encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from smplora.contracts import Batch
from smplora.data.pictures import load_pixels
from smplora.data.pool import Sample
from smplora.data.source import ImageSource
from smplora.diffusion import LatentDiffusion
from smplora.progress import progress


def encode(
    model: LatentDiffusion, source: ImageSource, samples: Sequence[Sample], resolution: int, batch_size: int = 16
) -> Batch:
    """Latents as (mean, std), so that training still samples the posterior, and one text embedding per distinct
    caption; on the model's device. Length ``len(samples)``."""
    starts = range(0, len(samples), batch_size)
    parts = [
        model.encode_images(load_pixels([source.read(s.file) for s in samples[i : i + batch_size]], resolution))
        for i in progress(starts, "encode images", "batch")
    ]
    distinct = list(dict.fromkeys(s.caption for s in samples))
    rows = torch.tensor([distinct.index(s.caption) for s in samples], device=model.device)
    embedded = [
        model.encode_captions(distinct[i : i + batch_size], resolution) for i in range(0, len(distinct), batch_size)
    ]
    return Batch(
        mean=torch.cat([mean for mean, _ in parts]),
        std=torch.cat([std for _, std in parts]),
        conditioning={name: torch.cat([e[name] for e in embedded])[rows] for name in embedded[0]},
        digests=tuple(s.digest for s in samples),
    )
