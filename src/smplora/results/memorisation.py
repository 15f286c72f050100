"""The "memorisation" object of audit.json: copies of training images among images drawn from their captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smplora.results.estimate import CountedShare, Proportion
from smplora.results.record import Count, Line, Record, Share

Side = Literal["train", "held_out"]
SIDES: tuple[Side, ...] = ("train", "held_out")


@dataclass(frozen=True)
class ComparedImages(Record):
    """How many images were generated and compared."""

    generated: Count
    train: Count
    held_out: Count


@dataclass(frozen=True)
class LeftOut(Record):
    """What was not looked at, so that both sides are equally large."""

    captions_of: Count
    """Training images whose captions nothing was generated from."""
    train: Count
    held_out: Count


@dataclass(frozen=True)
class SearchSettings(Record):
    """How images were generated."""

    images: Count
    """For each training image."""
    steps: Count
    guidance: float
    encoder: str | None
    """"tiny", a hub id or "sha256:.."; null: embeddings were not compared."""


@dataclass(frozen=True)
class Nearest(Record):
    """Distances from each generated image to the nearest."""

    smallest: float
    p05: float
    median: float


@dataclass(frozen=True)
class Chance(Record):
    """What holds 95 % of what exchanged labels give."""

    low: float
    high: float


@dataclass(frozen=True)
class WithChance(Record):
    """A value beside what chance gives."""

    value: float
    chance: Chance


@dataclass(frozen=True)
class NearerTest(Record):
    """Whether generated images lie nearer to training images than to held-out ones."""

    ratio: WithChance
    """To the nearest training over the nearest held-out image."""
    nearer: WithChance
    """Share of generated images whose nearest image of all is a training image."""
    p: Share


@dataclass(frozen=True)
class CopyMeasure(Record):
    """What one distance finds of copies; it is small where images are alike."""

    name: Line
    """"tiles", "adaptive" or "embedding"."""
    title: Line
    reference: Line
    bibtex: str
    threshold: float
    nearest: dict[Side, Nearest]
    images: dict[Side, CountedShare]
    """That have a near-copy among the generated ones."""
    generations: dict[Side, CountedShare]
    """That are a near-copy."""
    p: Share
    """More training than held-out images are copied."""
    nearer_test: NearerTest | None


@dataclass(frozen=True)
class CaptionCounts(Record):
    """Distinct captions."""

    train: Count
    held_out: Count
    shared: Count


@dataclass(frozen=True)
class CaptionScore(Record):
    """How strongly captions change the prediction: mean over those of training and of held-out images."""

    train: float | None
    held_out: float | None
    auc: Proportion | None


@dataclass(frozen=True)
class Prompts(Record):
    """Whether the captions of training images are known (audit/memorisation/captions.py has the formula)."""

    reference: Line
    bibtex: str
    timestep: Count
    noises: Count
    captions: CaptionCounts
    scores: dict[str, CaptionScore]
    """"adapter", "base", "adapter_to_base"."""
    reason: Line | None
    """Why there is no AUC."""


@dataclass(frozen=True)
class Memorisation(Record):
    """Copies of training images among generated ones."""

    found: Literal["copies", "nearer"] | None
    p_corrected: Share
    """For all its tests."""
    sentence: Line
    images: ComparedImages
    left_out: LeftOut
    settings: SearchSettings
    measures: tuple[CopyMeasure, ...]
    prompts: Prompts
