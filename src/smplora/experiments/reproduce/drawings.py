"""The paper's figures as inline SVG, from what the JSON files hold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from smplora.core.wording import percent
from smplora.report.figures.overview import GUIDE, WIDTH, Line, name_axes
from smplora.report.figures.svg import CARD, FONT_SIZE, GRID, INK, Drawing, Style, blank, drawing, inline, mark

ROC_FLOOR = 1e-3  # the paper's axes begin at 0.1 %
PAPER_FPRS = (0.001, 0.01, 0.1)


class Point(NamedTuple):
    """A system in a plane."""

    label: str
    x: float
    y: float
    look: Style


def scatter(points: Sequence[Point], name: str, x: str, y: str, chance: float | None = None) -> Drawing:
    """Named points with a legend.

    Args:
        chance: where a dashed guide lies across.
    """
    figure, axes = blank(WIDTH, 300)
    if chance is not None:
        axes.axhline(chance, **GUIDE)
    for point in points:
        axes.plot(
            point.x, point.y, point.look.marker, color=point.look.colour, markersize=11, markeredgecolor=CARD, zorder=3
        )
    axes.margins(0.15, 0.15)
    _few_ticks(axes)
    name_axes(axes, x, y)
    said = "; ".join(f"{p.label}: {p.x:.3g}, {p.y:.3g}" for p in points)
    svg = inline(figure, name, f"{y} against {x}. {said}.")
    return Drawing(svg, [(mark(p.look), p.label) for p in points])


def cloud(pairs: Sequence[tuple[float, float]], name: str, look: Style, x: str, y: str) -> Markup | None:
    """Unnamed points; None for fewer than two."""
    if len(pairs) < 2:
        return None
    figure, axes = blank(WIDTH - 40, 280)
    axes.plot(*zip(*pairs, strict=True), look.marker, color=look.colour, markersize=6, markeredgecolor=CARD, zorder=3)
    axes.margins(0.06, 0.08)
    _few_ticks(axes)
    name_axes(axes, x, y)
    return inline(figure, name, f"{y} against {x} at {len(pairs)} points.")


def roc(curves: Sequence[Line], name: str, smallest: float) -> Drawing | None:
    """ROC curves on logarithmic axes, the paper's three rates marked, those that are too small for the number of
    non-members shaded.

    Args:
        smallest: the least false positive rate that can be resolved.
    """
    drawn = [curve for curve in curves if len(curve.points) > 1]
    if not drawn:
        return None
    figure, axes = blank(WIDTH - 20, 330)
    axes.axvspan(ROC_FLOOR, max(ROC_FLOOR, smallest), color=GRID, alpha=0.6, linewidth=0, zorder=0)
    axes.plot([ROC_FLOOR, 1], [ROC_FLOOR, 1], **GUIDE)
    for rate in PAPER_FPRS:
        axes.axvline(rate, **GUIDE | {"linewidth": 0.8})
    for curve in drawn:
        steps = [np.linspace(one, two, 25) for one, two in pairwise(np.array(curve.points))]
        fpr, tpr = np.maximum(np.concatenate(steps).T, ROC_FLOOR)
        axes.plot(fpr, tpr, color=curve.look.colour, linestyle=curve.look.line, linewidth=1.8, zorder=3)
    for axis, limit in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        axis.set_major_locator(FixedLocator([1e-3, 1e-2, 1e-1, 1]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
        limit(ROC_FLOOR, 1)
    axes.text(
        smallest, 1.015, f"resolvable from {percent(smallest)}", transform=axes.get_xaxis_transform(), ha="center",
        va="bottom", color=INK, fontsize=FONT_SIZE - 1,
    )  # fmt: skip
    name_axes(axes, "FPR", "TPR")
    said = ", ".join(curve.label for curve in drawn)
    return drawing(inline(figure, name, f"ROC curves on logarithmic axes: {said}. The diagonal is chance."), drawn)


def _few_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
