"""Are generated images copies of training images? Distances, thresholds, and tests against held-out images. Pure.

Images of one style are near each other, so that a distance alone proves nothing: whatever is measured for the
training images is measured for equally many held-out images of the same source (in a larger set something lies nearer
by chance). If the model had not learned which images it was trained on, the labels "training" and "held-out" could be
exchanged. Both p-values come from exchanging them, and hold however alike the generations are (of adaptive ratios,
whose neighbours change with the labels, nearly).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from smplora.core.wording import p_text
from smplora.statistics.intervals import clopper_pearson

NEAR_TILES = 0.15  # near-copies (Carlini et al. 2023, section 4)
NEAR_ADAPTIVE = 1.0  # likewise, of CIFAR-10 (section 5), in adaptive ratios
NEAR_COSINE = 0.5  # a similarity of 0.5, of SSCD embeddings (Somepalli et al. 2023)
FLOOR = 1e-3  # distances below are equal: a quarter of a grey level
PERMUTATIONS = 1000
CHANCE = (0.025, 0.975)  # quantiles of what shuffled labels give
LEVEL = 0.05
FALSE_ALARMS = 0.05  # held-out images that a measure which proves copies may take for copied
HEADLINES = {
    "copies": "Copies training images",
    "nearer": "Generated images lie nearer to training images than to held-out ones",
    None: "No copying of training images found beyond what held-out images show",
}


def cosine_distances(one: Tensor, other: Tensor) -> Tensor:
    """1 - cosine similarity of embeddings [a, d] and [b, d]: [a, b]."""
    x, y = (torch.nn.functional.normalize(e.double(), dim=1) for e in (one, other))
    return (1 - x @ y.T).clamp(0, 2)


def compare(train: Tensor, held_out: Tensor, threshold: float) -> dict[str, Any]:
    """What a measure finds: near-copies at the threshold and nearest distances, of training and of held-out images.

    Args:
        train, held_out: distances [g, n] of g generations to n images each.

    Raises:
        ValueError: unequal shapes.
    """
    if train.shape != held_out.shape:
        raise ValueError(f"equally many images are needed, got {tuple(train.shape)} and {tuple(held_out.shape)}")
    sides = {"train": train, "held_out": held_out}
    counts = {name: int((d <= threshold).any(0).sum()) for name, d in sides.items()}
    return {
        "threshold": threshold,
        "nearest": {name: _nearest(d.amin(1)) for name, d in sides.items()},
        "images": {name: share(counts[name], d.shape[1]) for name, d in sides.items()},
        "generations": {name: share(int((d <= threshold).any(1).sum()), len(d)) for name, d in sides.items()},
        "p": float(hypergeom.sf(counts["train"] - 1, 2 * train.shape[1], sum(counts.values()), train.shape[1])),
    }


def _nearest(distances: Tensor) -> dict[str, float]:
    low, middle = distances.quantile(torch.tensor([0.05, 0.5], dtype=distances.dtype, device=distances.device)).tolist()
    return {"smallest": float(distances.min()), "p05": low, "median": middle}


def share(count: int, of: int) -> dict[str, float]:
    """A count as a share, with the 95 % interval of Clopper and Pearson (of independent ones)."""
    return {"count": count, "of": of, **clopper_pearson(count, of).bounds()}


def nearer_test(train: Tensor, held_out: Tensor, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> Any:
    """Do generations lie nearer to training images than to held-out ones? Distances [g, n] each.

    ``ratio`` is the geometric mean over generations of d(nearest training image) / d(nearest held-out image),
    ``nearer`` the share of generations whose nearest image of all is a training image (ties half). "chance" are 95 % of
    what shuffled labels give, p the one-sided (1 + #{ratio* <= ratio}) / (1 + permutations).
    """
    both, n = torch.cat([train, held_out], 1).clamp_min(FLOOR), train.shape[1]

    def measure(order: Tensor) -> tuple[float, float]:
        one, other = both[:, order[:n]].amin(1), both[:, order[n:]].amin(1)
        return float((one / other).log().mean()), float(((one < other).double() + (one == other) / 2).mean())

    ratio, nearer = measure(torch.arange(2 * n))
    shuffled = np.array([measure(torch.from_numpy(rng.permutation(2 * n))) for _ in range(permutations)])
    chance = np.quantile(shuffled, CHANCE, axis=0)
    return {
        "ratio": {"value": float(np.exp(ratio)), "chance": _ends(np.exp(chance[:, 0]))},
        "nearer": {"value": nearer, "chance": _ends(chance[:, 1])},
        "p": float((1 + (shuffled[:, 0] <= ratio + 1e-12).sum()) / (1 + permutations)),
    }


def _ends(values: Any) -> dict[str, float]:
    return {"low": float(values[0]), "high": float(values[1])}


def conclusion(measures: Mapping[str, Mapping[str, Any]], generated: int) -> dict[str, Any]:
    """One sentence out of all tests, the p-values corrected for their number (Bonferroni).

    Copies are found where significantly more training than held-out images have a near-copy by a measure that is not
    often wrong (``FALSE_ALARMS``); else the most significant test may show that generations lie nearer to training
    images.

    Args:
        measures: by title, results of ``compare``, some of them with that of ``nearer_test`` as "nearer_test".
    """
    tests = [(m["p"], title, "images") for title, m in measures.items()]
    tests += [(m["nearer_test"]["p"], title, "nearer") for title, m in measures.items() if m["nearer_test"]]

    def proves_copies(test: tuple[float, str, str]) -> bool:
        wrong = measures[test[1]]["images"]["held_out"]
        return test[2] == "images" and test[0] * len(tests) < LEVEL and wrong["count"] <= FALSE_ALARMS * wrong["of"]

    test = min(tests, key=lambda t: (not proves_copies(t), t[0]))
    p, title, best = min(1.0, test[0] * len(tests)), test[1], measures[test[1]]
    counts = {side: best["images"][side] for side in ("train", "held_out")}
    sentence = (
        f"{counts['train']['count']} of {counts['train']['of']} training images have a near-copy among {generated} "
        f"generated ones, {counts['held_out']['count']} of {counts['held_out']['of']} held-out images"
    )
    level = "copies" if proves_copies(test) else "nearer" if p < LEVEL else None
    if level and test[2] == "nearer":
        ratio, chance = best["nearer_test"]["ratio"]["value"], best["nearer_test"]["ratio"]["chance"]
        sentence = f"ratio {ratio:.2f} (chance {chance['low']:.2f} to {chance['high']:.2f}); {sentence}"
    return {
        "found": level,
        "p_corrected": p,
        "sentence": f"{HEADLINES[level]}: {sentence} ({title}; corrected p {p_text(p)}).",
    }
