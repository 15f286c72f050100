"""Copies of training images: read from audit.json and the private files beside it, and put into cells and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smplora.core.wording import decimal, p_text, percent
from smplora.report.tables import Cell
from smplora.report.wording import NOT_MEASURED, interval
from smplora.results.read import COLUMNS, SIDES
from smplora.results.records import CopyMeasure, Counted, Estimate, Memorisation

HEADERS = (
    "Near-copies are",
    "Training images copied",
    "Held-out images copied",
    "More than held-out (p)",
    "Generations that copy training images",
    "Generations that copy held-out images",
    "Nearest training / nearest held-out image",
)
PROMPT_HEADERS = ("Training captions", "Captions of held-out images", "AUC")
SCORES = {"adapter": "With the adapter", "base": "Base model (control)", "adapter_to_base": "Adapter over base model"}


def measure_rows(found: Memorisation) -> list[tuple[str, tuple[Cell, ...]]]:
    """Title and cells that go with ``HEADERS``."""
    return [(m.title, _cells(m)) for m in found.measures]


def _cells(m: CopyMeasure) -> tuple[Cell, ...]:
    return (
        Cell(f"at most {m.threshold:g}", note=m.reference),
        *(_counted_cell(m.images[side]) for side in SIDES),
        Cell(p_text(m.p)),
        *(_counted_cell(m.generations[side]) for side in SIDES),
        _ratio_cell(m.ratio, m.ratio_p),
    )


def _counted_cell(counted: Counted) -> Cell:
    text = f"{counted.count:,} of {counted.of:,}"
    return Cell(text, interval(counted.share, 0, 100), f"{percent(counted.share.value or 0.0)}")


def _ratio_cell(ratio: Estimate | None, p: float | None) -> Cell:
    if ratio is None or ratio.value is None or p is None:
        return Cell("\N{EN DASH}")
    chance = f"chance {decimal(ratio.low or 0.0, 2)} to {decimal(ratio.high or 0.0, 2)}; p {p_text(p)}"
    return Cell(decimal(ratio.value, 2), note=chance)


def prompt_rows(found: Memorisation) -> list[tuple[str, tuple[Cell, ...]]]:
    """Title and cells that go with ``PROMPT_HEADERS``."""
    rows = []
    for name, (train, held_out, auc) in found.prompts.scores.items():
        means = (Cell("", note=NOT_MEASURED) if v is None else Cell(decimal(v, 2)) for v in (train, held_out))
        area = Cell("\N{EN DASH}") if auc.value is None else Cell(decimal(auc.value, 2), interval(auc))
        rows.append((SCORES.get(name, name), (*means, area)))
    return rows


def galleries(
    found: Memorisation, uris: Callable[[Sequence[bytes]], tuple[str, ...]]
) -> list[tuple[list[tuple[str, str]], str]]:
    """Of each pair its pictures (title, data URI) and the note."""
    return [(list(zip(COLUMNS, uris(pair.pictures), strict=True)), pair.note) for pair in found.pairs]


def cited(found: Memorisation) -> list[str]:
    """BibTeX of what was used."""
    return [entry for entry in (*(m.bibtex for m in found.measures), found.prompts.bibtex) if entry]
