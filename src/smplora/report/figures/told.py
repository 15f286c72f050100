"""What reference adapters and the audited one tell of a property, against what is true."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from smplora.report.figures.curves import Line
from smplora.report.figures.svg import CARD, GUIDE, WIDTH, Drawing, blank, drawing, inline, name_axes, style
from smplora.results.properties import Question

ASIDE = 0.02  # of the width
NAMES = {"loss_regression": "losses", "spectrum_regression": "weights, regression", "dsire": "weights, DSiRe"}


def told(question: Question, name: str, unit: str, *, logarithmic: bool) -> Drawing:
    """One point a reference adapter and way of asking, the audited adapter large, with its interval.

    Args:
        name: prefix of ids.
        unit: "images", "share of images".
        logarithmic: axes for numbers, not shares.
    """
    figure, axes = blank(WIDTH, 320)
    ends = [min(question.references), max(question.references)]
    ends = [min(*ends, question.truth), max(*ends, question.truth)]
    axes.plot(ends, ends, **GUIDE)
    lines = []
    for number, answer in enumerate(question.answers):
        look = style(number)
        points = list(zip(question.references, answer.references, strict=True))
        lines.append(Line(NAMES.get(answer.name, answer.name), points, look))
        axes.plot(*zip(*points, strict=True), look.marker, color=look.colour, markersize=5, markeredgecolor=CARD)
        high = ends[1] if answer.high is None else answer.high
        low = max(answer.low, ends[0]) if logarithmic else answer.low
        arms = [[max(0.0, answer.value - low)], [max(0.0, high - answer.value)]]
        aside = (number - (len(question.answers) - 1) / 2) * ASIDE  # side by side, so that intervals can be seen
        place = question.truth * (ends[1] / ends[0]) ** aside if logarithmic else question.truth + aside
        axes.errorbar([place], [answer.value], yerr=arms, color=look.colour, elinewidth=1.4, zorder=4)
        axes.plot(place, answer.value, look.marker, color=look.colour, markersize=11, markeredgecolor=CARD, zorder=5)
    for axis in (axes.xaxis, axes.yaxis):
        if not logarithmic:
            axis.set_major_locator(MaxNLocator(5))
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            axis.set_minor_formatter(NullFormatter())
    name_axes(axes, f"true {unit}", f"{unit} that the adapter tells")
    values = "; ".join(f"{NAMES.get(a.name, a.name)} {a.value:.3g}" for a in question.answers)
    about = f"What {len(question.references)} reference adapters tell, against the truth. The audited one, true "
    svg: Markup = inline(figure, name, f"{about}{question.truth:.3g}: {values}.")
    return drawing(svg, lines)
