"""Options of building the paper's data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from smplora.config.catalogue.paper_data_sets import SUBSETS
from smplora.config.checks import at_least, if_any, with_sizes
from smplora.core.registry import unknown


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Build one of the paper's data sets from a local copy of the originals, as downloaded. Nothing is fetched; where something is missing, the message says where to get it. Run the same command again to check what was built."""

    name: Optional[str] = None
    """Which one: pokemon, celeba_small, celeba_large, celeba_gender, celeba_varying, celeba_large_5x, afhq_large_5x, mscoco_large_5x."""
    source: Optional[str] = None
    """Folder of the originals, as downloaded; docs/data.md says which files each data set needs. Leave it out to see where to get them."""
    output_dir: Optional[str] = None
    """Where the images, their captions and the record dataset.json go; keep it private. Default: data/NAME."""
    seed: int = 0
    """Seed of the draw: the same seed draws the same people and images."""
    majority: Literal["male", "female"] = "male"
    """Of which gender 14 of the 20 people of celeba_gender are; the paper does not say."""
    captions: Literal["first", "all", "none"] = "first"
    """Of MS-COCO's five captions: the first, all (training takes one at random), or none, so that BLIP describes the images as in the paper (smplora caption)."""
    copy_images: bool = False
    """Copy the images. Without it they are hard links to the originals where the file system can."""
    json: bool = False
    """Print the result as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        missing = f"--name is missing: give one of {', '.join(SUBSETS)}, as in 'smplora dataset celeba_small'"
        return [
            *(if_any(unknown(SUBSETS, self.name, "name")) if self.name else [missing]),
            *at_least(self, ("seed",), 0),
        ]
