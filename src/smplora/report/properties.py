"""The section on what an adapter tells of its training set as a whole, from properties.json."""

from __future__ import annotations

from collections.abc import Sequence

from smplora.report.figures.svg import Drawing
from smplora.report.figures.told import told
from smplora.results.properties import Properties, Question
from smplora.results.subjects import ReportedAdapter

Shown = tuple[Question, Drawing]


def shown_questions(result: Properties, number: int) -> list[Shown]:
    """Every question with its figure; ``number`` is the subject's in the page."""
    asked = ((result.size, "size", "images", True), (result.share, "share", "share of images", False))
    return [
        (question, told(question, f"told-{name}-{number}", unit, logarithmic=counts))
        for question, name, unit, counts in asked
        if question
    ]


def properties_of(subjects: Sequence[ReportedAdapter]) -> list[tuple[ReportedAdapter, Properties, list[Shown]]]:
    """Of the subjects that were asked."""
    return [(s, s.properties, shown_questions(s.properties, i)) for i, s in enumerate(subjects) if s.properties]


def cited(result: Properties) -> list[str]:
    """BibTeX of the ways of asking."""
    questions = [question for question in (result.size, result.share) if question]
    return [answer.bibtex.strip() for question in questions for answer in question.answers]
