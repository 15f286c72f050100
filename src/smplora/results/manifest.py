"""split.json: which image is in which cell, sealed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smplora.results.record import Record, absent

CELLS = ("aux_member", "test_member", "aux_nonmember", "test_nonmember", "reference")


@dataclass(frozen=True)
class SealedImage(Record):
    """An image of a split."""

    file: str
    digest: str
    """SHA-256 of the pixels."""
    caption_digest: str
    """SHA-256 of the captions."""
    repeats: int | None = absent()
    """How often training takes it in a pass, where that is not once."""


@dataclass(frozen=True)
class Manifest(Record):
    """split.json: the sealed split. File names are private."""

    format: Literal["smplora.split/1"]
    protocol: str
    seed: int
    seal: str
    """SHA-256 of the rest, but for file names: images that were only renamed are the same."""
    cells: dict[str, tuple[SealedImage, ...]]
    """Of each of ``CELLS``."""
    canaries: dict[str, tuple[SealedImage, ...]] | None = absent()
    """The cells of the canaries, where there are some: a fair coin decided which are members."""

    def __post_init__(self) -> None:
        """Raises ValueError: a cell is missing."""
        for cells in (self.cells, self.canaries):
            if cells is not None and (missing := [cell for cell in CELLS if cell not in cells]):
                raise ValueError(f"it lacks {', '.join(missing)}")
