"""One self-contained HTML page about adapters: what they give away, how good their images are, what nobody measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smplora.files import write_atomically
from smplora.report import rows
from smplora.report.collect import collect
from smplora.report.page import render

if TYPE_CHECKING:
    from smplora.config import ReportConfig

__all__ = ["print_table", "report", "write_report"]

COLOURS = {"red": "bold red", "amber": "bold yellow", "green": "bold green"}


def write_report(subjects: Sequence[Path], output: Path) -> None:
    """Write one page about ``subjects`` to ``output``, atomically and readable by its owner only.

    Args:
        subjects: run folders or checkpoint folders with an audit (docs/formats.md); a folder given twice counts once.
        output: the HTML file; its folder must exist. The page needs no network and no script.

    Raises:
        CheckpointError: a subject without audit, or with damaged or foreign files.
        OSError: ``output`` cannot be written.
    """
    write_atomically(output, render(collect(subjects)))


def report(config: ReportConfig) -> None:
    """``smplora report``: write the page to ``config.output``, making its folder, and print its first table.

    Raises:
        CheckpointError: as ``write_report``.
        OSError: ``config.output`` cannot be written.
    """
    subjects, output = [Path(run) for run in config.runs], Path(config.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_report(subjects, output)
    print_table(subjects)
    print(f"report: {output.resolve()}", file=sys.stderr)


def print_table(subjects: Sequence[Path], console: Console | None = None) -> None:
    """Print the page's first table on ``console``, by default on standard error.

    Raises:
        CheckpointError: as ``write_report``.
    """
    table = Table(show_lines=True)
    for header in ("Adapter", *rows.SUMMARY_HEADERS):
        table.add_column(header, overflow="fold")
    for row in rows.summary_rows(collect(subjects)):
        verdict, *numbers = row.cells
        table.add_row(
            Text(row.subject.label),  # not a str: labels may hold what rich would take for markup
            Text(verdict.text, style=COLOURS[row.subject.verdict.level]),
            *(Text("\n".join(filter(None, (cell.text, cell.interval, cell.note)))) for cell in numbers),
        )
    (console or Console(stderr=True)).print(table)
