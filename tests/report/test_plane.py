"""Numbered points in the plane."""

from __future__ import annotations

import math
import re

from smplora.report.figures.plane import CLEAR, OFFSETS, Bar, Place, free_offset, on_front, plane
from smplora.report.figures.svg import style

AXES = ("held-out KID", "AUC")


def place(sign: str, quality: float, privacy: float, width: float = 0.01, curve: str | None = None) -> Place:
    around = [Bar(value, value - width, value + width) for value in (quality, privacy)]
    return Place(f"<setting {sign}>", sign, *around, look=style(0), curve=curve)


def test_below_chance_is_not_better_than_chance() -> None:
    """Without that rule, the second would be on the front for its lower AUC alone."""
    assert on_front([place("1", 0.1, 0.5), place("2", 0.2, 0.4), place("3", 0.05, 0.9)]) == [True, False, True]


def test_every_point_is_a_link_and_the_front_is_told() -> None:
    places = [place("1", 0.1, 0.6, curve="lora"), place("2", 0.2, 0.9, curve="lora"), place("3", 0.05, 0.7)]
    svg = str(plane(places, "front", AXES, size=(560, 420), front=True))
    assert set(re.findall(r'href="#front-(\d)"', svg)) == {"1", "2", "3"}
    assert "On the front: &lt;setting 1&gt;: 0.1, 0.60; &lt;setting 3&gt;: 0.05, 0.70." in svg
    assert "<setting" not in svg


def test_every_point_bears_its_number() -> None:
    svg = str(plane([place("1", 0.1, 0.6), place("12", 0.2, 0.9)], "scatter", AXES, size=(400, 350)))
    assert re.findall(r">(1|12)</text>", svg) == ["1", "12"]
    assert "<a " not in svg
    assert "DejaVu" not in svg, "the page's font, not matplotlib's"
    assert "AUC against held-out KID: &lt;setting 1&gt;: 0.1, 0.60; &lt;setting 12&gt;: 0.2, 0.90." in svg


def test_nothing_to_draw() -> None:
    assert plane([], "front", AXES, size=(560, 420)) is None


def test_labels_keep_clear_of_each_other() -> None:
    """Two points on one spot, and one alone, which keeps the usual place."""
    taken = [(100.0, 100.0), (101.0, 100.0), (300.0, 300.0)]
    written = []
    for at in taken[:]:
        offset = free_offset(at, taken)
        written.append((at[0] + offset[0], at[1] + offset[1]))
        taken.append(written[-1])
    assert math.dist(written[0], written[1]) >= CLEAR
    assert written[2] == (300.0 + OFFSETS[0][0], 300.0 + OFFSETS[0][1])
    crowd = [(100.0 + x, 100.0 + y) for x in range(-30, 31, 10) for y in range(-30, 31, 10)]
    assert free_offset((100.0, 100.0), crowd) in OFFSETS
