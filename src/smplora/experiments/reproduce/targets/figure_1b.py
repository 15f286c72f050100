"""Figure 1b: is the Hessian norm tied to the gradient norm?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smplora.core.wording import decimal
from smplora.experiments.reproduce.curves import RunsTarget, first_seed, label, look
from smplora.experiments.reproduce.results import AGAIN, RunResult
from smplora.experiments.reproduce.runs import MP, SMP
from smplora.experiments.reproduce.section import PaperTable, RowGroup, Section, section_of
from smplora.report.figures.curves import cloud
from smplora.report.figures.svg import Drawing, style
from smplora.report.tables import TableCell
from smplora.results.record import as_json, read
from smplora.results.theory import TheorySummary
from smplora.runs.folder import HESSIAN, THEORY, RunFolder

HEADERS = ("Pearson's r", "p-value", "points", "Hessian norm, mean", "its standard deviation")


class Figure1b(RunsTarget):
    """Hessian norm against gradient norm of the training loss, for MP-LoRA and SMP-LoRA."""

    def read(self, run: RunResult) -> dict[str, Any]:
        """The points, and what theory.json says of them."""
        theory = read(run.folder / THEORY, TheorySummary, AGAIN)
        lines = RunFolder(run.folder).metrics(HESSIAN)
        pairs = [[line["gradient_norm"], line["hessian_norm"]] for line in lines]
        return {
            **as_json(theory.figure_1b),
            "propositions": as_json(theory.propositions),
            "points": [pair for pair in pairs if None not in pair],
        }

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """One panel a run, and the numbers."""
        rows = content["rows"]
        figures = []
        for index, row in enumerate(rows):
            seed = first_seed(row)
            pairs = [(x, y) for x, y in seed["points"]] if seed else []
            svg = cloud(pairs, f"figure-1b-{index}", style(look(row)), "gradient norm", "Hessian norm")
            if svg:
                figures.append((label(row), Drawing(svg, [])))
        groups = [RowGroup((label(row),), (*_published(row, content["paper"]), *_ours(row))) for row in rows]
        notes = [
            "The Hessian norm is the largest eigenvalue's size at one fixed batch and draw; measured at few points, "
            "which are not independent of each other. A correlation does not show that the gradient norm bounds the "
            "Hessian norm (Proposition 2): docs/log/2026-11-22-gradients-and-curvature.md"
        ]
        table = PaperTable(("method",), HEADERS, tuple(groups))
        return section_of(self, rows, notes=notes, table=table, figures=figures, observed=_observed(rows))


def _observed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which correlations differ from zero, with their sign, and the order of the Hessian norms."""
    signs, norms = [], []
    for row in rows:
        for seed in row["seeds"]:
            r = (seed.get("pearson") or {}).get("r")
            if r and r["low"] is not None:
                sign = "positive" if r["low"] > 0 else "negative" if r["high"] < 0 else "not told from zero"
                signs.append(f"{label(row)}, seed {seed['seed']}: {sign} ({decimal(r['value'], 2)})")
            if seed.get("hessian_norm"):
                norms.append((float(seed["hessian_norm"]["mean"]), f"{label(row)}, seed {seed['seed']}"))
    order = " < ".join(f"{name} ({norm:.3g})" for norm, name in sorted(norms))
    return [
        *([f"The correlation is, by its 95 % interval: {'; '.join(signs)}."] if signs else []),
        *([f"Mean Hessian norms: {order}."] if len(norms) > 1 else []),
    ]


def _published(row: Mapping[str, Any], published: Mapping[str, Any]) -> list[tuple[str, tuple[TableCell, ...]]]:
    known = published.get(label(row).partition(",")[0]) if row["run"]["mi_lambda"] == 0.05 else None
    if not known:
        return []
    keys = ("pearson", "p_value", "points", "hessian_norm_mean", "hessian_norm_std")
    return [("paper", tuple(TableCell(str(known.get(key, ""))) for key in keys))]


def _ours(row: Mapping[str, Any]) -> list[tuple[str, tuple[TableCell, ...]]]:
    lines: list[tuple[str, tuple[TableCell, ...]]] = []
    for seed in row["seeds"]:
        if seed["problem"] is not None or not seed["hessian_norm"]:
            continue
        pearson, norm = seed["pearson"], seed["hessian_norm"]
        r = pearson and pearson["r"]
        ends = f"[{decimal(r['low'], 2)}, {decimal(r['high'], 2)}]" if r and r["low"] is not None else ""
        cells = (
            TableCell(decimal(r["value"], 3) if r else "N/A", ends),
            TableCell(f"{pearson['p_value']:.2g}" if pearson else ""),
            TableCell(str(norm["n"])),
            TableCell(f"{norm['mean']:.3g}"),
            TableCell(f"{norm['std']:.3g}" if norm["std"] is not None else ""),
        )
        lines.append((f"ours, seed {seed['seed']}", cells))
    return lines


TARGET = Figure1b(
    name="figure_1b",
    title="Figure 1b: Hessian norm against gradient norm",
    caption="Pearson's correlation of the Hessian norm and the gradient norm over training, Pokemon.",
    claim="MP-LoRA's correlation is insignificant, SMP-LoRA's strong and positive, its Hessian norm lower.",
    theory=True,
    measured=False,
    objectives=(MP, SMP),
)
