"""Figure 1a: training loss of MP-LoRA and SMP-LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smplora.experiments.reproduce.curves import RunsTarget, first_seed, label, panel, points
from smplora.experiments.reproduce.results import RunResult
from smplora.experiments.reproduce.section import Section, section_of
from smplora.runs.folder import RunFolder


class Figure1a(RunsTarget):
    """Training loss over steps, and the adaptation loss in it, which alone can be compared between objectives."""

    def read(self, run: RunResult) -> dict[str, Any]:
        """Both losses of each run, means between lines of metrics.jsonl."""
        lines = RunFolder(run.folder).metrics()
        return {name: points(lines, name) for name in ("loss", "adaptation_loss")}

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
        return section_of(self, rows, notes=notes, figures=figures, observed=_observed(rows))


def _observed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """By how much the adaptation loss changed, from the first to the last fifth of its points."""
    parts = []
    for row in rows:
        seed = first_seed(row)
        values = [value for _, value in seed["adaptation_loss"]] if seed else []
        part = max(1, len(values) // 5)
        if len(values) > 1:
            before, after = (sum(some) / part for some in (values[:part], values[-part:]))
            parts.append(f"{label(row)} {100 * (after / before - 1):+.0f} %")
    sentence = f"From the first to the last fifth of training the adaptation loss changed: {', '.join(parts)}."
    return [sentence] if parts else []


TARGET = Figure1a(
    name="figure_1a",
    title="Figure 1a: training loss",
    caption="Training loss on Pokemon.",
    claim="MP-LoRA's training loss does not come down, SMP-LoRA's does.",
    measured=False,
)
