"""Values with intervals, as every result has them."""

from __future__ import annotations

from dataclasses import dataclass, field

from smplora.results.record import Count, Line, Record, Share, absent


@dataclass(frozen=True)
class Estimate(Record):
    """A value with its interval, 95 % where no level stands beside; null with a reason where it does not exist."""

    value: float | None
    low: float | None = absent()
    high: float | None = absent()
    method: Line | None = absent()
    level: Share | None = absent()
    reason: Line | None = absent()


@dataclass(frozen=True)
class Proportion(Estimate):
    """A rate or an AUC with its interval: all in [0, 1]."""

    value: Share
    low: Share = field()
    high: Share = field()


@dataclass(frozen=True)
class RateAtFpr(Estimate):
    """A true positive rate at a false positive rate; null where these non-members cannot resolve it."""

    value: Share | None
    low: Share | None = field()
    high: Share | None = field()
    resolvable: bool = field(kw_only=True)
    """Whether at least 5 non-members make up the false positive rate."""
    needs_nonmembers: Count = field(kw_only=True)
    """How many non-members it takes."""


@dataclass(frozen=True)
class CountedShare(Proportion):
    """How many of how many."""

    count: Count = field(kw_only=True)
    of: Count = field(kw_only=True)
