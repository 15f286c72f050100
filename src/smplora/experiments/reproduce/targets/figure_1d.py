"""Figure 1d: quality against privacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.experiments.reproduce import paper
from smplora.experiments.reproduce.curves import LOOKS, collected, label, look, systems
from smplora.experiments.reproduce.drawings import Point, scatter
from smplora.experiments.reproduce.results import Results, measured
from smplora.experiments.reproduce.runs import Need
from smplora.experiments.reproduce.section import Section
from smplora.experiments.reproduce.systems import missing, reason
from smplora.report.figures.svg import Drawing, style

PROTOCOLS = {"paper_protocol": "ours, paper's protocol", "honest": "ours, honest protocol"}


@dataclass(frozen=True)
class Figure1d:
    """FID against the attack success rate, LoRA, MP-LoRA and SMP-LoRA."""

    name: str = "figure_1d"
    title: str = "Figure 1d: image quality against attack success"
    caption: str = "Image quality and attack success rate on Pokemon; low is good for both. The dashed line is chance."

    def needs(self, best_lambda: float | None) -> list[Need]:
        """The main runs on Pokemon."""
        return [Need(run) for run in systems(best_lambda)]

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """FID and ASR of each run by both protocols, and the paper's (of Table 1)."""
        found = collected(results, self.needs(best_lambda), lambda run: measured(run, None))
        told = [row for row in paper.published()["table_1"] if row["dataset"] == "Pokemon"]
        return {**found, "paper": [{key: row[key] for key in ("method", "fid", "asr")} for row in told]}

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """The paper's panel beside ours."""
        told = [Point(row["method"], row["fid"], row["asr"], style(LOOKS[row["method"]])) for row in content["paper"]]
        figures: list[tuple[str, Drawing]] = [("paper", scatter(told, "figure-1d-paper", "FID", "ASR, %", 50))]
        notes = [
            "Features are others than the paper's: compare the order of the points, not their place. "
            "What LoRA stopped early would reach, which the paper leaves out, is in the quickstart's report."
        ]
        for protocol, title in PROTOCOLS.items():
            values = [s[protocol]["fid"] for row in content["rows"] for s in row["seeds"] if s["problem"] is None]
            refused = [value for value in values if value["value"] is None]
            metric = "kid" if refused else "fid"
            points = _points(content["rows"], protocol, metric)
            if points:
                drawn = scatter(points, f"figure-1d-{protocol.replace('_', '-')}", metric.upper(), "ASR, %", 50)
                figures.append((title, drawn))
            if refused:
                notes.append(f"{title[0].upper()}{title[1:]}: KID in place of FID. {reason(refused[0])}.")
        rows = content["rows"]
        return Section(
            self.name, self.title, self.caption, notes, figures=figures, missing=missing(rows),
            claim="SMP-LoRA lies near chance and near LoRA's quality; MP-LoRA near chance only.", found=_found(rows),
        )  # fmt: skip


def _found(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The order of the systems along both axes."""
    sentences = []
    for protocol, title in PROTOCOLS.items():
        for metric, said in (("kid", "KID"), ("asr", "Distance of the ASR from 50 %")):
            points = _points(rows, protocol, metric)
            keys = sorted((abs(p.y - 50) if metric == "asr" else p.x, p.label) for p in points)
            order = " < ".join(f"{name} ({value:.3g})" for value, name in keys)
            sentences += [f"{said}, {title}: {order}."] if len(keys) > 1 else []
    return sentences


def _points(rows: Sequence[Mapping[str, Any]], protocol: str, metric: str) -> list[Point]:
    """Each row's means over seeds; rows without are left out."""
    points = []
    for row in rows:
        values = [s[protocol] for s in row["seeds"] if s["problem"] is None]
        pairs = [(v[metric]["value"], v["asr"]["value"]) for v in values if v[metric]["value"] is not None]
        if pairs:
            x, y = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
            points.append(Point(label(row), x, y, style(look(row))))
    return points


TARGET = Figure1d()
