"""Figure 2: how the gradient scale fluctuates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smplora.experiments.reproduce.curves import RunsTarget, first_seed, label, look, points
from smplora.experiments.reproduce.results import AGAIN, RunResult
from smplora.experiments.reproduce.section import PaperTable, RowGroup, Section, section_of
from smplora.report.figures.curves import Line, over_steps
from smplora.report.figures.svg import Drawing, drawing, style
from smplora.report.tables import TableCell
from smplora.results.record import as_json, read
from smplora.results.theory import TheorySummary
from smplora.runs.folder import GRADIENTS, THEORY, RunFolder

OF_BATCHES = "A gradient is that of a batch: ten images at scale tiny, one in the paper, which fluctuates more."
SCALES = {"gradient_scale": "whole gradient", "adaptation_scale": "adaptation term", "gain_scale": "MI gain term"}
IN_THE_PAPER = {
    ("LoRA", "gradient_scale"): "LoRA",
    ("MP-LoRA", "gradient_scale"): "MP-LoRA",
    ("MP-LoRA", "adaptation_scale"): "MP-LoRA_adaptation_term",
    ("MP-LoRA", "gain_scale"): "MP-LoRA_mi_gain_term",
}


class Figure2(RunsTarget):
    """Gradient scale (App. D: sum over tensors of L2 norms) of every step, whole and by terms."""

    def read(self, run: RunResult) -> dict[str, Any]:
        """Curves, and what theory.json says of their spread."""
        lines = RunFolder(run.folder).metrics(GRADIENTS)
        curves = {name: points(lines, name) for name in SCALES}
        theory = read(run.folder / THEORY, TheorySummary, AGAIN)
        return {"curves": curves, "spread": as_json(theory.figure_2)}

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """Whole gradients of all methods, the terms of each game, and standard deviations."""
        rows = [(row, seed) for row in content["rows"] if (seed := first_seed(row))]
        whole = [Line(label(row), seed["curves"]["gradient_scale"], style(look(row))) for row, seed in rows]
        panels = [("All methods", whole, "figure-2-whole")]
        for index, (row, seed) in enumerate(rows):
            if any(value for _, value in seed["curves"]["gain_scale"]):
                terms = ("adaptation_scale", "gain_scale")
                lines = [Line(SCALES[t], seed["curves"][t], style(4 + k)) for k, t in enumerate(terms)]
                panels.append((label(row), lines, f"figure-2-terms-{index}"))
        figures: list[tuple[str, Drawing]] = []
        for title, lines, name in panels:
            svg = over_steps(lines, name, "gradient scale")
            figures += [(title, drawing(svg, lines))] if svg else []
        groups = tuple(RowGroup((label(row),), _lines(row, seed, content["paper"])) for row, seed in rows)
        notes = [
            "The paper prints standard deviations over training. Gradients are those before clipping; the terms are as "
            "they enter the gradient, for SMP-LoRA times 1/D and λ L_ada/D². Curves are drawn as means of neighbours.",
            OF_BATCHES,
        ]
        table = PaperTable(("method",), tuple(SCALES.values()), groups)
        return section_of(self, content["rows"], notes=notes, table=table, figures=figures, observed=_observed(rows))


def _observed(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """The order of the standard deviations of whole gradients, and of gain terms."""
    sentences = []
    for scale, title in SCALES.items():
        known = [(row, seed["spread"][scale]) for row, seed in rows]
        spreads = sorted((s["std"], label(row)) for row, s in known if s and s["std"])
        order = " < ".join(f"{name} ({value:.3g})" for value, name in spreads)
        sentences += [f"Standard deviation, {title}: {order}."] if len(spreads) > 1 else []
    return sentences


def _lines(
    row: Mapping[str, Any], seed: Mapping[str, Any], of_paper: Mapping[str, float]
) -> tuple[tuple[str, tuple[TableCell, ...]], ...]:
    method = row["run"]["title"].split(", ")[1]
    known = [of_paper.get(IN_THE_PAPER.get((method, scale), "")) for scale in SCALES]
    spreads = [seed["spread"][scale] for scale in SCALES]
    published = tuple(TableCell("" if value is None else f"{value:g}") for value in known)
    ours = tuple(
        TableCell("" if not s or s["std"] is None else f"{s['std']:.3g}", note="" if not s else f"mean {s['mean']:.3g}")
        for s in spreads
    )
    line = ("ours, standard deviation", ours)
    return (("paper, standard deviation", published), line) if any(v is not None for v in known) else (line,)


TARGET = Figure2(
    name="figure_2",
    title="Figure 2: gradient scale",
    caption="Gradient scale at every step, of the whole gradient and of its two terms, Pokemon.",
    claim="MP-LoRA's gradient fluctuates most, above all its gain term.",
    theory=True,
    measured=False,
)
