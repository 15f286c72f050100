"""theory.json: the paper's measurements of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from smplora.results.record import Count, Line, Record, Share

FORMAT = "smplora.theory/1"


@dataclass(frozen=True)
class Spread(Record):
    """Of the values over training."""

    n: Count
    mean: float
    std: float | None
    """Of the sample; null of a single value."""
    min: float
    max: float


@dataclass(frozen=True)
class Coefficient(Record):
    """With its 95 % interval (Fisher's z)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Correlation(Record):
    """Pearson's r and its two-sided p. Points count as independent; those of one run are not quite."""

    n: Count
    r: Coefficient
    p_value: Share


@dataclass(frozen=True)
class Figure1b(Record):
    """Hessian norm against gradient norm."""

    gradient_norm: Spread | None
    hessian_norm: Spread | None
    pearson: Correlation | None
    """Null for fewer than 4 points, or where one of the two does not vary."""


@dataclass(frozen=True)
class Propositions(Record):
    """At how many points hessian norm <= L0 + L1 * gradient norm held (Propositions 1 and 2)."""

    points: Count
    holds: Count
    l0: Spread | None
    l1: Spread | None


@dataclass(frozen=True, kw_only=True)
class TheorySummary(Record):
    """theory.json, written at the end of a run from gradients.jsonl and hessian.jsonl."""

    format: Literal["smplora.theory/1"] = "smplora.theory/1"
    objective: Line
    mi_lambda: float | None
    figure_1b: Figure1b
    figure_2: dict[str, Spread | None]
    """Of "gradient_norm", "gradient_scale", "adaptation_scale", "gain_scale"."""
    table_3: dict[str, Spread | None]
    """Of "1/D", "L_ada/D^2" and "lambda*L_ada/D^2", of batches' means."""
    table_3_single_images: dict[str, Spread | None] = field(default_factory=dict)
    """The same of single images; "n" counts batches. Empty in files of earlier versions."""
    propositions: Propositions
