"""The section of a run's page on gradients and curvature: the paper's Fig. 1b, Fig. 2 and Table 3, of this run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.core.files import read_json
from smplora.core.wording import decimal
from smplora.report.figures.curves import Line, cloud, over_steps
from smplora.report.figures.svg import Drawing, drawing, style
from smplora.results.curves import read_curves

SCALES = {"gradient_scale": "whole gradient", "adaptation_scale": "adaptation term", "gain_scale": "MI gain term"}
FACTORS = {"1/D": "1/D", "L_ada/D^2": "L_ada/D²", "lambda*L_ada/D^2": "λ L_ada/D²"}


@dataclass(frozen=True)
class TheorySection:
    """What the page shows."""

    figures: list[Drawing]
    sentences: list[str]
    table: list[tuple[str, list[str]]]  # quantity; mean, standard deviation, least, largest


def theory_section(folder: Path) -> TheorySection | None:
    """From gradients.jsonl, hessian.jsonl and, once it is there, theory.json; None where nothing was measured."""
    gradients = read_curves(folder / "gradients.jsonl", ("gradient_norm", *SCALES))
    hessian = read_curves(folder / "hessian.jsonl", ("gradient_norm", "hessian_norm", "bound"))
    looks = [style(k) for k in range(3)]
    has_gain = any(value for _, value in gradients["gain_scale"])
    scales = [Line(title, gradients[name], look) for (name, title), look in zip(SCALES.items(), looks, strict=True)]
    norms = [
        Line("Hessian norm", hessian["hessian_norm"], looks[0]),
        Line("L0 + L1 · gradient norm", hessian["bound"], looks[1]),
    ]
    at = dict(hessian["gradient_norm"])
    pairs = [(at[step], value) for step, value in hessian["hessian_norm"] if step in at]
    steps = [Line("gradient norm", gradients["gradient_norm"], looks[0])]
    drawn = [
        (steps, over_steps(steps, "gradient_norm", "gradient norm, every step")),
        (
            scales if has_gain else scales[:1],
            over_steps(scales if has_gain else scales[:1], "scales", "gradient scale"),
        ),
        (norms, over_steps(norms, "hessian_norm", "curvature")),
        ([], cloud(pairs, "gradient-against-hessian", looks[0], "gradient norm", "Hessian norm")),
    ]
    figures = [drawing(svg, lines) for lines, svg in drawn if svg]
    content = read_json(folder / "theory.json") if (folder / "theory.json").exists() else None
    if not figures and not content:
        return None
    return TheorySection(figures, sentences(content) if content else [], table(content) if content else [])


def sentences(content: dict[str, Any]) -> list[str]:
    """The correlation and the propositions in words."""
    lines = []
    pearson, checked = content["figure_1b"]["pearson"], content["propositions"]
    if pearson:
        r = pearson["r"]
        p = "below 0.001" if pearson["p_value"] < 0.001 else decimal(pearson["p_value"], 3)
        lines.append(
            f"Pearson's r of gradient norm and Hessian norm at {pearson['n']} points: {decimal(r['value'], 3)} "
            f"[{decimal(r['low'], 2)}, {decimal(r['high'], 2)}], p {p} (neighbouring points are not quite independent)."
        )
    if checked["points"]:
        lines.append(
            f"Hessian norm ≤ L0 + L1 · gradient norm held at {checked['holds']} of {checked['points']} points; "
            f"L0 {decimal(checked['l0']['mean'], 3)}, L1 {decimal(checked['l1']['mean'], 3)} on average."
        )
    return lines


def table(content: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Means and spreads: Fig. 1b's norms, Fig. 2's scales, Table 3's factors."""
    spreads = {
        "gradient norm": content["figure_2"]["gradient_norm"],
        "Hessian norm": content["figure_1b"]["hessian_norm"],
        **{f"gradient scale, {title}": content["figure_2"][name] for name, title in SCALES.items()},
        **{title: content["table_3"][name] for name, title in FACTORS.items()},
    }
    return [
        (title, ["" if spread[k] is None else f"{spread[k]:.3g}" for k in ("mean", "std", "min", "max")])
        for title, spread in spreads.items()
        if spread
    ]
