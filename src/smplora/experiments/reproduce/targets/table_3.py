"""Table 3: the two rescaling factors of SMP-LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smplora.experiments.reproduce.curves import RunsTarget, label
from smplora.experiments.reproduce.results import AGAIN, RunResult
from smplora.experiments.reproduce.runs import SMP
from smplora.experiments.reproduce.section import PaperTable, RowGroup, Section, section_of
from smplora.report.tables import TableCell
from smplora.results.record import as_json, read
from smplora.results.theory import TheorySummary
from smplora.runs.folder import THEORY

COLUMNS = ("max", "min", "mean", "std")
FACTORS = {"1/D": "1/D", "L_ada/D^2": "L_ada/D²", "lambda*L_ada/D^2": "λ L_ada/D²"}


class Table3(RunsTarget):
    """1/D and L_ada/D^2 with D = 1 - lambda G + delta, over training."""

    def read(self, run: RunResult) -> dict[str, Any]:
        """What theory.json says of the factors."""
        theory = read(run.folder / THEORY, TheorySummary, AGAIN)
        single = theory.table_3_single_images
        return {
            "factors": {name: as_json(single.get(name) or value) for name, value in theory.table_3.items()},
            "single_images": any(single.values()),
        }

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """The paper's two rows, and the second one times lambda."""
        groups = []
        for factor, title in FACTORS.items():
            published = content["paper"].get(factor)
            lines = [("paper", tuple(TableCell(f"{published[c]:g}") for c in COLUMNS))] if published else []
            for row in content["rows"]:
                for seed in row["seeds"]:
                    spread = seed.get("factors", {}).get(factor)
                    if spread:
                        cells = tuple(TableCell("" if spread[c] is None else f"{spread[c]:.3g}") for c in COLUMNS)
                        lines.append((f"ours, {label(row)}, seed {seed['seed']}", cells))
            groups.append(RowGroup((title,), tuple(lines)))
        notes = [
            "The paper's second row fits λ L_ada/D² with its λ of 0.05 better than L_ada/D²; both are shown.",
        ]
        if any(
            seed.get("factors") and not seed.get("single_images") for row in content["rows"] for seed in row["seeds"]
        ):
            notes.append(
                "Some of ours are of batches' mean factors, from runs of an earlier version: of ten images at scale "
                "tiny, of one, as the paper's, at scale sd15. Their means can be compared; largest, least and standard "
                "deviation are nearer to the mean."
            )
        table = PaperTable(("factor",), ("largest", "least", "mean", "standard deviation"), tuple(groups))
        return section_of(self, content["rows"], notes=notes, table=table, observed=_observed(content["rows"]))


def _observed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the largest factors are below 1."""
    factors = [(label(row), seed["factors"]) for row in rows for seed in row["seeds"] if seed.get("factors")]
    sentences = []
    for name in ("1/D", "lambda*L_ada/D^2"):
        largest = [(who, spreads[name]["max"]) for who, spreads in factors if spreads.get(name)]
        if largest:
            below = sum(value < 1 for _, value in largest)
            values = ", ".join(f"{who} {value:.3g}" for who, value in largest)
            sentences.append(f"{FACTORS[name]} stays below 1 in {below} of {len(largest)} runs (largest: {values}).")
    return sentences


TARGET = Table3(
    name="table_3",
    title="Table 3: rescaling factors",
    caption="The factors that SMP-LoRA's gradient has before its two terms, over training, Pokemon.",
    claim="Both factors lie below 1, so SMP-LoRA's gradient is scaled down.",
    theory=True,
    measured=False,
    objectives=(SMP,),
)
