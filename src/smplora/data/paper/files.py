"""Originals as files below a folder: what an original offers, and looking for its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from smplora.config.catalogue.paper_data_sets import SUBSETS, Subset
from smplora.config.dataset import DatasetConfig
from smplora.core.errors import DataError, Lines, listing
from smplora.data.paper.drawing import Selection
from smplora.data.pictures import read_image, suffixes


class Originals:
    """A local copy of a public data set, in the layout as downloaded. Each file here has one subclass."""

    title: str
    parts: str  # what the folder holds
    source_and_licence: str  # where people get it, and what its owners ask for

    def __init__(self, config: DatasetConfig) -> None:
        """Looks at the folder ``config.source``.

        Raises:
            DataError: parts of it are missing or unreadable, or there is too little of it for the subset.
        """
        self.name, self.config = str(config.name), config
        self.subset: Subset = SUBSETS[self.name]
        self.source = Path(config.source or "")
        if not config.source:
            raise self.refusal(f"--source is missing: give the folder that holds {self.parts}")
        if not self.source.is_dir():
            raise self.refusal(f"--source got '{self.source}', which is not a folder")
        self.facts: dict[str, int] = {}  # what there is to draw from, for the record
        self.captions: Mapping[str, str | Sequence[str]] = {}  # of originals, by name
        self.scan()

    def scan(self) -> None:
        """Find the parts and read the tables.

        Raises:
            DataError: a part is not there, or a table is not as published.
        """
        raise NotImplementedError

    def draws(self) -> list[Selection]:
        """What is taken, seeded by ``config.seed``.

        Raises:
            DataError: there are too few images.
        """
        raise NotImplementedError

    def read(self, name: str) -> Image.Image:
        """The picture, upright in RGB.

        Raises:
            UnreadableImage: it cannot be used.
        """
        return read_image(self.source / name)

    def file(self, name: str) -> Path | None:
        """Where the picture lies; None where it is no file of its own."""
        return self.source / name

    def place(self, name: str, group: str) -> str:
        """Where it goes, relative to the data set's folder."""
        return f"images/{Path(name).name}"

    def refusal(self, *problems: str) -> DataError:
        """An error with the problems, and the way to the originals."""
        origin = f"{self.title} is not part of smplora and nothing is downloaded. {self.source_and_licence}"
        return DataError(Lines(f"{listing(f'{self.name} cannot be built', list(problems))}\n  {origin}"))

    def find(self, path: str, places: Sequence[str] = ("",), *, archive: str | None = None) -> Path | str:
        """``path`` below one of ``places``, or what is wrong."""
        for place in places:
            if (self.source / place / path).exists():
                return self.source / place / path
        packed = archive and any((self.source / place / archive).exists() for place in places)
        hint = f" ({archive} is there: unpack it)" if packed else ""
        return f"no {path} in --source '{self.source}'{hint}"


def images_in(folder: Path) -> set[str]:
    """Names of the pictures directly in ``folder``."""
    return {path.name for path in folder.iterdir() if path.suffix.lower() in suffixes()}
