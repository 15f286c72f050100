"""Curves over training steps, and points without names, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from smplora.report.figures.svg import CARD, GUIDE, WIDTH, Points, Style, blank, inline, name_axes, thinned


class Line(NamedTuple):
    """A named curve: (step, value), rising in step."""

    label: str
    points: Points
    look: Style


def over_steps(
    lines: Sequence[Line],
    name: str,
    title: str,
    *,
    chance: float | None = None,
    band: tuple[Points, Points] | None = None,
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


def cloud(pairs: Points, name: str, look: Style, x: str, y: str) -> Markup | None:
    """Points without names; None for fewer than two."""
    if len(pairs) < 2:
        return None
    figure, axes = blank(WIDTH - 40, 280)
    axes.plot(*zip(*pairs, strict=True), look.marker, color=look.colour, markersize=6, markeredgecolor=CARD, zorder=3)
    axes.margins(0.06, 0.08)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    name_axes(axes, x, y)
    return inline(figure, name, f"{y} against {x} at {len(pairs)} points.")
