"""The pool: every image of a source, looked at once, with its caption and the digest that is its identity."""

from __future__ import annotations

from dataclasses import dataclass

from smplora.config.data import DataOptions
from smplora.core.console import in_threads
from smplora.core.errors import DataError, listing
from smplora.data.folder import ImageFolder
from smplora.data.pictures import UnreadableImage, pixel_digest
from smplora.data.source import ImageSource
from smplora.data.table import ImageTable


@dataclass(frozen=True)
class Sample:
    """One image of the pool."""

    file: str  # its name in the source: a file relative to the folder, or "row-00012"
    caption: str
    digest: str  # of its pixels: the same picture in another container is the same image
    size: tuple[int, int] = (1, 1)  # width and height in pixels
    more_captions: tuple[str, ...] = ()  # training takes one of all, everything else the first

    @property
    def words(self) -> str:
        """All captions, for digests."""
        return "\x1f".join((self.caption, *self.more_captions))


def open_source(options: DataOptions) -> ImageSource:
    """Where the images are.

    Raises:
        DataError: nothing there, or nothing that can be used.
    """
    return ImageTable(options) if options.dataset_name else ImageFolder(options)


def read_samples(source: ImageSource) -> list[Sample]:
    """All images of ``source`` with their captions, in its order.

    Raises:
        DataError: one message with every unreadable, empty, duplicate or caption-less image.
    """
    problems: list[str] = []
    captions = source.captions(problems)
    names = list(captions)

    def look(name: str) -> tuple[str, tuple[int, int]] | UnreadableImage:
        try:
            picture = source.read(name)
            return pixel_digest(picture), picture.size
        except UnreadableImage as error:
            return error

    samples: list[Sample] = []
    first_with: dict[str, str] = {}
    uncaptioned = False
    for name, sample in zip(names, in_threads(look, names, "read images", "image"), strict=True):
        caption = captions[name]
        if isinstance(sample, UnreadableImage):
            problems.append(f"{name}: {sample}")
            continue
        digest, size = sample
        if digest in first_with:
            problems.append(f"{name}: the same picture as {first_with[digest]}")
        elif not caption:
            problems.append(f"{name}: no caption")
            uncaptioned = True
        else:
            samples.append(Sample(name, caption, digest, size, source.more_captions.get(name, ())))
            first_with[digest] = name
    if problems:
        advice = f"captions come from {source.where_captions_come_from}" if uncaptioned else "remove or mend them"
        raise DataError(listing(f"{source.title} has images that cannot be used", problems, f"; {advice}"))
    return samples
