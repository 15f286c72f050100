"""Table 3: the two rescaling factors of SMP-LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.files import read_json
from smplora.reproduce import paper
from smplora.reproduce.curves import collected, label, systems
from smplora.reproduce.results import Found, Results
from smplora.reproduce.runs import SMP, Need
from smplora.reproduce.section import Cell, Group, Section, Table
from smplora.reproduce.systems import missing
from smplora.run import THEORY

COLUMNS = ("max", "min", "mean", "std")
FACTORS = {"1/D": "1/D", "L_ada/D^2": "L_ada/D²", "lambda*L_ada/D^2": "λ L_ada/D²"}


@dataclass(frozen=True)
class Table3:
    """1/D and L_ada/D^2 with D = 1 - lambda G + delta, over training."""

    name: str = "table_3"
    title: str = "Table 3: rescaling factors"
    caption: str = "The factors that SMP-LoRA's gradient has before its two terms, over training, Pokemon."

    def needs(self, best_lambda: float | None) -> list[Need]:
        """SMP-LoRA, with gradients measured."""
        return [Need(run, theory=True, measured=False) for run in systems(best_lambda, (SMP,))]

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """What theory.json says of the factors."""

        def read(found: Found) -> dict[str, Any]:
            return {"factors": read_json(found.folder / THEORY)["table_3"]}

        return {**collected(results, self.needs(best_lambda), read), "paper": paper.published()["table_3"]}

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """The paper's two rows, and the second one times lambda."""
        groups = []
        for factor, title in FACTORS.items():
            told = content["paper"].get(factor)
            lines = [("paper", tuple(Cell(f"{told[c]:g}") for c in COLUMNS))] if told else []
            for row in content["rows"]:
                for seed in row["seeds"]:
                    found = seed.get("factors", {}).get(factor)
                    if found:
                        cells = tuple(Cell("" if found[c] is None else f"{found[c]:.3g}") for c in COLUMNS)
                        lines.append((f"ours, {label(row)}, seed {seed['seed']}", cells))
            groups.append(Group((title,), tuple(lines)))
        notes = ["The paper's second row fits λ L_ada/D² with its λ of 0.05 better than L_ada/D²; both are shown."]
        table = Table(("factor",), ("largest", "least", "mean", "standard deviation"), tuple(groups))
        return Section(self.name, self.title, self.caption, notes, table, missing=missing(content["rows"]))


TARGET = Table3()
