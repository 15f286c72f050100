"""What a target puts on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from smplora.experiments.reproduce.results import Results
from smplora.experiments.reproduce.runs import Need
from smplora.report.figures.svg import Drawing
from smplora.report.html import Gallery
from smplora.report.tables import TableCell


@dataclass(frozen=True)
class RowGroup:
    """What the paper has in one row: what names it, and one line for each way to measure it."""

    labels: tuple[str, ...]
    lines: tuple[tuple[str, tuple[TableCell, ...]], ...]


@dataclass(frozen=True)
class PaperTable:
    """Columns that name, columns of numbers, rows."""

    names: tuple[str, ...]
    headers: tuple[str, ...]
    groups: tuple[RowGroup, ...]


@dataclass(frozen=True)
class Section:
    """A part of the page, made of one JSON file.

    Args:
        claim: what the paper says.
        observed: what our numbers say of it, sentences.
        differences: how the runs differ from the paper's.
        commands: what a row's runs are called, and the command lines behind them.
    """

    name: str
    title: str
    caption: str
    notes: Sequence[str] = ()
    table: PaperTable | None = None
    figures: Sequence[tuple[str, Drawing]] = ()
    galleries: Sequence[Gallery] = ()
    missing: Sequence[str] = ()
    claim: str = ""
    observed: Sequence[str] = ()
    differences: Sequence[str] = ()
    commands: Sequence[tuple[str, tuple[str, ...]]] = ()


class Target(Protocol):
    """A table or figure of the paper: one file in ``targets/``."""

    @property
    def name(self) -> str:
        """As the command names it."""
        ...

    @property
    def title(self) -> str:
        """The paper's number and what it is about."""
        ...

    @property
    def caption(self) -> str:
        """What it shows."""
        ...

    @property
    def claim(self) -> str:
        """What the paper says; "" where it says nothing."""
        ...

    def needs(self, best_lambda: float | None) -> list[Need]:
        """The runs, and what has to be measured of them.

        Args:
            best_lambda: for SMP-LoRA, to be shown beside the paper's; None: the paper's is the best known.
        """
        ...

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """What the JSON file holds beside the general."""
        ...

    def show(self, content: Mapping[str, Any], root: Any) -> Section:
        """The part of the page, from that file (and pictures below ``root``)."""
        ...


def section_of(target: Target, rows: Sequence[Mapping[str, Any]], **parts: Any) -> Section:
    """A target's section, with what is missing of its rows.

    Args:
        rows: of its JSON file.
        parts: further fields of ``Section``.
    """
    return Section(target.name, target.title, target.caption, missing=missing(rows), claim=target.claim, **parts)


def missing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each run that is not there, with the reason."""
    return [
        f"{row['run']['title']}, seed {seed['seed']}: {seed['problem']}"
        for row in rows
        for seed in row["seeds"]
        if seed["problem"] is not None
    ]
