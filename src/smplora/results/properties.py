"""properties.json: what the adapter tells of its training set as a whole. Private: it holds the true answers too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from smplora.results.audit import Adapter
from smplora.results.record import Count, Line, Positive, Record, Share

FORMAT: Literal["smplora.properties/1"] = "smplora.properties/1"


@dataclass(frozen=True)
class Answer(Record):
    """What one way of asking says."""

    name: Line
    """"dsire", "spectrum_regression" or "loss_regression"."""
    title: Line
    reference: Line
    bibtex: str
    value: float
    """A number of images, or a share; never beyond the reference adapters' own."""
    low: float
    """Lower end of the interval. Where it reaches the least of the references it is the least there can be: 1, or 0."""
    high: float | None
    """Upper end. Where it reaches the most of the references it is null (images) or 1 (shares)."""
    level: Share
    """How sure the interval is, at least, if the adapter was drawn as the references were."""
    error: float
    """How far it is off when it asks of each reference adapter, by all others: for images the factor, for shares the
    difference, on average (of logarithms, for images)."""
    p: Share
    """How likely so small an error is where labels mean nothing."""
    off: float
    """How far it is off here: a factor or a difference."""
    references: tuple[float, ...]
    """What it says of each reference adapter, by all others."""
    sentence: Line


@dataclass(frozen=True)
class Question(Record):
    """A property, the reference adapters with known answers, and what each way of asking says."""

    text: Line
    truth: float
    references: tuple[float, ...]
    """The property of each reference adapter."""
    images: tuple[Positive, ...]
    """How many images each of them was trained on."""
    error_without: float
    """How far an attacker is off who has no adapter and says the middle of the references, as an answer's error."""
    answers: tuple[Answer, ...]
    p: Share
    """As an answer's, of the best of them, corrected for their number."""
    sentence: Line


@dataclass(frozen=True)
class Attribute(Record):
    """What the share is of."""

    column: Line
    value: Line
    with_value: Count
    """Training images that have it."""
    without_value: Count
    unknown: Count
    """Training images of which the column says nothing; they are not counted."""
    asked_with: Count
    """Images with the value whose losses are compared; no reference adapter was trained on them."""
    asked_without: Count


@dataclass(frozen=True)
class Properties(Record):
    """What an attacker learns who knows how the adapter was trained and holds other images of the same source."""

    format: Literal["smplora.properties/1"]
    subject: Adapter
    seal: str
    """Of the split."""
    held: Count
    """Images that the attacker holds: non-members and reference images."""
    steps: Count
    """Training steps of each reference adapter."""
    settings: dict[str, Any]
    size: Question | None
    share: Question | None
    attribute: Attribute | None
    notes: tuple[Line, ...]
    """What was left out or assumed."""
    environment: dict[str, Any]
    elapsed_s: float
