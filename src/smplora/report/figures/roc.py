"""ROC curves as inline SVG, on plain or on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from smplora.core.wording import decimal, percent
from smplora.report.figures.svg import (
    FONT_SIZE,
    GRID,
    GUIDE,
    INK,
    MUTED,
    WIDTH,
    Points,
    Style,
    blank,
    inline,
    name_axes,
)

BAND = 0.13  # opacity


@dataclass(frozen=True)
class RocLine:
    """A curve from (0, 0) to (1, 1) with the two ends of its pointwise band, where it has one."""

    label: str
    points: Points
    look: Style
    above: Points = ()
    below: Points = ()

    @property
    def area(self) -> float:
        """Below the curve: the AUC."""
        x, y = np.array(self.points).T
        return float(np.trapezoid(y, x))


def roc(
    curves: Sequence[RocLine], name: str, *, smallest: float | None = None, floor: float | None = None
) -> Markup | None:
    """The curves of two points or more; None without any.

    Args:
        name: prefix of ids.
        smallest: the least false positive rate that the non-members resolve; smaller ones are shaded.
        floor: where logarithmic axes begin; None: plain axes.
    """
    drawn = [curve for curve in curves if len(curve.points) > 1]
    if not drawn:
        return None
    figure, axes = blank(WIDTH, 370)
    least = floor or 0.0
    axes.plot([least, 1], [least, 1], **GUIDE)
    for curve in drawn:
        _band(axes, curve, least)
        x, y = np.maximum(_densely(curve.points).T, least)
        axes.plot(x, y, color=curve.look.colour, linestyle=curve.look.line, linewidth=2, zorder=3)
    if floor is not None:
        _logarithmic(axes, floor)
    for axis, limit in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        axis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))
        limit(least, 1)
    if smallest is not None and floor is not None:
        _resolvable(axes, smallest, floor)
    name_axes(axes, "FPR: unseen images accused wrongly", "TPR: members found")
    areas = "; ".join(f"{curve.label}: area {decimal(curve.area, 2)}" for curve in drawn)
    kind = "plain" if floor is None else "logarithmic"
    return inline(figure, name, f"ROC curves on {kind} axes. {areas}. The dashed diagonal is chance.")


def _band(axes: Axes, curve: RocLine, least: float) -> None:
    if not curve.above:
        return
    above, below = (np.maximum(np.array(ends), least) for ends in (curve.above, curve.below))
    x = np.unique(np.concatenate([above[:, 0], below[:, 0]]))
    upper, lower = (np.interp(x, *ends.T) for ends in (above, below))
    axes.fill_between(x, lower, upper, color=curve.look.colour, alpha=BAND, linewidth=0, zorder=2)


def _densely(points: Points) -> npt.NDArray[np.float64]:
    """With points added on slopes (ties), which are straight but not on logarithmic axes."""
    parts = [np.array(points[:1])]
    for one, two in pairwise(points):
        steps = 24 if one[0] < two[0] and one[1] < two[1] else 1
        parts.append(np.linspace(one, two, steps + 1)[1:])
    return np.concatenate(parts)


def _logarithmic(axes: Axes, floor: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [x for decade in range(-9, 1) for k in (1, 2, 5) if floor <= (x := k * 10.0**decade) <= 1]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())


def _resolvable(axes: Axes, smallest: float, floor: float) -> None:
    """Shade the rates that too few non-members make up."""
    axes.axvspan(floor, max(floor, smallest), color=GRID, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(smallest, color=MUTED, linewidth=1.2, zorder=2)
    middle = 0.02 < np.log10(smallest) / np.log10(floor) < 0.8
    axes.text(
        smallest, 1.015, f"resolvable from {percent(smallest)}", transform=axes.get_xaxis_transform(),
        ha="center" if middle else "right" if smallest > 0.3 else "left", va="bottom", color=INK,
        fontsize=FONT_SIZE - 1,
    )  # fmt: skip
