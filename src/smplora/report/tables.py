"""The page's tables as text cells, shared by the HTML page and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smplora.core.wording import decimal, p_text, percent
from smplora.report.wording import LEVEL_WORDS, NOT_MEASURED, digits_for, interval, unresolvable
from smplora.results.attack import AttackResult, Numbers
from smplora.results.estimate import Estimate
from smplora.results.quality import NetworkQuality, Quality
from smplora.results.subjects import ReportedAdapter

HEADLINE_FPR = 0.05
EMPTY = ("null", "[]", "{}", "")
SUMMARY_HEADERS = (
    "Verdict",
    "AUC, test members",
    "AUC, aux members",
    "Accuracy (ASR)",
    f"TPR at {percent(HEADLINE_FPR)} FPR",
    "KID, held-out",
    "FID, held-out",
)
QUALITY_HEADERS = (
    "KID, held-out",
    "FID, held-out",
    "Loss on held-out images",
    "KID, training images",
    "FID, training images",
)
DIVERSITY_HEADERS = ("Precision", "Recall", "Density", "Coverage", "Nearest training to nearest held-out image")


@dataclass(frozen=True)
class TableCell:
    """One number: its text, its interval and a remark; the latter two may be empty."""

    text: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class SummaryRow:
    """One subject in the first table; ``cells`` go with ``SUMMARY_HEADERS``."""

    subject: ReportedAdapter
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class AttackRow:
    """One attack on one subject; ``cells`` go with ``attack_headers``."""

    attack: AttackResult
    strongest: bool
    cells: tuple[TableCell, ...]


def summary_rows(subjects: Sequence[ReportedAdapter]) -> list[SummaryRow]:
    """Subjects side by side, in the given order."""
    return [SummaryRow(subject, _summary_cells(subject)) for subject in subjects]


def attack_headers(subject: ReportedAdapter) -> list[str]:
    """Headers of ``attack_rows``: the rates are those that any attack of the subject has."""
    rates = [f"TPR at {percent(fpr)} FPR" for fpr in _rates(subject)]
    return [
        "AUC, test members",
        "Accuracy (ASR)",
        *rates,
        "AUC, aux members",
        "Paper's protocol (optimistic)",
    ]


def attack_rows(subject: ReportedAdapter) -> list[AttackRow]:
    """Every attack on a subject, in the audit's order."""
    return [
        AttackRow(
            attack,
            attack is subject.audit.chosen("test"),
            (
                auc_cell(attack.test, p_note(attack.test)),
                fraction_cell(attack.test.asr),
                *(rate_cell(attack.test, fpr) for fpr in _rates(subject)),
                auc_cell(attack.aux_members, p_note(attack.aux_members))
                if attack.aux_members
                else TableCell("\N{EN DASH}", note="trained on them"),
                _paper_cell(attack),
            ),
        )
        for attack in subject.audit.attacks
    ]


def _paper_cell(attack: AttackResult) -> TableCell:
    paper = attack.paper_protocol
    if paper is None or paper.asr is None:
        return TableCell("\N{EN DASH}")
    return TableCell(f"ASR {percent(paper.asr)}", note=paper.label)


def setting_rows(
    columns: Sequence[Mapping[str, str]], usual: Mapping[str, str] | None = None
) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]], int]:
    """Settings of several runs: (key, one value a run) where they differ, (key, value) of all others, and how many are
    in neither, since they are ``usual`` or nothing everywhere."""
    usual = usual or {}
    keys = dict.fromkeys(key for column in columns for key in column)
    plain = {key for key in keys if all(column.get(key, "null") in (usual.get(key), *EMPTY) for column in columns)}
    keys = {key: None for key in keys if key not in plain}
    rows = [(key, [column.get(key, "\N{EN DASH}") for column in columns]) for key in keys]
    equal = [(key, values[0]) for key, values in rows if len(set(values)) == 1]
    return [row for row in rows if len(set(row[1])) > 1], equal, len(plain)


def filled(
    headers: Sequence[str], rows: Sequence[Sequence[TableCell]]
) -> tuple[list[str], list[list[TableCell]], list[str]]:
    """Headers and rows without the columns in which no row has a number, and what is said of those."""
    kept = [k for k in range(len(headers)) if any(row[k].text.strip("\N{EN DASH}") for row in rows)]
    gone = [k for k in range(len(headers)) if k not in kept]
    why = {k: ", ".join(dict.fromkeys(row[k].note for row in rows if row[k].note)) for k in gone}
    notes = [f"{headers[k]}: {why[k]}" if why[k] else headers[k] for k in gone]
    return [headers[k] for k in kept], [[row[k] for k in kept] for row in rows], notes


def auc_cell(numbers: Numbers | None, note: str = "") -> TableCell:
    """An AUC with two decimals."""
    if numbers is None:
        return TableCell("", note=NOT_MEASURED)
    return TableCell(decimal(numbers.auc.value, 2), interval(numbers.auc), note)


