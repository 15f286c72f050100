"""Figure 1a: training loss of MP-LoRA and SMP-LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.reproduce.curves import collected, panel, points, systems
from smplora.reproduce.results import Found, Results
from smplora.reproduce.runs import Need
from smplora.reproduce.section import Section
from smplora.reproduce.systems import missing
from smplora.run import RunFolder


@dataclass(frozen=True)
class Figure1a:
    """Training loss over steps, and the adaptation loss in it, which alone can be compared between objectives."""

    name: str = "figure_1a"
    title: str = "Figure 1a: training loss"
    caption: str = "Training loss on Pokemon. The paper's MP-LoRA does not come down, its SMP-LoRA does."

    def needs(self, best_lambda: float | None) -> list[Need]:
        """The main runs on Pokemon."""
        return [Need(run, measured=False) for run in systems(best_lambda)]

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """Both losses of each run, means between lines of metrics.jsonl."""

        def read(found: Found) -> dict[str, Any]:
            lines = RunFolder(found.folder).metrics()
            return {name: points(lines, name) for name in ("loss", "adaptation_loss")}

        return collected(results, self.needs(best_lambda), read)

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """Two panels."""
        rows = content["rows"]
        drawn = [
            ("What is minimised", panel(rows, "loss", "figure-1a-loss", "training loss")),
            ("The adaptation loss in it", panel(rows, "adaptation_loss", "figure-1a-adaptation", "adaptation loss")),
        ]
        notes = [
            "The paper's panel, which it gives without numbers, shows the whole training loss. That of MP-LoRA holds "
            "λ times a log-likelihood, which is negative, that of SMP-LoRA is divided by a number above one: levels "
            "cannot be compared between objectives, the adaptation loss beside can."
        ]
        figures = [(title, figure) for title, figure in drawn if figure]
        return Section(self.name, self.title, self.caption, notes, figures=figures, missing=missing(rows))


TARGET = Figure1a()
