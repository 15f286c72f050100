"""Figure 1d: quality against privacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from smplora.experiments.reproduce import paper
from smplora.experiments.reproduce.curves import LOOKS, RunsTarget, label, look
from smplora.experiments.reproduce.results import Results, RunResult, measured
from smplora.experiments.reproduce.section import Section, section_of
from smplora.experiments.reproduce.systems import reason
from smplora.report.figures.plane import Bar, Place, plane
from smplora.report.figures.svg import WIDTH, Drawing, Style, mark, style

PROTOCOLS = {"paper_protocol": "ours, paper's protocol", "honest": "ours, honest protocol"}


class Figure1d(RunsTarget):
    """FID against the attack success rate, LoRA, MP-LoRA and SMP-LoRA."""

    def read(self, run: RunResult) -> dict[str, Any]:
        """FID and ASR by both protocols."""
        return measured(run, None)

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """The runs, and the paper's numbers (of Table 1)."""
        numbers = [row for row in paper.published()["table_1"] if row["dataset"] == "Pokemon"]
        of_paper = [{key: row[key] for key in ("method", "fid", "asr")} for row in numbers]
        return {**super().collect(results, best_lambda), "paper": of_paper}

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """The paper's panel beside ours."""
        published = [_place(p["method"], p["fid"], p["asr"], style(LOOKS[p["method"]])) for p in content["paper"]]
        figures = [("paper", _drawing(published, "paper", "FID"))]
        notes = [
            "Features are others than the paper's: compare the order of the points, not their place. "
            "What LoRA stopped early would reach, which the paper leaves out, is in the quickstart's report."
        ]
        for protocol, title in PROTOCOLS.items():
            values = [s[protocol]["fid"] for row in content["rows"] for s in row["seeds"] if s["problem"] is None]
            refused = [value for value in values if value["value"] is None]
            metric = "kid" if refused else "fid"
            points = _places(content["rows"], protocol, metric)
            if points:
                figures.append((title, _drawing(points, protocol.replace("_", "-"), metric.upper())))
            if refused:
                notes.append(f"{title[0].upper()}{title[1:]}: KID in place of FID. {reason(refused[0])}.")
        rows = content["rows"]
        return section_of(self, rows, notes=notes, figures=figures, observed=_observed(rows))


def _observed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The order of the systems along both axes."""
    sentences = []
    for protocol, title in PROTOCOLS.items():
        for metric, axis in (("kid", "KID"), ("asr", "Distance of the ASR from 50 %")):
            points = _places(rows, protocol, metric)
            keys = sorted((abs(p.y.value - 50) if metric == "asr" else p.x.value, p.label) for p in points)
            order = " < ".join(f"{name} ({value:.3g})" for value, name in keys)
            sentences += [f"{axis}, {title}: {order}."] if len(keys) > 1 else []
    return sentences


def _place(label: str, x: float, y: float, look: Style) -> Place:
    return Place(label, "", Bar(x, x, x), Bar(y, y, y), look)


def _drawing(places: Sequence[Place], name: str, quality: str) -> Drawing:
    svg = plane(places, f"figure-1d-{name}", (quality, "ASR, %"), size=(WIDTH, 300), chance=50)
    return Drawing(svg or Markup(""), [(mark(p.look), p.label) for p in places])


def _places(rows: Sequence[Mapping[str, Any]], protocol: str, metric: str) -> list[Place]:
    """Each row's means over seeds; rows without are left out."""
    points = []
    for row in rows:
        values = [s[protocol] for s in row["seeds"] if s["problem"] is None]
        pairs = [(v[metric]["value"], v["asr"]["value"]) for v in values if v[metric]["value"] is not None]
        if pairs:
            x, y = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
            points.append(_place(label(row), x, y, style(look(row))))
    return points


TARGET = Figure1d(
    name="figure_1d",
    title="Figure 1d: image quality against attack success",
    caption="Image quality and attack success rate on Pokemon; low is good for both. The dashed line is chance.",
    claim="SMP-LoRA lies near chance and near LoRA's quality; MP-LoRA near chance only.",
)
