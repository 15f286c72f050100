"""What a training with --privacy_budget measured and did, over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smplora.report.figures.curves import Line, over_steps
from smplora.report.figures.svg import Drawing, Points, drawing, style


def budget_figures(budget: Mapping[str, Points], prefix: str = "") -> list[Drawing]:
    """What was given away, what may be, and what was done about it; none without --privacy_budget.

    Args:
        budget: curves of budget.jsonl by the names of ``results.curves.BUDGET``.
        prefix: of the figures' ids, where a page shows several runs.
    """
    first, second = style(0), style(1)
    band = (budget["leakage.low"], budget["leakage.high"])
    given = [Line("given away", budget["leakage.value"], first), Line("--privacy_budget", budget["limit"], second)]
    figures: list[tuple[list[Line], str, str, Any]] = [
        (given, "budget", "what the images set aside give away", {"band": band}),
        ([Line("non-members", budget["held_out_loss"], first)], "budget_loss", "loss on the non-members set aside", {}),
        ([Line("lambda", budget["mi_lambda"], first)], "budget_lambda", "lambda, as steered", {}),
        ([Line("images", budget["images"], first)], "budget_images", "drawn images in use", {}),
    ]
    drawn = ((lines, over_steps(lines, f"{prefix}{name}", title, **options)) for lines, name, title, options in figures)
    return [drawing(svg, lines) for lines, svg in drawn if svg]
