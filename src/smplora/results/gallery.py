"""exposed.json and memorised.json: which pictures stand in exposed.png and memorised.png. Private, never shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smplora.results.record import Line, Record, Share

EXPOSED, MEMORISED = "exposed", "memorised"  # .json and .png beside audit.json


@dataclass(frozen=True)
class ExposedImage(Record):
    """A member that the strongest attack is sure of."""

    cell: Line
    beats: Share
    """Share of the group's non-members that score lower."""
    file: Any = None
    """Name and, in data sets of the datasets library, split and row."""
    caption: Line = ""


@dataclass(frozen=True)
class ExposedImages(Record):
    """exposed.json: the most exposed first, as in exposed.png from left to right."""

    attack: Line
    images: tuple[ExposedImage, ...]


@dataclass(frozen=True)
class Neighbour(Record):
    """The real image nearest to a generated one."""

    file: Any
    tiles: float | None
    embedding: float | None


@dataclass(frozen=True)
class CopiedPair(Record):
    """A row of memorised.png: a generated image, the nearest training image, the nearest held-out image."""

    caption: Line
    of_its_own_caption: bool
    train: Neighbour
    held_out: Neighbour


@dataclass(frozen=True)
class CaptionMagnitudes(Record):
    """How strongly a training caption changes the prediction of the adapter and by the base model."""

    caption: Line
    adapter: float
    base: float
    held_out: bool = False
    """Held-out images have it too."""


@dataclass(frozen=True)
class Memorised(Record):
    """memorised.json."""

    pairs: tuple[CopiedPair, ...]
    captions: tuple[CaptionMagnitudes, ...]
