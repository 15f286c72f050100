"""The figures of a report, one function each: records in, inline SVG out, or None where there is nothing to draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import IdentityTransform

from smplora.core.wording import decimal, percent
from smplora.report.figures.label_places import Box, place
from smplora.report.figures.svg import CARD, FONT_SIZE, GRID, INK, MUTED, Style, blank, inline, short, thinned
from smplora.report.wording import NOT_MEASURED
from smplora.results.attack import Group, Numbers
from smplora.results.estimate import Estimate
from smplora.results.subjects import Run, Subject

Array = npt.NDArray[np.float64]
Looks = Mapping[Subject, Style]
WIDTH = 400  # pixels: text of 11 pixels stays readable when a phone shows the figure at 330
CHANCE_GAIN = -float(np.log(2))  # the MI gain of a proxy that always says one half
BAND = 0.13  # opacity
GUIDE: dict[str, Any] = {"color": MUTED, "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 1}


class Bar(NamedTuple):
    """A value and the ends of its interval, which are the value itself where there is no interval."""

    value: float
    low: float
    high: float

    @property
    def arms(self) -> list[list[float]]:
        """As matplotlib's error bars want it."""
        return [[max(0.0, self.value - self.low)], [max(0.0, self.high - self.value)]]


def scatter(subjects: Sequence[Subject], looks: Looks, measure: Literal["kid", "fid"]) -> Markup | None:
    """AUC of the strongest attack on test members against held-out KID or FID, with intervals.

    Subjects without that measure are left out. Checkpoints of one LoRA run are joined by a thin line: what stopping
    early buys is what a defence has to beat.
    """
    drawn: dict[Subject, tuple[Bar, Bar]] = {}
    for subject in subjects:
        held_out = subject.quality.against.held_out if subject.quality else None
        auc, distance = _auc(subject, "test"), _bar(getattr(held_out, measure, None))
        if auc and distance:
            drawn[subject] = (distance, auc)
    if not drawn:
        return None
    figure, axes = blank(WIDTH, 350 + 14 * max(0, len(drawn) - 6))
    axes.axhline(0.5, **GUIDE)
    stopped: dict[Run, list[Subject]] = defaultdict(list)
    for subject in drawn:
        about = subject.audit.subject
        if about.objective == "lora" and about.step is not None:
            stopped[subject.run].append(subject)
    curves = [sorted(group, key=lambda s: s.audit.subject.step or 0) for group in stopped.values() if len(group) > 1]
    for group in curves:
        path = [(drawn[s][0].value, drawn[s][1].value) for s in group]
        axes.plot(*zip(*path, strict=True), color=MUTED, linewidth=1, zorder=2)
    for subject, (x, y) in drawn.items():
        look = looks[subject]
        axes.errorbar([x.value], [y.value], xerr=x.arms, yerr=y.arms, color=look.colour, elinewidth=1.6, zorder=3)
        axes.plot(x.value, y.value, look.marker, color=look.colour, markersize=11, markeredgecolor=CARD, zorder=4)
    axes.margins(0.14, 0.06)
    axes.set_ylim(min(0.44, axes.get_ylim()[0]), max(1.02, axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    name_axes(axes, f"held-out {measure.upper()}  (left: better images)", "AUC of the strongest attack  (low: private)")
    _label_points(axes, drawn, looks, curves)
    said = "; ".join(
        f"{s.label}: {measure.upper()} {x.value:.3g}, AUC {decimal(y.value, 2)}" for s, (x, y) in drawn.items()
    )
    return inline(figure, f"scatter-{measure}", f"Privacy against quality. {said}. Chance is an AUC of 0.5.")


def _bar(estimate: Estimate | None) -> Bar | None:
    if estimate is None or estimate.value is None:
        return None
    low, high = (estimate.value if end is None else end for end in (estimate.low, estimate.high))
    return Bar(estimate.value, low, high)


def _auc(subject: Subject, group: Group) -> Bar | None:
    return _bar(subject.audit.numbers(group).auc)


def _label_points(
    axes: Axes,
    drawn: Mapping[Subject, tuple[Bar, Bar]],
    looks: Looks,
    curves: Sequence[Sequence[Subject]],
) -> None:
    """Write each subject's label beside its point, off the points, intervals, lines and other labels."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # from here on pixels are final
    subjects = list(drawn)
    pixels = axes.transData.transform
    points = [tuple(pixels((drawn[s][0].value, drawn[s][1].value))) for s in subjects]
    obstacles = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    for (x, y), subject in zip(points, subjects, strict=True):
        across, up = drawn[subject]
        left, right = (pixels((end, 0.5))[0] for end in (across.low, across.high))
        bottom, top = (pixels((across.value, end))[1] for end in (up.low, up.high))
        obstacles += [Box(left, y - 5, right, y + 5), Box(x - 4, bottom, x + 4, top)]
    at = dict(zip(subjects, points, strict=True))
    for curve in curves:
        for one, two in pairwise(curve):
            for part in np.linspace(0, 1, 25):
                x, y = (1 - part) * np.array(at[one]) + part * np.array(at[two])
                obstacles.append(Box(x - 3, y - 3, x + 3, y + 3))
    edge = axes.get_window_extent()
    chance = pixels((0.0, 0.5))[1]
    obstacles.append(Box(edge.x0, chance - 4, edge.x1, chance + 4))
    texts = [axes.text(0, 0, short(s.label), fontsize=FONT_SIZE, color=INK, parse_math=False) for s in subjects]
    extents = [text.get_window_extent() for text in texts]
    within = Box(edge.x0 + 2, edge.y0 + 2, edge.x1, edge.y1)
    boxes = place(points, [(e.width, e.height) for e in extents], obstacles, within)
    for (x, y), text, box, subject in zip(points, texts, boxes, subjects, strict=True):
        text.set(
            transform=IdentityTransform(), position=((box.left + box.right) / 2, (box.bottom + box.top) / 2), zorder=5
        )
        text.set(ha="center", va="center")
        near = np.clip(x, box.left, box.right), np.clip(y, box.bottom, box.top)
        gap = float(np.hypot(near[0] - x, near[1] - y))
        if gap > 24:
            start = x + (near[0] - x) * 9 / gap, y + (near[1] - y) * 9 / gap  # outside the marker
            leader = Line2D(*zip(start, near, strict=True), color=looks[subject].colour, linewidth=1)
            leader.set_transform(IdentityTransform())
            figure.add_artist(leader)


def roc(subjects: Sequence[Subject], looks: Looks) -> Markup | None:
    """ROC curve of each subject's strongest attack on test members, on logarithmic axes."""
    curves = {s: numbers for s in subjects if len((numbers := s.audit.numbers("test")).roc.fpr) > 1}
    if not curves:
        return None
    smallest = max(numbers.smallest_fpr for numbers in curves.values())
    floor = 10.0 ** np.floor(np.log10(0.999 / max(max(n.n_nonmembers, n.n_members) for n in curves.values())))
    figure, axes = blank(WIDTH, 370)
    axes.axvspan(floor, smallest, color=GRID, alpha=0.6, linewidth=0, zorder=0)
    axes.plot([floor, 1], [floor, 1], **GUIDE)
    for subject, numbers in curves.items():
        fpr, tpr = np.maximum(_densely(numbers.roc.points).T, floor)
        look = looks[subject]
        band(axes, numbers, look.colour, floor)
        axes.plot(fpr, tpr, color=look.colour, linestyle=look.line, linewidth=2, zorder=3, solid_capstyle="butt")
    axes.axvline(smallest, color=MUTED, linewidth=1.2, zorder=2)
    axes.text(
        smallest, 1.015, f"resolvable from {percent(smallest)}", transform=axes.get_xaxis_transform(),
        ha="center" if 0.02 < np.log10(smallest) / np.log10(floor) < 0.8 else "right" if smallest > 0.3 else "left",
        va="bottom", color=INK, fontsize=FONT_SIZE - 1,
    )  # fmt: skip
    for axis, limit in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        ticks = [
            x for decade in range(-9, 1) for x in (10.0**decade, 2 * 10.0**decade, 5 * 10.0**decade) if floor <= x <= 1
        ]
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
        limit(floor, 1)
    name_axes(axes, "FPR: unseen images accused wrongly", "TPR: members found")
    said = "; ".join(f"{s.label}: area {decimal(n.auc.value, 2)}" for s, n in curves.items())
    return inline(figure, "roc", f"ROC curves on logarithmic axes. {said}. The dashed diagonal is chance.")


def band(axes: Axes, numbers: Numbers, colour: str, floor: float = 0.0) -> None:
    """Shade what lies between the two curves of the pointwise band."""
    if not numbers.roc.above:
        return
    above, below = (np.maximum(np.array(curve), floor) for curve in (numbers.roc.above, numbers.roc.below))
    x = np.unique(np.concatenate([above[:, 0], below[:, 0]]))
    upper, lower = (np.interp(x, *curve.T) for curve in (above, below))
    axes.fill_between(x, lower, upper, color=colour, alpha=BAND, linewidth=0, zorder=2)


def _densely(roc: Sequence[tuple[float, float]]) -> Array:
    """The curve with points added on its slopes (ties), which are straight but not on logarithmic axes."""
    points = [np.array(roc[:1])]
    for one, two in pairwise(roc):
        parts = 24 if one[0] < two[0] and one[1] < two[1] else 1
        points.append(np.linspace(one, two, parts + 1)[1:])
    return np.concatenate(points)


def training_curves(runs: Mapping[Run, Style], name: str, title: str, chance: float | None = None) -> Markup | None:
    """One quantity of metrics.jsonl against the step, one line a run; runs that do not have it are left out."""
    lines = [Line(run.folder.name, run.curves[name], look) for run, look in runs.items() if name in run.curves]
    return over_steps(lines, name, title, chance=chance)


class Line(NamedTuple):
    """A named curve: (step, value), rising in step."""

    label: str
    points: Sequence[tuple[float, float]]
    look: Style


def over_steps(
    lines: Sequence[Line],
    name: str,
    title: str,
    *,
    chance: float | None = None,
    band: tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]] | None = None,
) -> Markup | None:
    """Quantities against the step; lines of fewer than two points are left out, and None is returned without any.

    Args:
        name: of the quantity; ids are made of it.
        chance: where a dashed guide lies.
        band: lower and upper ends of the first line's interval.
    """
    drawn = [line._replace(points=thinned(line.points)) for line in lines if len(line.points) > 1]
    if not drawn:
        return None
    figure, axes = blank(360, 280)
    if chance is not None:
        axes.axhline(chance, **GUIDE)
    if band and len(band[0]) > 1:
        (steps, low), (_, high) = (zip(*thinned(end), strict=True) for end in band)
        axes.fill_between(steps, low, high, color=drawn[0].look.colour, alpha=0.18, linewidth=0, zorder=2)
    for line in drawn:
        axes.plot(
            *zip(*line.points, strict=True), color=line.look.colour, linestyle=line.look.line, linewidth=1.8, zorder=3
        )
    axes.margins(0.02, 0.08)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    name_axes(axes, "step", title)
    ends = "; ".join(f"{line.label}: from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in drawn)
    return inline(figure, f"training-{name.replace('_', '-')}", f"{title} over training. {ends}.")


def members_compared(subjects: Sequence[Subject], looks: Looks) -> Markup:
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
    said = []
    for subject in subjects:
        pair = (_auc(subject, "test"), _auc(subject, "aux_members"))
        shown = [decimal(auc.value, 2) if auc else NOT_MEASURED for auc in pair]
        said.append(f"{subject.label}: test members {shown[0]}, aux members {shown[1]}")
    return inline(figure, "groups", f"AUC on test members against aux members. {'; '.join(said)}.")


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Write what the axes show."""
    axes.set_xlabel(x, fontsize=FONT_SIZE, color=INK)
    axes.set_ylabel(y, fontsize=FONT_SIZE, color=INK)
