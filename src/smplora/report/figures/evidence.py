"""ROC on plain axes and the exposure histogram: records in, inline SVG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from smplora.core.wording import decimal, percent
from smplora.report.figures.overview import GUIDE, WIDTH, Looks, band, name_axes
from smplora.report.figures.svg import FONT_SIZE, INK, MUTED, PALETTE, blank, inline, short
from smplora.results.attack import GROUPS, Group
from smplora.results.subjects import Subject

GROUP_WORDS: Mapping[Group, str] = {"test": "test members", "aux_members": "aux members"}


def linear_roc(subjects: Sequence[Subject], looks: Looks) -> Markup | None:
    """ROC curve of each subject's strongest attack on test members, on plain axes with the pointwise band."""
    curves = {s: numbers for s in subjects if len((numbers := s.audit.numbers("test")).roc.fpr) > 1}
    if not curves:
        return None
    figure, axes = blank(WIDTH, 370)
    axes.plot([0, 1], [0, 1], **GUIDE)
    for subject, numbers in curves.items():
        look = looks[subject]
        band(axes, numbers, look.colour)
        axes.plot(*np.array(numbers.roc.points).T, color=look.colour, linestyle=look.line, linewidth=2, zorder=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    name_axes(axes, "FPR: unseen images accused wrongly", "TPR: members found")
    said = "; ".join(f"{s.label}: area {decimal(n.auc.value, 2)}" for s, n in curves.items())
    return inline(figure, "roc-linear", f"ROC curves on plain axes. {said}. The dashed diagonal is chance.")


def exposure(subject: Subject, number: int) -> Markup:
    """Scores of members (filled) and non-members (outline) under the strongest attack, on both groups."""
    figure, first = blank(WIDTH, 330)
    first.remove()
    for place, group in enumerate(GROUPS, 1):
        axes = figure.add_subplot(2, 1, place)
        counts = subject.audit.exposure[group]
        edges = np.array(counts.edges)
        axes.bar(
            edges[:-1],
            counts.members,
            np.diff(edges),
            align="edge",
            color=PALETTE[1],
            alpha=0.45,
            linewidth=0,
            zorder=2,
        )
        axes.stairs(counts.nonmembers, edges, color=PALETTE[0], linewidth=1.8, zorder=3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=FONT_SIZE - 1)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        name_axes(axes, f"score, {GROUP_WORDS[group]}  (right: member)", "images")
    about = f"Scores of the strongest attack on {subject.label}, filled: members, outline: unseen images."
    return inline(
        figure,
        f"exposure-{number}",
        f"{about} {short(subject.audit.attack(subject.audit.strongest['test'].attack).title, 80)}.",
    )
