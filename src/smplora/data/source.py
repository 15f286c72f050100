"""What images come from: the one interface that split, training, audit and evaluation know."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

CLASS = "{class}"  # in --default_caption: replaced by the name of the image's class


@dataclass
class Reading:
    """What a source found besides images and their captions."""

    more_captions: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of images that have a list of them
    captions_from: Counter[str] = field(default_factory=Counter)  # where captions came from -> how many
    left_out: Counter[str] = field(default_factory=Counter)  # what is there and not read -> how many
    repeats: dict[str, int] = field(default_factory=dict)  # of images that are trained on more than once a pass


class ImageSource(Protocol):
    """Images by name, with captions. One file each: folders, data sets of the datasets library."""

    title: str  # for messages: "--train_data_dir 'pictures'"
    where_captions_come_from: str  # likewise, the end of "no caption" messages
    reading: Reading  # what ``captions`` found besides

    def captions(self, problems: list[str]) -> dict[str, str | None]:
        """The caption, or None, of every image, by the image's name and in a fixed order; what is wrong with the
        tables of captions is appended to ``problems``."""
        ...

    def read(self, name: str) -> Image.Image:
        """The picture upright, in RGB.

        Raises:
            UnreadableImage: it cannot be used.
        """
        ...


@dataclass
class JoinedSources:
    """Several sources as one; the names of images begin with the prefix of their source, such as "members/"."""

    sources: Mapping[str, ImageSource]  # by prefix; "" stands for names without one, and comes last
    title: str
    where_captions_come_from: str = "each folder"
    reading: Reading = field(default_factory=Reading)

    def captions(self, problems: list[str]) -> dict[str, str | None]:
        """See ImageSource."""
        self.reading = Reading()
        captions: dict[str, str | None] = {}
        for prefix, source in self.sources.items():
            own: list[str] = []
            captions |= {f"{prefix}{name}": caption for name, caption in source.captions(own).items()}
            problems += [f"{prefix}{problem}" for problem in own]
            found = source.reading
            self.reading.more_captions |= {f"{prefix}{name}": more for name, more in found.more_captions.items()}
            self.reading.repeats |= {f"{prefix}{name}": often for name, often in found.repeats.items()}
            self.reading.captions_from += found.captions_from
            self.reading.left_out += found.left_out
        return captions

    def read(self, name: str) -> Image.Image:
        """See ImageSource."""
        prefix = next(prefix for prefix in self.sources if name.startswith(prefix))
        return self.sources[prefix].read(name.removeprefix(prefix))


def one_and_more(value: object) -> tuple[str | None, tuple[str, ...]]:
    """A caption and further ones out of a table's value: a text, or a list of texts."""
    listed = value if isinstance(value, list | tuple) else [value]
    texts = dict.fromkeys(text.strip() for text in listed if isinstance(text, str) and text.strip())
    first, *others = texts or [None]
    return first, tuple(text for text in others if text)


def default_caption(template: str | None, class_name: str | None) -> str | None:
    """The caption of an image that has none: ``template``, with its class in place of ``{class}``; None where the
    template asks for a class and there is none."""
    if template is None or CLASS not in template:
        return template
    words = re.sub(r"[\s_]+", " ", class_name or "").strip()
    return template.replace(CLASS, words) if words else None
