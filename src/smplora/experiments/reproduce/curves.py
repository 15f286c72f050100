"""What figures of single runs have in common: which runs, and what their files hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from smplora.core.strips import tiles
from smplora.experiments.reproduce.results import Found, Results, described
from smplora.experiments.reproduce.runs import LORA, MP, SMP, Need, Run
from smplora.experiments.reproduce.section import Gallery
from smplora.report.audit_page import Strip, uris
from smplora.report.figures.overview import Line, over_steps
from smplora.report.figures.svg import Drawing, drawing, mark, style, thinned

MOST_POINTS = 300  # of a curve in a JSON file
LOOKS = {"LoRA": 0, "MP-LoRA": 1, "SMP-LoRA": 2}
BEST = 3  # the look of SMP-LoRA at the best lambda


def systems(
    best_lambda: float | None, objectives: Sequence[str] = (LORA, MP, SMP), dataset: str = "Pokemon"
) -> list[Run]:
    """LoRA, MP-LoRA and SMP-LoRA, and SMP-LoRA at the best lambda that is known."""
    found = [Run(objective=objective, dataset=dataset) for objective in objectives]
    return found if best_lambda is None else [*found, Run(mi_lambda=best_lambda, dataset=dataset)]


def collected(results: Results, needs: Sequence[Need], read: Callable[[Found], dict[str, Any]]) -> dict[str, Any]:
    """What ``read`` finds in each run with each seed, beside what tells the runs apart."""
    return {
        "rows": [
            {
                "run": described(need.run),
                "seeds": [
                    {**found.identity(results.plan.root), **(read(found) if found.problem is None else {})}
                    for found in results.of(need)
                ],
            }
            for need in needs
        ]
    }


def first_seed(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What there is of the first seed that succeeded."""
    return next((seed for seed in row["seeds"] if seed["problem"] is None), None)


def label(row: Mapping[str, Any]) -> str:
    """The paper's name of a row's method, with its lambda."""
    run = Run(**{key: value for key, value in row["run"].items() if key != "title"})
    return run.method + (f", λ {run.mi_lambda:g}" if run.objective != LORA else "")


def look(row: Mapping[str, Any]) -> int:
    """The index of its style: the same method looks the same in every figure."""
    run = Run(**{key: value for key, value in row["run"].items() if key != "title"})
    return BEST if run != replace(run, mi_lambda=Run.mi_lambda) else LOOKS[run.method]


def points(values: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """A column of lines of numbers against the step, thinned."""
    return thinned([(v["step"], v[name]) for v in values if v.get(name) is not None], MOST_POINTS)


def panel(rows: Sequence[Mapping[str, Any]], column: str, name: str, title: str, **options: Any) -> Drawing | None:
    """A curve for each row, of its first seed."""
    lines = [Line(label(row), seed[column], style(look(row))) for row in rows if (seed := first_seed(row))]
    svg = over_steps(lines, name, title, **options)
    return drawing(svg, lines) if svg else None


def pictures(found: Found) -> dict[str, Any]:
    """Where a run's pictures are, and their captions."""
    return {
        "captions": list(found.quality().captions),
        "pictures": "quality/samples.png",
        "real": "quality/real.png",
    }


def gallery(rows: Sequence[Mapping[str, Any]], root: Path, title: str) -> Gallery | None:
    """The first seed's pictures of each row below real ones; None without any."""
    shown = [(row, seed) for row in rows if (seed := first_seed(row))]
    if not shown:
        return None
    first = shown[0][1]
    captions = tuple(first["captions"])
    strips = [Strip("Real images, held out", Markup(""), _pictures(root, first, "real"))]
    strips += [Strip(label(row), mark(style(look(row))), _pictures(root, seed, "pictures")) for row, seed in shown]
    return Gallery(title, captions, tuple(strips))


def _pictures(root: Path, seed: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return uris(tiles(root / str(seed["run"]) / str(seed[name]), len(seed["captions"])))
