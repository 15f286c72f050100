"""The figure of the front."""

from __future__ import annotations

import re

from smplora.report.figures.front import Place, front_figure, on_front
from smplora.report.figures.svg import style
from smplora.statistics.intervals import Interval


def place(sign: str, quality: float, privacy: float, width: float = 0.01, curve: str | None = None) -> Place:
    around = [Interval(value, value - width, value + width, "") for value in (quality, privacy)]
    return Place(f"<setting {sign}>", sign, *around, look=style(0), curve=curve)


def test_below_chance_is_not_better_than_chance() -> None:
    """Without that rule, the second would be on the front for its lower AUC alone."""
    assert on_front([place("1", 0.1, 0.5), place("2", 0.2, 0.4), place("3", 0.05, 0.9)]) == [True, False, True]


def test_every_point_is_a_link_and_the_front_is_told() -> None:
    places = [place("1", 0.1, 0.6, curve="lora"), place("2", 0.2, 0.9, curve="lora"), place("3", 0.05, 0.7)]
    svg = str(front_figure(places, "front", "held-out KID", "AUC"))
    assert set(re.findall(r'href="#front-(\d)"', svg)) == {"1", "2", "3"}
    assert "On the front: &lt;setting 1&gt;: 0.1, 0.60; &lt;setting 3&gt;: 0.05, 0.70." in svg
    assert "<setting" not in svg


def test_nothing_to_draw() -> None:
    assert front_figure([], "front", "KID", "AUC") is None
