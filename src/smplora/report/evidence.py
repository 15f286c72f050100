"""What all attacks together prove: read from audit.json, and put into table cells and sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from smplora.core.wording import decimal, p_text, percent
from smplora.report.tables import TableCell
from smplora.report.wording import interval
from smplora.results.attack import GROUPS, Group
from smplora.results.audit import Audit, EpsilonByCounts, EpsilonOfOneRun
from smplora.results.subjects import ReportedAdapter

HEADERS = (
    "Strongest attack on test members",
    "Strongest attack on aux members",
    "Epsilon, at least",
    "Epsilon from one run, at least",
    "Epsilon from canaries, at least",
    "The set as a whole (p)",
)


def evidence_rows(subjects: Sequence[ReportedAdapter]) -> list[tuple[ReportedAdapter, tuple[TableCell, ...]]]:
    """Cells that go with ``HEADERS``, one row a subject."""
    return [(subject, _cells(subject.audit)) for subject in subjects]


def _cells(audit: Audit) -> tuple[TableCell, ...]:
    one_run, canaries = audit.epsilon.one_run, audit.canaries
    return (
        *(_strongest_cell(audit, group) for group in GROUPS),
        _epsilon_cell(audit.epsilon.clopper_pearson),
        _epsilon_cell(one_run) if one_run else TableCell("", note="needs --split_protocol coin"),
        _epsilon_cell(canaries.one_run) if canaries else TableCell("", note="needs --num_canaries in training"),
        TableCell(p_text(audit.dataset_inference.p)),
    )


def _strongest_cell(audit: Audit, group: Group) -> TableCell:
    strongest = audit.strongest[group]
    note = f"{audit.attack(strongest.attack, group).title}; corrected p {p_text(strongest.p_corrected)}"
    return TableCell(f"AUC {decimal(strongest.auc.value, 2)}", interval(strongest.auc), note)


def _epsilon_cell(epsilon: EpsilonByCounts | EpsilonOfOneRun) -> TableCell:
    note = f"of at most {decimal(epsilon.ceiling, 2)} with these cells"
    mu = epsilon.mu if isinstance(epsilon, EpsilonOfOneRun) else None
    return TableCell(decimal(epsilon.value, 2), note=note if mu is None else f"{note}; mu {decimal(mu, 2)} or more")


def power_sentence(subjects: Sequence[ReportedAdapter]) -> str:
    """What the audits would have missed, once for all of them."""
    test, aux = (_range({_detectable(s, group) for s in subjects}) for group in GROUPS)
    missed = _range({percent(1 - s.audit.power["test"].power) for s in subjects})
    reach = test if test == aux else f"{test} on test members, or {aux} on aux members,"
    return f"With these cells an AUC below {reach} would have gone unseen in more than {missed} of audits."


def _detectable(subject: ReportedAdapter, group: Group) -> str:
    auc = subject.audit.power[group].auc
    return "1.00" if auc is None else decimal(auc, 2)


def _range(numbers: Collection[str]) -> str:
    return min(numbers) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
