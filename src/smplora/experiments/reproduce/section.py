"""What a target puts on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from smplora.experiments.reproduce.results import Results
from smplora.experiments.reproduce.runs import Need
from smplora.report.audit_page import Strip
from smplora.report.figures.svg import Drawing


@dataclass(frozen=True)
class Cell:
    """A number of a table with what stands beside it in small print."""

    text: str = ""
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class Group:
    """What the paper has in one row: what names it, and one line for each way to measure it."""

    labels: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Table:
    """Columns that name, columns of numbers, rows."""

    names: tuple[str, ...]
    headers: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures of the same captions and seeds."""

    title: str
    captions: tuple[str, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Section:
    """A part of the page, made of one JSON file.

    Args:
        claim: what the paper says.
        found: what our numbers say of it, sentences.
        differences: how the runs differ from the paper's.
        commands: what a row's runs are called, and the command lines behind them.
    """

    name: str
    title: str
    caption: str
    notes: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[tuple[str, Drawing]] = ()
    galleries: Sequence[Gallery] = ()
    missing: Sequence[str] = ()
    claim: str = ""
    found: Sequence[str] = ()
    differences: Sequence[str] = ()
    commands: Sequence[tuple[str, tuple[str, ...]]] = ()


class Target(Protocol):
    """A table or figure of the paper: one file in ``targets/``."""

    name: str
    title: str
    caption: str

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
