"""Gathers everything that the template shows and renders it: one HTML file without a single outside reference."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from markupsafe import Markup

from smplora.config.train import TrainConfig
from smplora.core.version import __version__
from smplora.core.wording import percent
from smplora.report import evidence, memorisation, properties, tables, wording
from smplora.report.advice import advice
from smplora.report.anonymise import anonymous
from smplora.report.figures import overview
from smplora.report.figures.budget import budget_figures
from smplora.report.figures.svg import Style, mark, style
from smplora.report.html import PAPER, Gallery, Strip, template, uris, with_code
from smplora.report.limitations import cautions, not_measured
from smplora.results.subjects import Exposed, ReportedAdapter, ReportedRun, flat


def render(subjects: Sequence[ReportedAdapter], shareable: bool = False) -> str:
    """The page about ``subjects`` as HTML; the same input gives the same bytes.

    Args:
        shareable: leave out all images, captions and names of files, folders and models.
    """
    if shareable:
        subjects = anonymous(subjects)
    looks = {subject: style(i) for i, subject in enumerate(subjects)}
    runs = _runs(subjects, looks)
    first = next(iter(wording.most_exposed_first(subjects)))
    summary = tables.summary_rows(subjects)
    headers, numbers, unfilled = tables.filled(tables.SUMMARY_HEADERS, [row.cells for row in summary])
    more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
    return template("page.html.j2").render(
        title=f"Privacy report: {subjects[0].label}{more}",
        headline=wording.headline(subjects),
        level=first.audit.verdict.level,
        terms=wording.TERMS,
        cautions=cautions(subjects),
        advice=[with_code(sentence) for sentence in advice(subjects)],
        summary=summary,
        headers=headers,
        numbers=numbers,
        unfilled=unfilled,
        marks={subject: mark(look) for subject, look in looks.items()},
        scatters=[f for f in (overview.scatter(subjects, looks, "kid"), overview.scatter(subjects, looks, "fid")) if f],
        members=overview.members_compared(subjects, looks),
        unplaced=[subject.label for subject in subjects if subject.quality is None],
        shareable=shareable,
        galleries=_galleries(subjects, looks),
        proved=tables.filled(evidence.HEADERS, [cells for _, cells in evidence.evidence_rows(subjects)]),
        subjects=subjects,
        power=evidence.power_sentence(subjects),
        exposures=[(subject, overview.exposure(subject, i)) for i, subject in enumerate(subjects)],
        exposed=[(s, e, _exposed(e)) for s in subjects if (e := s.exposed)],
        copied=[(s, c, memorisation.galleries(s.copies, uris)) for s in subjects if (c := s.audit.memorisation)],
        copies_about=memorisation.about,
        copy_headers=memorisation.HEADERS,
        copy_rows=memorisation.measure_rows,
        prompt_headers=memorisation.PROMPT_HEADERS,
        prompt_rows=memorisation.prompt_rows,
        told=properties.properties_of(subjects),
        qualities=tables.quality_rows(subjects),
        quality_headers=tables.QUALITY_HEADERS,
        diversity=tables.diversity_rows(subjects),
        diversity_headers=tables.diversity_headers(subjects),
        attacks_on=_attacks,
        auc_methods=sorted({m for s in subjects for a in s.audit.attacks if (m := a.test.auc.method)}),
        legend_items=[(mark(looks[s]), s.label) for s in subjects],
        numbered=[(mark(looks[s]), f"{i}. {s.label}") for i, s in enumerate(subjects, 1)],
        rocs=overview.rocs(subjects, looks),
        curves=_curves(runs),
        budgets=[
            (_run_name(run, subjects), budget_figures(run.budget, f"run{i}_"))
            for i, run in enumerate(runs)
            if run.budget
        ],
        run_marks=[(mark(look), _run_name(run, subjects)) for run, look in runs.items() if any(run.curves.values())],
        gaps=[with_code(gap) for gap in not_measured(subjects)],
        settings=_settings(subjects, runs),
        cells=wording.cells,
        splits=list({s.audit.split.seal: s.audit.split for s in subjects}.values()),
        citations=citations(subjects),
        version=__version__,
    )


def _attacks(
    subject: ReportedAdapter,
) -> tuple[list[str], list[tuple[tables.AttackRow, list[tables.TableCell]]], list[str]]:
    """The table of a subject's attacks: headers, rows with their cells, and what has no column."""
    rows = tables.attack_rows(subject)
    headers, cells, gone = tables.filled(tables.attack_headers(subject), [row.cells for row in rows])
    return headers, list(zip(rows, cells, strict=True)), gone


