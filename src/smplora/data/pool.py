"""The pool: every image of a source, looked at once, with its caption and the digest that is its identity."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from smplora.config.data import DataOptions
from smplora.core.console import in_threads, say_once
from smplora.core.errors import DataError, listing
from smplora.data.folder import ImageFolder
from smplora.data.listing import counted
from smplora.data.pictures import NOTES, UnreadableImage, pixel_digest
from smplora.data.source import ImageSource, JoinedSources
from smplora.data.table import ImageTable

CANARIES = "canaries://"  # before the names of canaries: no name of an image has two slashes in a row


@dataclass(frozen=True)
class Sample:
    """One image of the pool."""

    file: str  # its name in the source: a file relative to the folder, or "row-00012"
    caption: str
    digest: str  # of its pixels: the same picture in another container is the same image
    size: tuple[int, int] = (1, 1)  # width and height in pixels
    more_captions: tuple[str, ...] = ()  # training takes one of all, everything else the first
    repeats: int = 1  # how often training takes it in a pass

    @property
    def words(self) -> str:
        """All captions, for digests."""
        return "\x1f".join((self.caption, *self.more_captions))

    @property
    def is_canary(self) -> bool:
        """Whether it comes from ``--canaries_dir``."""
        return self.file.startswith(CANARIES)


def open_source(options: DataOptions) -> ImageSource:
    """Where the images are, and the canaries.

    Raises:
        DataError: nothing there, or nothing that can be used.
    """
    images: ImageSource = ImageTable(options) if options.dataset_name else ImageFolder(options)
    if not options.canaries_dir:
        return images
    # each once a pass, whatever its folder is called: a bound on epsilon is about one record
    own = replace(options, train_data_dir=options.canaries_dir, dataset_name=None, folder_repeats=False)
    canaries = ImageFolder(own, "canaries_dir")
    return JoinedSources({CANARIES: canaries, "": images}, f"{images.title} and {canaries.title}")


def read_samples(source: ImageSource) -> list[Sample]:
    """All images of ``source`` with their captions, in its order; says in one line what was read and what was not.

    Raises:
        DataError: one message with every unreadable, empty, duplicate or caption-less image.
    """
    problems: list[str] = []
    captions = source.captions(problems)
    names = list(captions)

    def look(name: str) -> tuple[str, tuple[int, int], list[str]] | UnreadableImage:
        try:
            picture = source.read(name)
            return pixel_digest(picture), picture.size, picture.info.get(NOTES, [])
        except UnreadableImage as error:
            return error

    samples: list[Sample] = []
    first_with: dict[str, str] = {}
    uncaptioned = False
    notes: Counter[str] = Counter()
    for name, sample in zip(names, in_threads(look, names, "read images", "image"), strict=True):
        caption = captions[name]
        if not _is_text(name):
            problems.append(f"{name!r}: its name is not UTF-8; rename it")
            continue
        if isinstance(sample, UnreadableImage):
            problems.append(f"{name}: {sample}")
            continue
        digest, size, noted = sample
        notes.update(noted)
        if digest in first_with:
            problems.append(f"{name}: the same picture as {first_with[digest]}")
        elif not caption:
            problems.append(f"{name}: no caption")
            uncaptioned = True
        else:
            often = source.reading.repeats.get(name, 1)
            samples.append(Sample(name, caption, digest, size, source.reading.more_captions.get(name, ()), often))
            first_with[digest] = name
    if problems:
        advice = f"captions come from {source.where_captions_come_from}" if uncaptioned else "remove or mend them"
        raise DataError(listing(f"{source.title} has images that cannot be used", problems, f"; {advice}"))
    say_once(_what_was_read(source, samples, notes))
    return samples


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _what_was_read(source: ImageSource, samples: list[Sample], notes: Counter[str]) -> str:
    """One line: how many images, where their captions came from, what was not read, what counts more than once."""
    left_out, captions_from = source.reading.left_out, sorted(source.reading.captions_from.items())
    often = Counter(s.repeats for s in samples if s.repeats > 1)
    parts = [
        f"{len(samples)} image{'s' * (len(samples) != 1)}",
        f"captions: {', '.join(f'{n} from {where}' for where, n in captions_from if n)}",
        f"not read: {counted(left_out)}" if +left_out else "",
        "trained on more often: " + ", ".join(f"{n} image{'s' * (n > 1)} {k} times" for k, n in sorted(often.items()))
        if often
        else "",
        ", ".join(f"{n} {note}" for note, n in notes.items()),
    ]
    return f"{source.title}: {'; '.join(filter(None, parts))}"
