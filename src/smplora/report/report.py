"""One self-contained HTML page about adapters: what they give away, how good their images are, what nobody measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from smplora.core.console import say
from smplora.core.errors import readable
from smplora.core.files import write_atomically
from smplora.core.ownership import refuse_to_replace
from smplora.core.surroundings import real
from smplora.report import tables
from smplora.report.audit_page import render
from smplora.report.certificate import certificate_of
from smplora.report.certificate import page as certificate_page
from smplora.results.record import as_json
from smplora.results.subjects import collect

if TYPE_CHECKING:
    from smplora.config.audit import ReportConfig

__all__ = ["check_output", "print_table", "report", "summary", "write_report"]

COLOURS = {"invalid": "bold magenta", "red": "bold red", "amber": "bold yellow", "green": "bold green"}


def write_report(subjects: Sequence[Path], output: Path, shareable: bool = False) -> None:
    """Write one page about ``subjects`` to ``output``, atomically and readable by its owner only.

    Args:
        subjects: run folders or checkpoint folders with an audit (docs/formats.md); a folder given twice counts once.
        output: the HTML file; its folder must exist. The page needs no network and no script.
        shareable: without images, captions and names.

    Raises:
        CheckpointError: a subject without audit, or with damaged or foreign files.
        OSError: ``output`` cannot be written.
    """
    write_atomically(output, render(collect(subjects), shareable))


def write_certificate(subject: Path, files: Mapping[str, str], output: Path) -> None:
    """Write the certificate of the audit of ``subject``, a folder as for ``write_report``; ``files`` as for
    ``certificate_of``.

    Raises:
        CheckpointError: no audit, or a damaged one.
        OSError: it cannot be written.
    """
    write_atomically(output, certificate_page(certificate_of(collect([subject])[0], files)))


def report(config: ReportConfig) -> None:
    """``smplora report``: write the page to ``config.output``, making its folder, and print its first table.

    Raises:
        CheckpointError: as ``write_report``.
        OSError: ``config.output`` cannot be written.
    """
    subjects, output = [Path(run) for run in config.runs], Path(config.output)
    check_output(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_report(subjects, output, config.shareable)
    print_table(subjects)
    say(f"report: {real(output)}")
    if config.json:
        print(json.dumps(summary(subjects, output)))


def check_output(output: Path) -> None:
    """See whether the page may be written.

    Raises:
        ConfigError: something of the user's is there.
    """
    refuse_to_replace(output.parent, [] if output.is_dir() else [output.name], "output")


def summary(subjects: Sequence[Path], output: Path) -> dict[str, Any]:
    """What ``--json`` prints: the page's path, each subject's description and verdict, as in its audit.json."""
    audits = [subject.audit for subject in collect(subjects)]
    about = [{**as_json(audit.subject), "verdict": as_json(audit.verdict)} for audit in audits]
    return {"report": str(output), "subjects": about}


def print_table(subjects: Sequence[Path], console: Console | None = None) -> None:
    """Print the page's first table on ``console``, by default on standard error, 120 columns wide or more where that is
    no terminal. On a narrow terminal the last columns are left to the page.

    Raises:
        CheckpointError: as ``write_report``.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    rows = tables.summary_rows(collect(subjects))
    for columns in range(len(tables.SUMMARY_HEADERS), 1, -1):
        table = _table(rows, columns)
        if Measurement.get(console, console.options.update(max_width=1000), table).maximum <= console.width:
            break
    console.print(table)
    left_out = tables.SUMMARY_HEADERS[columns:]
    if left_out:
        console.print(f"On the page: {', '.join(left_out)}.")


def _table(rows: Sequence[tables.SummaryRow], columns: int) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in ("Adapter", *tables.SUMMARY_HEADERS[:columns]):
        table.add_column(header.replace(", ", ",\n").replace(" at ", "\nat ").replace(" (", "\n("))
    for row in rows:
        verdict, *numbers = row.cells[:columns]
        label = readable(row.subject.label)
        table.add_row(
            Text(label.replace(", ", ",\n")),  # not a str: labels may hold what rich would take for markup
            Text(verdict.text, style=COLOURS[row.subject.audit.verdict.level]),
            *(
                Text("\n".join(filter(None, (cell.text or cell.note.partition(" (")[0], cell.interval))))
                for cell in numbers
            ),
            end_section=True,
        )
    return table