def citations(subjects: Sequence[ReportedAdapter]) -> list[str]:
    """BibTeX of the paper, of the attacks used and of the statistics, each entry once."""
    used = [
        *(attack.bibtex for subject in subjects for attack in subject.audit.attacks),
        *(method.bibtex for subject in subjects for method in subject.audit.methods),
        *(entry for s in subjects if s.audit.memorisation for entry in memorisation.cited(s.audit.memorisation)),
        *(entry for s in subjects if s.properties for entry in properties.cited(s.properties)),
    ]
    entries = [PAPER, *(entry for text in used for entry in re.split(r"\n(?=@)", text.strip()) if entry)]
    first: dict[str, str] = {}
    for entry in entries:
        first.setdefault(entry.split(",")[0].replace(" ", ""), entry)
    return list(first.values())


def _runs(subjects: Sequence[ReportedAdapter], looks: Mapping[ReportedAdapter, Style]) -> dict[ReportedRun, Style]:
    """Every run once, looking like its longest trained subject."""
    longest: dict[ReportedRun, ReportedAdapter] = {}
    for subject in subjects:
        known = longest.get(subject.run)
        if known is None or _step(subject) > _step(known):
            longest[subject.run] = subject
    return {run: looks[subject] for run, subject in longest.items()}


def _step(subject: ReportedAdapter) -> int:
    return subject.audit.subject.step or 0


def _run_name(run: ReportedRun, subjects: Sequence[ReportedAdapter]) -> str:
    return next((s.label for s in subjects if s.folder == run.folder), run.folder.name)


def _curves(runs: Mapping[ReportedRun, Style]) -> list[Markup]:
    figures = (
        overview.training_curves(runs, "adaptation_loss", "adaptation loss"),
        overview.training_curves(runs, "mi_gain", "MI gain of the proxy", overview.CHANCE_GAIN),
        overview.training_curves(runs, "proxy_accuracy", "accuracy of the proxy", 0.5),
    )
    return [figure for figure in figures if figure]


def _settings(
    subjects: Sequence[ReportedAdapter], runs: Mapping[ReportedRun, Style]
) -> list[tuple[str, list[str], object, object, int]]:
    """Tables of settings: (title, column names, differing rows, equal rows, how many are left out)."""
    names = [_run_name(run, subjects) for run in runs]
    labels = [subject.label for subject in subjects]
    nothing: dict[str, str] = {}
    compared = (
        ("Training", names, [run.config for run in runs], flat(asdict(TrainConfig()))),
        ("Audit", labels, [flat(subject.audit.settings) for subject in subjects], nothing),
        ("Machine that trained", names, [run.environment for run in runs], nothing),
        ("Machine that audited", labels, [flat(subject.audit.environment) for subject in subjects], nothing),
    )
    return [
        (title, heads, *tables.setting_rows(columns, usual))
        for title, heads, columns, usual in compared
        if any(columns)
    ]


def _galleries(subjects: Sequence[ReportedAdapter], looks: Mapping[ReportedAdapter, Style]) -> list[Gallery]:
    """Pictures in one gallery wherever captions, seed and real images agree."""
    alike: dict[tuple[tuple[str, ...], int, tuple[bytes, ...]], list[ReportedAdapter]] = defaultdict(list)
    for subject in subjects:
        if subject.quality and subject.samples:
            alike[subject.quality.captions, subject.quality.seed, subject.real].append(subject)
    galleries = []
    for (captions, _, real), members in alike.items():
        strips = [Strip("Real images, held out", Markup(""), uris(real))] if real else []
        strips += [Strip(s.label, mark(looks[s]), uris(s.samples)) for s in members]
        galleries.append(Gallery("Generated images", captions, tuple(strips)))
    return galleries


def _exposed(exposed: Exposed) -> list[tuple[str, str]]:
    """Each picture as a data URI, and a note on it."""

    beaten = (image.beats for image in exposed.images.images)
    notes = [f"ahead of {'all' if share == 1 else percent(share)}" for share in beaten]
    return list(zip(uris(exposed.pictures), notes, strict=True))