def p_note(numbers: Numbers | None) -> str:
    """The p corrected for everything that was looked at, to stand below the interval of the AUC."""
    return f"corrected p {p_text(numbers.p_value.corrected)}" if numbers and numbers.p_value else ""


def fraction_cell(estimate: Estimate) -> TableCell:
    """A fraction in percent."""
    if estimate.value is None:
        return TableCell("", note=NOT_MEASURED)
    text = percent(estimate.value)
    return TableCell(text, interval(estimate, 1 if "." in text else 0, 100))


def rate_cell(numbers: Numbers | None, fpr: float) -> TableCell:
    """A true-positive rate in percent, or what it would take to know it."""
    rate = numbers.rates.get(fpr) if numbers else None
    if rate is None:
        return TableCell("", note=NOT_MEASURED)
    return fraction_cell(rate) if rate.resolvable else TableCell("", note=unresolvable(rate))


def distance_cell(estimate: Estimate | None) -> TableCell:
    """A KID, FID or loss with three significant digits."""
    if estimate is None or estimate.value is None:
        return TableCell("", note=": ".join(filter(None, (NOT_MEASURED, estimate.reason if estimate else ""))))
    digits = digits_for(estimate)
    return TableCell(decimal(estimate.value, digits), interval(estimate, digits))


def quality_cells(quality: Quality, network: str | None = None) -> tuple[TableCell, ...]:
    """Cells that go with ``QUALITY_HEADERS``, of the first network or of another, which has no loss of its own."""
    first = quality.features[0]
    against = quality.by_network[network or first].against
    loss = distance_cell(quality.held_out_loss) if network in (None, first) else TableCell("")
    distances = [
        distance_cell(getattr(images, measure) if images else None)
        for images in (against.held_out, against.train)
        for measure in ("kid", "fid")
    ]
    return (*distances[:2], loss, *distances[2:])


def quality_rows(
    subjects: Sequence[ReportedAdapter],
) -> list[tuple[ReportedAdapter, Quality, NetworkQuality, tuple[TableCell, ...]]]:
    """Rows of the table of distances: one for each network of each subject."""
    return [
        (s, q, measured, quality_cells(q, name))
        for s in subjects
        if (q := s.quality)
        for name, measured in q.by_network.items()
    ]


def diversity_headers(subjects: Sequence[ReportedAdapter]) -> tuple[str, ...]:
    """Of ``diversity_rows``: what somebody measured."""
    return (*DIVERSITY_HEADERS, *(name for name, _ in _measured_by_some(subjects)))


def diversity_rows(
    subjects: Sequence[ReportedAdapter],
) -> list[tuple[ReportedAdapter, NetworkQuality, tuple[TableCell, ...]]]:
    """Rows of what KID and FID do not tell apart, one for each network of each subject."""
    more = _measured_by_some(subjects)
    rows = []
    for subject in subjects:
        quality = subject.quality
        for name, measured in quality.by_network.items() if quality else ():
            held_out, nearest = measured.against.held_out, measured.nearest
            own = (held_out.precision, held_out.recall, held_out.density, held_out.coverage)
            others = (of(quality, name) for _, of in more) if quality else ()
            shown = [*own, nearest.ratio if nearest else None, *others]
            rows.append((subject, measured, tuple(distance_cell(value) for value in shown)))
    return rows


def _measured_by_some(
    subjects: Sequence[ReportedAdapter],
) -> list[tuple[str, Callable[[Quality, str], Estimate | None]]]:
    """Columns that depend on the options of the evaluation: of a quality and the name of one of its networks."""

    def clip(side: str) -> Callable[[Quality, str], Estimate | None]:
        return lambda q, name: getattr(q.clip_score, side, None) if name == q.features[0] else None

    columns: dict[str, Callable[[Quality, str], Estimate | None]] = {
        "CMMD": lambda q, name: q.by_network[name].against.held_out.cmmd,
        "CLIP score": clip("generated"),
        "CLIP score of held-out images": clip("held_out"),
    }
    known = [(q, name) for s in subjects if (q := s.quality) for name in q.features]
    return [
        (title, of)
        for title, of in columns.items()
        if any((value := of(q, name)) and value.value is not None for q, name in known)
    ]


def _rates(subject: ReportedAdapter) -> list[float]:
    return sorted({fpr for attack in subject.audit.attacks for fpr in attack.test.rates})


def _summary_cells(subject: ReportedAdapter) -> tuple[TableCell, ...]:
    audit, held_out = subject.audit, subject.quality.against.held_out if subject.quality else None
    test, on_test, on_aux = audit.numbers("test"), audit.chosen("test"), audit.chosen("aux_members")
    return (
        TableCell(LEVEL_WORDS[audit.verdict.level], note=audit.verdict.sentence),
        auc_cell(test, on_test.title),
        auc_cell(audit.numbers("aux_members"), on_aux.title if on_aux is not on_test else ""),
        fraction_cell(test.asr),
        rate_cell(test, HEADLINE_FPR),
        distance_cell(held_out.kid if held_out else None),
        distance_cell(held_out.fid if held_out else None),
    )
