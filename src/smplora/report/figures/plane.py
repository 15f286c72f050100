"""Numbered points in the plane, with their intervals: quality across, privacy up; small is better for both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from smplora.report.figures.svg import CARD, FONT_SIZE, GUIDE, INK, MUTED, Style, blank, inline, name_axes
from smplora.results.estimate import Estimate
from smplora.statistics.over_runs import pareto_front

OFFSETS = ((6, 5), (6, -13), (-14, 5), (-14, -13), (14, -4), (-22, -4), (-4, 10), (-4, -18))  # of labels, in pixels
CLEAR = 12  # pixels between a label and another thing


class Bar(NamedTuple):
    """A value and the ends of its interval, which are the value itself where there is no interval."""

    value: float
    low: float
    high: float

    @property
    def arms(self) -> list[list[float]]:
        """As matplotlib's error bars want it."""
        return [[max(0.0, self.value - self.low)], [max(0.0, self.high - self.value)]]


def bar(estimate: Estimate | None) -> Bar | None:
    """An estimate as a bar, where it exists."""
    if estimate is None or estimate.value is None:
        return None
    low, high = (estimate.value if end is None else end for end in (estimate.low, estimate.high))
    return Bar(estimate.value, low, high)


@dataclass(frozen=True)
class Place:
    """A point of the plane."""

    label: str  # for screen readers and legends
    number: str  # stands beside the point; "" leaves it out
    x: Bar
    y: Bar
    look: Style
    curve: str | None = None  # points with the same name are joined in the order given, as the checkpoints of a run


def on_front(places: Sequence[Place], chance: float = 0.5) -> list[bool]:
    """Which places no other one beats in both. What lies below ``chance`` counts as chance: it is not more private."""
    return list(map(bool, pareto_front([(p.x.value, max(chance, p.y.value)) for p in places])))


def plane(
    places: Sequence[Place],
    name: str,
    axes_names: tuple[str, str],
    *,
    size: tuple[int, int],
    chance: float | None = 0.5,
    front: bool = False,
) -> Markup | None:
    """The places as inline SVG; None without any.

    Args:
        name: prefix of ids.
        axes_names: what the horizontal and the vertical axis show.
        size: width and height in pixels.
        chance: where a dashed guide lies across.
        front: join the places that no other one beats and leave the others open; each point is a link to the element
            ``NAME-NUMBER`` of the page.
    """
    if not places:
        return None
    figure, axes = blank(*size)
    if chance is not None:
        axes.axhline(chance, **GUIDE)
    for curve in dict.fromkeys(p.curve for p in places if p.curve):
        path = [(p.x.value, p.y.value) for p in places if p.curve == curve]
        if len(path) > 1:
            axes.plot(*zip(*path, strict=True), color=MUTED, linewidth=1, zorder=2)
    best = [place for place, of_front in zip(places, on_front(places), strict=True) if of_front] if front else []
    if front:
        corners = sorted({(p.x.value, max(0.5, p.y.value)) for p in best})
        axes.step(*zip(*corners, strict=True), where="post", color=INK, linewidth=1.4, zorder=2)
    points = []
    for place in places:
        x, y, colour = place.x, place.y, place.look.colour
        filled = not front or place in best
        axes.errorbar([x.value], [y.value], xerr=x.arms, yerr=y.arms, color=colour, elinewidth=1.4, zorder=3)
        (point,) = axes.plot(
            x.value, y.value, place.look.marker, color=colour, markersize=10, zorder=4,
            markerfacecolor=colour if filled else CARD, markeredgecolor=CARD if filled else colour,
        )  # fmt: skip
        points.append(point)
    axes.margins(0.1, 0.08)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    if chance == 0.5:
        axes.set_ylim(min(0.44, axes.get_ylim()[0]), max(1.02, min(axes.get_ylim()[1], 1.2)))
    name_axes(axes, *axes_names)
    figure.draw_without_rendering()  # only then is it known where points lie
    taken = [tuple(axes.transData.transform((p.x.value, p.y.value))) for p in places]
    for place, point, at in zip(places, points, taken[:], strict=True):
        offset = free_offset(at, taken)
        taken.append((at[0] + offset[0], at[1] + offset[1]))
        text = axes.annotate(
            place.number, (place.x.value, place.y.value), offset, textcoords="offset points", fontsize=FONT_SIZE,
            color=INK, parse_math=False, zorder=5,
        )  # fmt: skip
        for artist in (point, text) if front else ():
            artist.set_url(f"#{place.number}")
    values = "; ".join(f"{p.label}: {p.x.value:.3g}, {p.y.value:.2f}" for p in (best or places))
    of_front = f" of {len(places)} settings. On the front" if front else ""
    return inline(figure, name, f"{axes_names[1]} against {axes_names[0]}{of_front}: {values}.")


def free_offset(at: tuple[float, ...], taken: Sequence[tuple[float, ...]]) -> tuple[int, int]:
    """Where to write the label of a point: the first place around it that keeps clear of other points and labels, or
    the one that is farthest from them. All in the figure's own units."""
    others = [place for place in taken if place != at]

    def room(offset: tuple[int, int]) -> float:
        x, y = at[0] + offset[0], at[1] + offset[1]
        return min((math.hypot(x - other[0], y - other[1]) for other in others), default=math.inf)

    return next((offset for offset in OFFSETS if room(offset) >= CLEAR), max(OFFSETS, key=room))
