"""What all attacks together prove: read from audit.json, and put into table cells and sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from smplora.core.wording import decimal, p_text, percent
from smplora.report.tables import Cell
from smplora.report.wording import interval
from smplora.results.records import (
    GROUPS,
    Epsilon,
    Evidence,
    Finding,
    Subject,
)

HEADERS = (
    "Strongest attack on test members",
    "Strongest attack on aux members",
    "Epsilon, at least",
    "Epsilon from one run, at least",
    "The set as a whole (p)",
)


def evidence_rows(subjects: Sequence[Subject]) -> list[tuple[Subject, tuple[Cell, ...]]]:
    """Cells that go with ``HEADERS``, one row a subject."""
    return [(subject, _cells(subject.evidence)) for subject in subjects]


def _cells(evidence: Evidence) -> tuple[Cell, ...]:
    return (
        *(_finding_cell(evidence.findings[group]) for group in GROUPS),
        _epsilon_cell(evidence.epsilon),
        _epsilon_cell(evidence.one_run) if evidence.one_run else Cell("", note="needs --split_protocol coin"),
        Cell(p_text(evidence.dataset_p)),
    )


def _finding_cell(finding: Finding) -> Cell:
    note = f"{finding.title}; corrected p {p_text(finding.p)}"
    return Cell(f"AUC {decimal(finding.auc.value or 0.0, 2)}", interval(finding.auc), note)


def _epsilon_cell(epsilon: Epsilon) -> Cell:
    return Cell(decimal(epsilon.value, 2), note=f"of at most {decimal(epsilon.ceiling, 2)} with these cells")


def power_sentence(subjects: Sequence[Subject]) -> str:
    """What the audits would have missed, once for all of them."""
    test, aux = (_range({decimal(s.evidence.detectable[group], 2) for s in subjects}) for group in GROUPS)
    missed = _range({percent(1 - s.evidence.power) for s in subjects})
    reach = test if test == aux else f"{test} on test members, or {aux} on aux members,"
    return f"With these cells an AUC below {reach} would have gone unseen in more than {missed} of audits."


def _range(numbers: Collection[str]) -> str:
    return min(numbers) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
