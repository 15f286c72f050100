"""The page's tables as text cells, shared by the HTML page and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smplora.core.wording import decimal, p_text, percent
from smplora.report.wording import LEVEL_WORDS, NOT_MEASURED, digits_for, interval, unresolvable
from smplora.results.records import Attack, Distances, Estimate, Numbers, Quality, Subject

HEADLINE_FPR = 0.05
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
class Cell:
    """One number: its text, its interval and a remark; the latter two may be empty."""

    text: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class SummaryRow:
    """One subject in the first table; ``cells`` go with ``SUMMARY_HEADERS``."""

    subject: Subject
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class AttackRow:
    """One attack on one subject; ``cells`` go with ``attack_headers``."""

    attack: Attack
    strongest: bool
    cells: tuple[Cell, ...]


def summary_rows(subjects: Sequence[Subject]) -> list[SummaryRow]:
    """Subjects side by side, in the given order."""
    return [SummaryRow(subject, _summary_cells(subject)) for subject in subjects]


def attack_headers(subject: Subject) -> list[str]:
    """Headers of ``attack_rows``: the rates are those that any attack of the subject has."""
    rates = [f"TPR at {percent(fpr)} FPR" for fpr in _rates(subject)]
    return [
        "AUC, test members",
        "Accuracy (ASR)",
        *rates,
        "AUC, aux members",
        "Paper's protocol (optimistic)",
    ]


def attack_rows(subject: Subject) -> list[AttackRow]:
    """Every attack on a subject, in the audit's order."""
    return [
        AttackRow(
            attack,
            attack is subject.strongest("test"),
            (
                auc_cell(attack.test, bootstrap_note(attack.test)),
                fraction_cell(attack.test.asr),
                *(rate_cell(attack.test, fpr) for fpr in _rates(subject)),
                auc_cell(attack.aux_members, bootstrap_note(attack.aux_members))
                if attack.aux_members
                else Cell("\N{EN DASH}", note="trained on them"),
                Cell(f"ASR {percent(attack.paper_asr)}", note=attack.paper_label)
                if attack.paper_asr is not None
                else Cell("\N{EN DASH}"),
            ),
        )
        for attack in subject.attacks
    ]


def setting_rows(
    columns: Sequence[Mapping[str, str]],
) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """Settings of several runs: (key, one value a run) where they differ, and (key, value) of all others."""
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [(key, [column.get(key, "\N{EN DASH}") for column in columns]) for key in keys]
    equal = [(key, values[0]) for key, values in rows if len(set(values)) == 1]
    return [row for row in rows if len(set(row[1])) > 1], equal


def auc_cell(numbers: Numbers | None, note: str = "") -> Cell:
    """An AUC with two decimals."""
    if numbers is None or numbers.auc.value is None:
        return Cell("", note=NOT_MEASURED)
    return Cell(decimal(numbers.auc.value, 2), interval(numbers.auc), note)


def bootstrap_note(numbers: Numbers | None) -> str:
    """The bootstrap's interval of the AUC, to stand below DeLong's, and the p corrected for all attacks."""
    if numbers is None:
        return ""
    shown, p = interval(numbers.bootstrap), numbers.p_corrected
    return "; ".join([f"bootstrap {shown}"] * bool(shown) + ([] if p is None else [f"corrected p {p_text(p)}"]))


def fraction_cell(estimate: Estimate) -> Cell:
    """A fraction in percent."""
    if estimate.value is None:
        return Cell("", note=NOT_MEASURED)
    text = percent(estimate.value)
    return Cell(text, interval(estimate, 1 if "." in text else 0, 100))


def rate_cell(numbers: Numbers | None, fpr: float) -> Cell:
    """A true-positive rate in percent, or what it would take to know it."""
    rate = numbers.rate(fpr) if numbers else None
    if rate is None:
        return Cell("", note=NOT_MEASURED)
    return fraction_cell(rate.tpr) if rate.resolvable else Cell("", note=unresolvable(rate))


def distance_cell(estimate: Estimate | None) -> Cell:
    """A KID, FID or loss with three significant digits."""
    if estimate is None or estimate.value is None:
        return Cell("", note=": ".join(filter(None, (NOT_MEASURED, estimate.reason if estimate else ""))))
    digits = digits_for(estimate)
    return Cell(decimal(estimate.value, digits), interval(estimate, digits))


def quality_cells(quality: Quality, by: Distances | None = None) -> tuple[Cell, ...]:
    """Cells that go with ``QUALITY_HEADERS``, of the first network or of another, which has no loss of its own."""
    by = by or quality.by[0]
    loss = distance_cell(quality.held_out_loss) if by is quality.by[0] else Cell("")
    values = [distance_cell(value) for value in (by.kid, by.fid, by.train_kid, by.train_fid)]
    return (*values[:2], loss, *values[2:])


def quality_rows(subjects: Sequence[Subject]) -> list[tuple[Subject, Quality, Distances, tuple[Cell, ...]]]:
    """Rows of the table of distances: one for each network of each subject."""
    return [(s, q, by, quality_cells(q, by)) for s in subjects if (q := s.quality) for by in q.by]


def diversity_headers(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Of ``diversity_rows``: what somebody measured."""
    return (*DIVERSITY_HEADERS, *(name for name, _ in _measured_by_some(subjects)))


def diversity_rows(subjects: Sequence[Subject]) -> list[tuple[Subject, Distances, tuple[Cell, ...]]]:
    """Rows of what KID and FID do not tell apart, one for each network of each subject."""
    more = _measured_by_some(subjects)
    return [
        (
            s,
            by,
            (*(distance_cell(v) for v in (*by.diversity, by.nearest)), *(distance_cell(of(q, by)) for _, of in more)),
        )
        for s in subjects
        if (q := s.quality)
        for by in q.by
    ]


def _measured_by_some(
    subjects: Sequence[Subject],
) -> list[tuple[str, Callable[[Quality, Distances], Estimate | None]]]:
    """Columns that depend on the options of the evaluation."""
    qualities = [s.quality for s in subjects if s.quality]
    columns: list[tuple[str, Callable[[Quality, Distances], Estimate | None], bool]] = [
        ("CMMD", lambda q, by: by.cmmd, any(by.cmmd.value is not None for q in qualities for by in q.by)),
        (
            "CLIP score",
            lambda q, by: q.clip_score if by is q.by[0] else None,
            any(q.clip_score.value is not None for q in qualities),
        ),
        (
            "CLIP score of held-out images",
            lambda q, by: q.real_clip_score if by is q.by[0] else None,
            any(q.real_clip_score.value is not None for q in qualities),
        ),
    ]
    return [(name, of) for name, of, wanted in columns if wanted]


def _rates(subject: Subject) -> list[float]:
    return sorted({rate.fpr for attack in subject.attacks for rate in attack.test.rates})


def _summary_cells(subject: Subject) -> tuple[Cell, ...]:
    test, quality = subject.strongest_numbers("test"), subject.quality
    on_test, on_aux = subject.strongest("test"), subject.strongest("aux_members")
    return (
        Cell(LEVEL_WORDS[subject.verdict.level], note=subject.verdict.sentence),
        auc_cell(test, on_test.title if on_test else ""),
        auc_cell(subject.strongest_numbers("aux_members"), on_aux.title if on_aux and on_aux is not on_test else ""),
        fraction_cell(test.asr) if test else Cell("", note=NOT_MEASURED),
        rate_cell(test, HEADLINE_FPR),
        distance_cell(quality.kid if quality else None),
        distance_cell(quality.fid if quality else None),
    )
