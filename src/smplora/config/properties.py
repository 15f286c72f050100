"""Options of questions about the training set as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from smplora.config.checks import at_least, existing_folder, needed, with_sizes
from smplora.config.data import TWO_SOURCES, CacheOptions, cache_problems
from smplora.config.subject import in_a_run

FEWEST, FEWEST_IMAGES = 6, 4  # reference adapters of a question, images of one of them


@dataclass(frozen=True, kw_only=True)
class PropertiesConfig(CacheOptions):
    """Say what a published adapter tells of its training set as a whole: how many images it has and, with --attribute, which share of them has a value. The attacker trains adapters alike, with known answers, on images that this one was not trained on."""

    adapter: Optional[str] = None
    """A run folder of 'smplora train', or one of its checkpoints."""
    count: bool = True
    """Ask how many images it was trained on. With false only --attribute is asked for."""
    attribute: Optional[str] = None
    """Also ask which share of the training images has a value: a column of metadata.jsonl or metadata.csv, or 'folder' for the name of an image's folder."""
    attribute_value: Optional[str] = None
    """The value. Default: the commonest one among the attacker's images."""
    references: int = 12
    """Adapters with known answers to train for each question. The interval is of 92 % with 12, of 95 % from 19 on."""
    sizes: Optional[list[int]] = None
    """Images that these adapters are trained on, in turn. Default: six numbers, each larger by the same factor, up to what the attacker holds."""
    shares: Optional[list[float]] = None
    """Shares of images with the value in the training sets of these adapters, in turn. Default: four, evenly from 0.1 to 0.9."""
    output_dir: Optional[str] = None
    """Where properties.json goes. Default: properties/ beside the adapter."""
    reference_dir: Optional[str] = None
    """Where the adapters with known answers go, which later calls use again. Default: references/ in the output folder."""
    train_data_dir: Optional[str] = None
    """The images, if they moved since training."""
    dataset_name: Optional[str] = None
    """The data set, if it moved since training."""
    workers: Optional[int] = None
    """Processes that train at once. Default: by the cores; 1 on a GPU."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Precision of a flow-matching base model where adapters are compared: 'bf16' halves its memory. Training has the run's own."""
    batch_size: int = 64
    """Images per pass where losses are compared. The result does not depend on it."""
    seed: int = 0
    """Seed of which images the adapters are trained on, and of their training."""
    device: str = "auto"
    """Where to compute: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'."""
    plan: bool = False
    """Say what would be trained and how long it would take, and stop."""
    json: bool = False
    """Print the result as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        alone = "--attribute_value: of which column? Give --attribute too, or leave out"
        return [
            *needed(self.adapter, "adapter", "a run folder of 'smplora train', or one of its checkpoints"),
            *_foreign(self.adapter),
            *([TWO_SOURCES] if self.train_data_dir and self.dataset_name else []),
            *existing_folder(self.train_data_dir, "train_data_dir"),
            *cache_problems(self, self.train_data_dir),
            *at_least(self, ("references",), FEWEST),
            *at_least(self, ("workers", "batch_size"), 1),
            *at_least(self, ("seed",), 0),
            *([alone] if self.attribute_value is not None and self.attribute is None else []),
            *([] if self.count or self.attribute else ["--count got False; then give --attribute: nothing is asked"]),
            *_grid(self.sizes, "sizes", FEWEST_IMAGES, None),
            *_grid(self.shares, "shares", 0, 1),
        ]


def _foreign(adapter: str | None) -> list[str]:
    """It must be known how the adapter was trained."""
    if not adapter or not Path(adapter).is_file() or in_a_run(adapter):
        return []
    return [
        f"--adapter got '{adapter}', which is no run of 'smplora train': how it was trained is not known, and adapters "
        "must be trained alike to compare it with. Train one that is like it and ask about that; 'smplora audit' takes files"
    ]


def _grid(values: Sequence[float] | None, name: str, low: float, high: float | None) -> list[str]:
    """At least two different values, all between ``low`` and ``high``."""
    if values is None:
        return []
    wrong = [v for v in values if not (low <= v and (high is None or v <= high))]
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    few = f"--{name} got {list(values)}; allowed: two or more different numbers, {allowed}"
    return [f"--{name} got {v}; allowed: {allowed}" for v in wrong] or ([few] if len({*values}) < 2 else [])
