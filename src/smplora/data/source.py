"""What images come from: the one interface that split, training, audit and evaluation know."""

from __future__ import annotations

import re
from collections import Counter
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
