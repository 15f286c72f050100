"""Which captions does a model know by heart? (Wen et al. 2024, arXiv 2407.21720, section 3) Model in, numbers out.

m(c) = ||eps(z_T, c) - eps(z_T, "")||_2 at the first step of sampling, mean over noises. The base model is the control:
captions to which it already reacts strongly were not learned by the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smplora.core.arrays import Bools, Floats
from smplora.core.random_streams import generator
from smplora.models.diffusion import LatentDiffusion
from smplora.statistics.intervals import auc_interval

NOISES = 4
SCORES = ("adapter", "base", "adapter_to_base")
FEWEST = 2  # captions on each side


@torch.no_grad()
def magnitudes(
    model: LatentDiffusion,
    captions: Sequence[str],
    *,
    seed: int,
    timestep: int,
    resolution: int,
    batch_size: int,
    noises: int = NOISES,
) -> Floats:
    """m(c) of each caption, [n]. All captions see the same noises."""
    size, channels = resolution // model.downsampling, model.latent_channels
    parts = []
    for start in range(0, len(captions), batch_size):
        part = captions[start : start + batch_size]
        encoded = {"": model.unconditional(len(part), resolution), "c": model.encode_captions(part, resolution)}
        t = torch.full((len(part),), timestep, device=model.device)
        total = torch.zeros(len(part))
        for k in range(noises):
            noise = torch.randn((1, channels, size, size), generator=generator(seed, "prompts", k))
            z = noise.to(model.device).expand(len(part), -1, -1, -1)
            without, with_caption = (_noise(model, z, t, conditioning) for conditioning in encoded.values())
            total += (with_caption - without).flatten(1).norm(dim=1).cpu() / noises
        parts.append(total)
    return torch.cat(parts).double().numpy()


def _noise(model: LatentDiffusion, z: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
    prediction = model.predict(z, t, conditioning)
    if model.prediction_type == "velocity":  # of pure noise: the noise in it is known, whatever the caption
        return prediction.float()
    return model.predicted_noise(prediction, z, t).float()


def compare_prompts(adapter: Floats, base: Floats, captions: Sequence[str], members: set[str], others: set[str]) -> Any:
    """Means of both sides, and AUCs of captions of training images against captions of held-out images.

    Args:
        adapter, base: m(c) [n] of ``captions`` [n], each of them once.
        members, others: which of them training and held-out images have. A caption of both tells nothing about images:
            it is left out of the AUC.
    """
    shared = members & others
    scores = dict(zip(SCORES, (adapter, base, adapter / np.maximum(base, 1e-12)), strict=True))
    on = {name: np.array([c in side for c in captions]) for name, side in (("train", members), ("held_out", others))}
    own = np.array([c not in shared for c in captions])
    counts = {"train": len(members), "held_out": len(others), "shared": len(shared)}
    reason = _reason(counts)
    return {
        "captions": counts,
        "scores": {
            name: {
                **{side: _mean(values[rows]) for side, rows in on.items()},
                "auc": None if reason else _auc(values[own], on["train"][own]),
            }
            for name, values in scores.items()
        },
        "reason": reason,
    }


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if values.size else None


def _auc(scores: Floats, is_member: Bools) -> dict[str, Any]:
    return auc_interval(scores, is_member).as_dict()


def _reason(counts: Mapping[str, int]) -> str | None:
    """Why captions of the two sides are not compared."""
    own = {side: counts[side] - counts["shared"] for side in ("train", "held_out")}
    if min(own.values()) >= FEWEST:
        return None
    if counts["shared"]:
        return (
            f"{counts['shared']} captions stand with training and with held-out images alike: this detector looks at "
            "captions only, so it cannot tell such images apart"
        )
    return f"{own['train']} and {own['held_out']} distinct captions are too few to compare"
