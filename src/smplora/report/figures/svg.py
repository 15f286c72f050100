"""Matplotlib figures as small inline SVG: colours and fonts follow the page, ids are unique, nothing is loaded."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The page defines these names for light and dark; the colours here are stand-ins that are replaced in the SVG.
INK, MUTED, GRID, CARD = "#1b2026", "#5c6672", "#dfe3e8", "#fefefe"
# Okabe and Ito (2008) without its yellow, which is lost on white; told apart by all common forms of colour vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6f6f6f")
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", CARD: "--card"} | {
    colour: f"--c{i}" for i, colour in enumerate(PALETTE)
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (7, 2, 1.5, 2), (10, 3), (4, 4), (1, 2.5))
FONT_SIZE = 12.0
DOTS_PER_INCH = 72  # the SVG backend's own, so that a point is a pixel
WIDTH = 400  # pixels: text of 11 pixels stays readable when a phone shows the figure at 330
GUIDE: dict[str, Any] = {"color": MUTED, "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 1}
Points: TypeAlias = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Style:
    """How a subject looks in every figure."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> Any:
        """As matplotlib's linestyle."""
        return (0, self.dashes) if self.dashes else "-"


def style(index: int) -> Style:
    """The look of the subject at ``index``; colour, marker and dashes repeat with different periods."""
    turn = index // len(PALETTE)
    return Style(
        PALETTE[index % len(PALETTE)],
        MARKERS[(index + turn) % len(MARKERS)],
        DASHES[(index + 2 * turn) % len(DASHES)],
    )


def blank(width: int, height: int) -> tuple[Figure, Axes]:
    """An empty figure of so many pixels with plain axes."""
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(which="both", colors=MUTED, labelcolor=INK, labelsize=FONT_SIZE - 1)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Write what the axes show."""
    axes.set_xlabel(x, fontsize=FONT_SIZE, color=INK)
    axes.set_ylabel(y, fontsize=FONT_SIZE, color=INK)


def short(label: str, length: int = 26) -> str:
    """A label that fits into a figure; its end stays, where steps and weights stand."""
    tail = length * 2 // 5
    return label if len(label) <= length else f"{label[: length - tail - 1]}\N{HORIZONTAL ELLIPSIS}{label[-tail:]}"


def inline(figure: Figure, name: str, description: str) -> Markup:
    """``figure`` as an SVG element for HTML.

    Args:
        name: prefix of all ids, different for each figure of a page.
        description: what a screen reader says instead.
    """
    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": True}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has the font that this machine lacks
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    tags = "".join(re.findall(r"<[^>]+>", text))
    linked = {one or other for one, other in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', tags)}
    # Only inside tags: the text between them holds labels, which are anybody's.
    text = re.sub(r"<[^>]+>", lambda tag: _tidy(tag.group(), name, linked), text)
    text = re.sub(r"\n\s*", "\n", text)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    opening = f'<svg viewBox="{box.group(1)}" role="img" aria-label="{escape(description)}">'
    return Markup(opening + text[text.index(">") + 1 :])


def _tidy(tag: str, name: str, linked: set[str]) -> str:
    """One SVG tag with the page's colours and font, ids that are unique in the page, and no id that nobody uses."""
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m.group(1)}"' if m.group(1) in linked else "", tag)
    tag = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"(font-family: |font: [^;\"]*?px )[^;\"]*", r"\1system-ui, sans-serif", tag)
    return re.sub("|".join(VARIABLES), lambda m: f"var({VARIABLES[m.group()]}, {m.group()})", tag)


@dataclass(frozen=True)
class Drawing:
    """A figure with its legend."""

    svg: Markup
    legend: list[tuple[Markup, str]]


def drawing(svg: Markup, lines: Sequence[Any]) -> Drawing:
    """A figure of curves (``curves.Line``) with a legend, unless there is only one to name."""
    shown = [(mark(line.look), line.label) for line in lines if len(line.points) > 1]
    return Drawing(svg, shown if len(lines) > 1 else [])


def mark(look: Style) -> Markup:
    """A line with a marker for legends and tables, 30 x 12 pixels."""
    shapes = {
        "o": '<circle cx="15" cy="6" r="4.5"/>',
        "s": '<path d="M11 2h8v8h-8z"/>',
        "D": '<path d="M15 .6 20.4 6 15 11.4 9.6 6z"/>',
        "^": '<path d="M15 1l5.2 9.4H9.8z"/>',
        "v": '<path d="M15 11l5.2-9.4H9.8z"/>',
        "P": '<path d="M13.4 1h3.2v3.4H20v3.2h-3.4V11h-3.2V7.6H10V4.4h3.4z"/>',
        "X": '<path d="m11.6.8 3.4 3 3.4-3L20.2 3l-3 3 3 3-1.8 2.2-3.4-3-3.4 3L9.8 9l3-3-3-3z"/>',
    }
    colour = f"var({VARIABLES[look.colour]}, {look.colour})"
    dashes = f' stroke-dasharray="{" ".join(f"{d:g}" for d in look.dashes)}"' if look.dashes else ""
    return Markup(
        f'<svg class="mark" viewBox="0 0 30 12" width="30" height="12" aria-hidden="true" style="fill: {colour}">'
        f'<path d="M0 6h30" style="stroke: {colour}; stroke-width: 2"{dashes}/>{shapes[look.marker]}</svg>'
    )


def thinned(values: Points, most: int = 300) -> list[tuple[float, float]]:
    """A curve thinned to at most ``most`` points, each the mean of equally many neighbours."""
    size = -(-len(values) // most)
    parts = [values[i : i + size] for i in range(0, len(values), max(1, size))]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
