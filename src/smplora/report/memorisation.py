"""Copies of training images: read from audit.json and the private files beside it, and put into cells and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smplora.core.wording import decimal, p_text, percent
from smplora.report.tables import TableCell
from smplora.report.wording import NOT_MEASURED, interval
from smplora.results.estimate import CountedShare
from smplora.results.gallery import CopiedPair
from smplora.results.memorisation import SIDES, CopyMeasure, Memorisation, NearerTest
from smplora.results.subjects import COLUMNS, Copies

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


def measure_rows(result: Memorisation) -> list[tuple[str, tuple[TableCell, ...]]]:
    """Title and cells that go with ``HEADERS``."""
    return [(m.title, _cells(m)) for m in result.measures]


def _cells(m: CopyMeasure) -> tuple[TableCell, ...]:
    return (
        TableCell(f"at most {m.threshold:g}", note=m.reference),
        *(_counted_cell(m.images[side]) for side in SIDES),
        TableCell(p_text(m.p)),
        *(_counted_cell(m.generations[side]) for side in SIDES),
        _ratio_cell(m.nearer_test),
    )


def _counted_cell(counted: CountedShare) -> TableCell:
    text = f"{counted.count:,} of {counted.of:,}"
    return TableCell(text, interval(counted, 0, 100), percent(counted.value))


def _ratio_cell(test: NearerTest | None) -> TableCell:
    if test is None:
        return TableCell("\N{EN DASH}")
    chance = test.ratio.chance
    note = f"chance {decimal(chance.low, 2)} to {decimal(chance.high, 2)}; p {p_text(test.p)}"
    return TableCell(decimal(test.ratio.value, 2), note=note)


def prompt_rows(result: Memorisation) -> list[tuple[str, tuple[TableCell, ...]]]:
    """Title and cells that go with ``PROMPT_HEADERS``."""
    rows = []
    for name, score in result.prompts.scores.items():
        values, auc = (score.train, score.held_out), score.auc
        means = (TableCell("", note=NOT_MEASURED) if v is None else TableCell(decimal(v, 2)) for v in values)
        area = TableCell("\N{EN DASH}") if auc is None else TableCell(decimal(auc.value, 2), interval(auc))
        rows.append((SCORES.get(name, name), (*means, area)))
    return rows


def galleries(
    copies: Copies, uris: Callable[[Sequence[bytes]], tuple[str, ...]]
) -> list[tuple[list[tuple[str, str]], str]]:
    """Of each pair its pictures (title, data URI) and a note."""
    shown = zip(copies.pictures, copies.pairs, strict=True)
    return [(list(zip(COLUMNS, uris(pictures), strict=True)), _note(pair)) for pictures, pair in shown]


def _note(pair: CopiedPair) -> str:
    near, other = pair.train, pair.held_out
    measured = (("tiles", near.tiles, other.tiles), ("embedding", near.embedding, other.embedding))
    distances = "; ".join(
        f"{name} {decimal(one, 2)}, held-out {decimal(two, 2)}"
        for name, one, two in measured
        if one is not None and two is not None
    )
    own = "from its own caption" if pair.of_its_own_caption else "from another image's caption"
    return f"{pair.caption}; {own}; {distances}"


def about(result: Memorisation) -> str:
    """What was generated and compared."""
    images, settings = result.images, result.settings
    guided = f"guidance {settings.guidance:g}" if settings.guidance != 1 else "no guidance"
    text = (
        f"{images.generated} images generated from training captions ({settings.images} for each training image, "
        f"{settings.steps} steps, {guided}), compared with {images.train} training and {images.held_out} held-out "
        "images."
    )
    return text if settings.encoder else f"{text} Embeddings were not compared: no --attack_encoder."


def cited(result: Memorisation) -> list[str]:
    """BibTeX of what was used."""
    return [e for entry in (*(m.bibtex for m in result.measures), result.prompts.bibtex) if (e := entry.strip())]
