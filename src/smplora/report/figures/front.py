"""Privacy against quality of many settings, with the front of those that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from smplora.core.wording import decimal
from smplora.report.figures.overview import GUIDE, name_axes
from smplora.report.figures.svg import CARD, FONT_SIZE, INK, MUTED, Style, blank, inline
from smplora.statistics.intervals import Interval
from smplora.statistics.over_runs import pareto_front

CHANCE = 0.5


@dataclass(frozen=True)
class Place:
    """A setting in the plane."""

    label: str  # for screen readers
    sign: str  # short: what stands beside the point
    quality: Interval  # smaller is better
    privacy: Interval  # AUC of the strongest attack; smaller is better, down to chance
    look: Style
    curve: str | None = None  # points with the same name are joined in the order given, as the checkpoints of a run


def on_front(places: Sequence[Place]) -> list[bool]:
    """Which places no other one beats in both. An AUC below chance counts as chance: it is not more private."""
    return list(map(bool, pareto_front([(p.quality.value, max(CHANCE, p.privacy.value)) for p in places])))


def front_figure(places: Sequence[Place], name: str, quality: str, privacy: str) -> Markup | None:
    """Points with their intervals; those on the front are filled and joined by steps, the others are open. Each point
    is a link to the element ``NAME-SIGN`` of the page.

    Args:
        name: prefix of ids.
        quality: what the horizontal axis shows.
        privacy: what the vertical one shows.
    """
    if not places:
        return None
    figure, axes = blank(560, 420)
    axes.axhline(CHANCE, **GUIDE)
    for curve in dict.fromkeys(p.curve for p in places if p.curve):
        path = [(p.quality.value, p.privacy.value) for p in places if p.curve == curve]
        axes.plot(*zip(*path, strict=True), color=MUTED, linewidth=1, zorder=2)
    best = [place for place, front in zip(places, on_front(places), strict=True) if front]
    corners = sorted({(p.quality.value, max(CHANCE, p.privacy.value)) for p in best})
    axes.step(*zip(*corners, strict=True), where="post", color=INK, linewidth=1.4, zorder=2)
    for place in places:
        x, y, colour = place.quality, place.privacy, place.look.colour
        axes.errorbar([x.value], [y.value], xerr=_arms(x), yerr=_arms(y), color=colour, elinewidth=1.2, zorder=3)
        (point,) = axes.plot(
            x.value, y.value, place.look.marker, color=colour, markersize=10, zorder=4,
            markerfacecolor=colour if place in best else CARD, markeredgecolor=CARD if place in best else colour,
        )  # fmt: skip
        text = axes.annotate(
            place.sign, (x.value, y.value), (6, 5), textcoords="offset points", fontsize=FONT_SIZE, color=INK,
            parse_math=False, zorder=5,
        )  # fmt: skip
        for artist in (point, text):
            artist.set_url(f"#{place.sign}")
    axes.margins(0.08, 0.06)
    axes.set_ylim(min(0.44, axes.get_ylim()[0]), max(1.02, min(axes.get_ylim()[1], 1.2)))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    name_axes(axes, f"{quality}  (left: better)", f"{privacy}  (low: private)")
    said = "; ".join(f"{p.label}: {p.quality.value:.3g}, {decimal(p.privacy.value, 2)}" for p in best)
    return inline(figure, name, f"{privacy} against {quality} of {len(places)} settings. On the front: {said}.")


def _arms(interval: Interval) -> list[list[float]]:
    return [[max(0.0, interval.value - interval.low)], [max(0.0, interval.high - interval.value)]]
