"""dataset.json: what ``smplora dataset`` drew, and from what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from smplora.results.record import Count, Record, absent

FORMAT: Final = "smplora.dataset/1"


@dataclass(frozen=True)
class DrawnImage(Record):
    """An image of the data set."""

    file: str
    original: str
    group: str
    """A person, a class or a split."""
    digest: str
    """SHA-256 of the pixels."""


@dataclass(frozen=True)
class DatasetRecord(Record):
    """What was drawn. It names files: keep it private."""

    format: Literal["smplora.dataset/1"]
    name: str
    title: str
    seed: int
    originals: dict[str, str | int]
    """Their title, and how many there were of what."""
    groups: Count
    captions: Count
    digest: str
    """SHA-256 of the pictures' digests, sorted."""
    same_pictures: dict[str, str]
    """Originals that were left out, each with the earlier one that it equals."""
    images: tuple[DrawnImage, ...]
    majority: str | None = absent()
    captions_taken: str | None = absent()
