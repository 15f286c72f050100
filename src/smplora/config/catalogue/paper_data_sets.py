"""The paper's data sets, drawn from public originals. One file per original; to add one, add a file and a line to
ORIGINALS; to add a subset of one that is there, a line to SUBSETS."""

from __future__ import annotations

from dataclasses import dataclass

ORIGINALS = {
    "celeba": "smplora.data.paper.celeba:CelebA",
    "afhq": "smplora.data.paper.afhq:AFHQ",
    "mscoco": "smplora.data.paper.mscoco:MSCOCO",
    "pokemon": "smplora.data.paper.pokemon:Pokemon",
}


@dataclass(frozen=True)
class Subset:
    """What is drawn (paper, App. E)."""

    title: str  # the paper's name
    original: str  # key of ORIGINALS
    images: int
    groups: int = 1  # people, or classes
    fewest: int = 0  # images of each group: drawn uniformly between fewest and most
    most: int = 0
    majority_groups: int | None = None  # people of one gender; the rest are of the other


SUBSETS = {
    "pokemon": Subset("Pokemon", "pokemon", 833),
    "celeba_small": Subset("CelebA_Small", "celeba", 200, groups=25, fewest=8, most=8),
    "celeba_large": Subset("CelebA_Large", "celeba", 800, groups=100, fewest=8, most=8),
    "celeba_gender": Subset("CelebA_Gender", "celeba", 160, groups=20, fewest=8, most=8, majority_groups=14),
    "celeba_varying": Subset("CelebA_Varying", "celeba", 252, groups=100, fewest=1, most=4),
    "celeba_large_5x": Subset("CelebA_Large_5X", "celeba", 4000, groups=500, fewest=8, most=8),
    "afhq_large_5x": Subset("AFHQ_Large_5X", "afhq", 3000, groups=3, fewest=1000, most=1000),
    "mscoco_large_5x": Subset("MSCOCO_Large_5X", "mscoco", 4000),
}
