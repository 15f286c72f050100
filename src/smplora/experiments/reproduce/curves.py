"""What tables and figures of single runs have in common: which runs, and how they are named and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smplora.experiments.reproduce.paper import published
from smplora.experiments.reproduce.results import Results, RunResult, described
from smplora.experiments.reproduce.runs import LORA, MP, SMP, Need, PaperRun
from smplora.report.figures.curves import Line, over_steps
from smplora.report.figures.svg import Drawing, drawing, style, thinned

MOST_POINTS = 300  # of a curve in a JSON file
LOOKS = {"LoRA": 0, "MP-LoRA": 1, "SMP-LoRA": 2}
BEST = 3  # the look of SMP-LoRA at the best lambda


def systems(
    best_lambda: float | None, objectives: Sequence[str] = (LORA, MP, SMP), dataset: str = "Pokemon"
) -> list[PaperRun]:
    """LoRA, MP-LoRA and SMP-LoRA, and SMP-LoRA at the best lambda that is known."""
    runs = [PaperRun(objective=objective, dataset=dataset) for objective in objectives]
    return runs if best_lambda is None else [*runs, PaperRun(mi_lambda=best_lambda, dataset=dataset)]


@dataclass(frozen=True)
class RunsTarget:
    """A table or figure of single runs on one data set. Subclasses say what they read of a run and how it is shown.

    Args:
        objectives: of the runs.
        theory: whether gradients and curvature are measured while they train.
        measured: whether they are audited and evaluated.
    """

    name: str
    title: str
    caption: str
    claim: str = ""
    objectives: tuple[str, ...] = (LORA, MP, SMP)
    theory: bool = False
    measured: bool = True

    def needs(self, best_lambda: float | None) -> list[Need]:
        """The main runs on Pokemon with these objectives."""
        return [Need(run, self.theory, self.measured) for run in systems(best_lambda, self.objectives)]

    def read(self, run: RunResult) -> dict[str, Any]:
        """What the JSON file holds of a run with one seed.

        Raises:
            CheckpointError: a damaged file.
        """
        raise NotImplementedError

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """What each run with each seed came to, beside what tells the runs apart, and the paper's numbers."""
        rows = [
            {
                "run": described(need.run),
                "seeds": [
                    {**run.identity(results.plan.root), **(self.read(run) if run.problem is None else {})}
                    for run in results.runs_for(need)
                ],
            }
            for need in self.needs(best_lambda)
        ]
        numbers = published().get(self.name)
        return {"rows": rows, "paper": numbers} if numbers else {"rows": rows}


def first_seed(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What there is of the first seed that succeeded."""
    return next((seed for seed in row["seeds"] if seed["problem"] is None), None)


def label(row: Mapping[str, Any]) -> str:
    """The paper's name of a row's method, with its lambda."""
    run = PaperRun(**{key: value for key, value in row["run"].items() if key != "title"})
    return run.method + (f", λ {run.mi_lambda:g}" if run.objective != LORA else "")


def look(row: Mapping[str, Any]) -> int:
    """The index of its style: the same method looks the same in every figure."""
    run = PaperRun(**{key: value for key, value in row["run"].items() if key != "title"})
    return BEST if run != replace(run, mi_lambda=PaperRun.mi_lambda) else LOOKS[run.method]


def points(values: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """A column of lines of numbers against the step, thinned."""
    return thinned([(v["step"], v[name]) for v in values if v.get(name) is not None], MOST_POINTS)


def panel(rows: Sequence[Mapping[str, Any]], column: str, name: str, title: str, **options: Any) -> Drawing | None:
    """A curve for each row, of its first seed."""
    lines = [Line(label(row), seed[column], style(look(row))) for row in rows if (seed := first_seed(row))]
    svg = over_steps(lines, name, title, **options)
    return drawing(svg, lines) if svg else None
