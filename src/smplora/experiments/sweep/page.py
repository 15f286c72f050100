"""index.html of a sweep: the front, the table, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from smplora.config.sweep import SweepConfig
from smplora.core.surroundings import real
from smplora.core.version import __version__
from smplora.core.wording import decimal
from smplora.experiments.sweep.plan import mixed_references
from smplora.experiments.sweep.results import MEASURES, PRIVACY, AdapterRow, Setting, kinds, placed
from smplora.report.figures.plane import plane
from smplora.report.figures.svg import mark
from smplora.report.html import template
from smplora.report.run_page import PAGE
from smplora.report.tables import TableCell
from smplora.report.wording import LEVEL_WORDS, digits_for, interval
from smplora.results.estimate import Estimate
from smplora.statistics.intervals import Interval
from smplora.statistics.over_runs import TWO_RUNS


def cell(estimate: Interval | None) -> TableCell:
    """An estimate and its interval as text."""
    if estimate is None:
        return TableCell("")
    shown = Estimate(estimate.value, estimate.low, estimate.high)
    digits = digits_for(shown)
    if estimate.method == TWO_RUNS:
        ends = f"{decimal(estimate.low, digits)} and {decimal(estimate.high, digits)}"
        return TableCell(decimal(estimate.value, digits), ends, TWO_RUNS)
    return TableCell(decimal(estimate.value, digits), interval(shown, digits))


def render(settings: Sequence[Setting], config: SweepConfig) -> str:
    """The page as HTML. It needs no network and no script; its links lead to the runs beside it."""
    root = Path(config.output_dir)
    quality, privacy = config.quality, PRIVACY[config.privacy]
    places = placed(settings, config)
    names_of_axes = f"{MEASURES[quality]}  (left: better)", f"{MEASURES[privacy]}  (low: private)"
    names = [name for name in MEASURES if any(name in one.measured for one in settings)]
    looks = {place.number: mark(place.look) for place in places}
    legend = {
        kind: looks[one.number]
        for one, kind in zip(settings, kinds(settings), strict=True)
        if kind and one.number in looks
    }
    return template("sweep.html.j2").render(
        title=f"Sweep: {real(root).name}",
        figure=plane(places, "front", names_of_axes, size=(560, 420), front=True),
        legend_items=[(look, kind) for kind, look in legend.items()],
        marks=looks,
        headers=[MEASURES[name] for name in names],
        rows=[
            (one, [cell(one.measured.get(name)) for name in names], verdicts(one), links(one, root)) for one in settings
        ],
        best=[one.label for one in settings if one.front],
        failed=[(row.subject.name, row.problem) for one in settings for row in one.rows if row.problem],
        unplaced=len(settings) - len(places),
        caution=mixed_references(config),
        several=any(len(one.rows) > 1 for one in settings),
        version=__version__,
    )


def verdicts(one: Setting) -> str:
    """``2 Leaks, 1 Unclear``, or the word alone where there is one run."""
    words = [LEVEL_WORDS[level] for level in LEVEL_WORDS if any(row.verdict == level for row in one.rows)]
    if len(one.rows) == 1 or not words:
        return ", ".join(words)
    counts = {LEVEL_WORDS[level]: sum(row.verdict == level for row in one.rows) for level in LEVEL_WORDS}
    return ", ".join(f"{counts[word]} {word}" for word in words)


def links(one: Setting, root: Path) -> list[tuple[str, str]]:
    """(address relative to the page, name) of each run; no address where there is nothing."""
    return [(_address(row, root), _seeds(row)) for row in one.rows]


def _address(row: AdapterRow, root: Path) -> str:
    folder = row.subject.folder
    if not folder.exists():
        return ""
    inside = f"{folder.relative_to(root).as_posix()}/"
    return quote(inside + PAGE if (folder / PAGE).exists() else inside)


def _seeds(row: AdapterRow) -> str:
    train = row.subject.point.train
    return f"seed {train['seed']}" + (f", split {train['split_seed']}" if train["split_seed"] else "")
