"""The figures of a report, one function each: records in, inline SVG out, or None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, NullLocator

from smplora.core.wording import decimal
from smplora.report.figures.curves import Line, over_steps
from smplora.report.figures.plane import Bar, Place, bar, plane
from smplora.report.figures.roc import RocLine, roc
from smplora.report.figures.svg import (
    CARD,
    FONT_SIZE,
    GUIDE,
    INK,
    MUTED,
    PALETTE,
    WIDTH,
    Style,
    blank,
    inline,
    name_axes,
    short,
)
from smplora.report.wording import GROUP_WORDS, NOT_MEASURED
from smplora.results.attack import GROUPS, Group
from smplora.results.subjects import ReportedAdapter, ReportedRun

Looks = Mapping[ReportedAdapter, Style]
CHANCE_GAIN = -float(np.log(2))  # the MI gain of a proxy that always says one half


def scatter(subjects: Sequence[ReportedAdapter], looks: Looks, measure: Literal["kid", "fid"]) -> Markup | None:
    """AUC of the strongest attack on the half of the members, test or aux, that is worse off, against held-out KID or
    FID, with intervals. Points bear the subject's number in the report.

    Subjects without that measure are left out. Checkpoints of one LoRA run are joined by a thin line: what stopping
    early buys is what a defence has to beat.
    """
    places = []
    for number, subject in sorted(enumerate(subjects, 1), key=lambda pair: pair[1].audit.subject.step or 0):
        quality = subject.quality
        auc, distance = (
            _auc(subject, _worse(subject)),
            bar(getattr(quality.against.held_out, measure)) if quality else None,
        )
        if auc and distance:
            places.append(Place(subject.label, str(number), distance, auc, looks[subject], _stopped(subject)))
    axes_names = (
        f"held-out {measure.upper()}  (left: better images)",
        "AUC on the worse half of the members  (low: private)",
    )
    return plane(places, f"scatter-{measure}", axes_names, size=(WIDTH, 350))


def _worse(subject: ReportedAdapter) -> Group:
    """The group of members that is farther from chance."""
    return max(GROUPS, key=lambda group: subject.audit.numbers(group).exposure)


def _stopped(subject: ReportedAdapter) -> str | None:
    """The run that a LoRA, stopped or not, is a checkpoint of."""
    about = subject.audit.subject
    return str(subject.run.folder) if about.objective == "lora" and about.step is not None else None


def _auc(subject: ReportedAdapter, group: Group) -> Bar | None:
    return bar(subject.audit.numbers(group).auc)


def rocs(subjects: Sequence[ReportedAdapter], looks: Looks) -> list[Markup]:
    """The ROC curve of each subject's strongest attack on test members, on plain and on logarithmic axes."""
    drawn = [(s, numbers) for s in subjects if len((numbers := s.audit.numbers("test")).roc.fpr) > 1]
    if not drawn:
        return []
    curves = [RocLine(s.label, n.roc.points, looks[s], n.roc.above, n.roc.below) for s, n in drawn]
    smallest = max(numbers.smallest_fpr for _, numbers in drawn)
    floor = 10.0 ** np.floor(np.log10(0.999 / max(max(n.n_nonmembers, n.n_members) for _, n in drawn)))
    figures = (roc(curves, "roc-linear"), roc(curves, "roc", smallest=smallest, floor=floor))
    return [figure for figure in figures if figure]


def exposure(subject: ReportedAdapter, number: int) -> Markup:
    """Scores of members (filled) and non-members (outline) under the strongest attack, on both groups."""
    figure, first = blank(WIDTH, 330)
    first.remove()
    for place, group in enumerate(GROUPS, 1):
        axes = figure.add_subplot(2, 1, place)
        counts = subject.audit.exposure[group]
        edges = np.array(counts.edges)
        filled: dict[str, Any] = {"color": PALETTE[1], "alpha": 0.45, "linewidth": 0, "zorder": 2}
        axes.bar(edges[:-1], counts.members, np.diff(edges), align="edge", **filled)
        axes.stairs(counts.nonmembers, edges, color=PALETTE[0], linewidth=1.8, zorder=3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=FONT_SIZE - 1)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        name_axes(axes, f"score, {GROUP_WORDS[group]}  (right: member)", "images")
    attack = short(subject.audit.chosen("test").title, 80)
    about = f"Scores of the strongest attack on {subject.label}, filled: members, outline: unseen images. {attack}."
    return inline(figure, f"exposure-{number}", about)


def training_curves(
    runs: Mapping[ReportedRun, Style], name: str, title: str, chance: float | None = None
) -> Markup | None:
    """One quantity of metrics.jsonl against the step, one line a run; runs that do not have it are left out."""
    lines = [Line(run.folder.name, run.curves[name], look) for run, look in runs.items() if name in run.curves]
    return over_steps(lines, name, title, chance=chance)


def members_compared(subjects: Sequence[ReportedAdapter], looks: Looks) -> Markup:
    """AUC on test members (filled) and on aux members (open) with intervals, one row a subject."""
    row = 48
    figure, axes = blank(WIDTH, 90 + row * len(subjects))
    axes.axvline(0.5, **GUIDE)
    lowest = 0.44
    for number, subject in enumerate(subjects):
        look, base = looks[subject], len(subjects) - number
        axes.text(
            0.0, base + 0.36, short(subject.label, 48), transform=axes.get_yaxis_transform(), fontsize=FONT_SIZE,
            color=INK, va="center", parse_math=False,
        )  # fmt: skip
        faces: tuple[tuple[Group, float, str], ...] = (("test", 0.08, look.colour), ("aux_members", -0.2, CARD))
        for group, height, face in faces:
            auc = _auc(subject, group)
            if auc is None:
                continue
            lowest = min(lowest, auc.low - 0.02)
            axes.errorbar(
                [auc.value], [base + height], xerr=auc.arms, color=look.colour, marker=look.marker,
                markersize=8, markerfacecolor=face, markeredgewidth=1.6, elinewidth=1.6, capsize=0, zorder=4,
            )  # fmt: skip
    axes.set_ylim(0.55, len(subjects) + 0.65)
    axes.set_xlim(max(-0.02, lowest), 1.02)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    name_axes(axes, "AUC of the strongest attack  (0.5: chance)", "")
    values = []
    for subject in subjects:
        pair = (_auc(subject, "test"), _auc(subject, "aux_members"))
        shown = [decimal(auc.value, 2) if auc else NOT_MEASURED for auc in pair]
        values.append(f"{subject.label}: test members {shown[0]}, aux members {shown[1]}")
    return inline(figure, "groups", f"AUC on test members against aux members. {'; '.join(values)}.")
