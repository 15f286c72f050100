"""The section of a run's page on gradients and curvature: the paper's Fig. 1b, Fig. 2 and Table 3, of this run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smplora.core.wording import decimal
from smplora.report.figures.curves import Line, cloud, over_steps
from smplora.report.figures.svg import Drawing, drawing, style
from smplora.results.curves import read_curves
from smplora.results.record import read
from smplora.results.theory import TheorySummary

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
    path = folder / "theory.json"
    theory = read(path, TheorySummary, "resume the run from its last checkpoint") if path.exists() else None
    if not figures and not theory:
        return None
    return TheorySection(figures, sentences(theory) if theory else [], table(theory) if theory else [])


def sentences(theory: TheorySummary) -> list[str]:
    """The correlation and the propositions in words."""
    lines = []
    pearson, checked = theory.figure_1b.pearson, theory.propositions
    if pearson:
        r = pearson.r
        p = "below 0.001" if pearson.p_value < 0.001 else decimal(pearson.p_value, 3)
        lines.append(
            f"Pearson's r of gradient norm and Hessian norm at {pearson.n} points: {decimal(r.value, 3)} "
            f"[{decimal(r.low, 2)}, {decimal(r.high, 2)}], p {p} (neighbouring points are not quite independent)."
        )
    if checked.l0 and checked.l1:
        lines.append(
            f"Hessian norm ≤ L0 + L1 · gradient norm held at {checked.holds} of {checked.points} points; "
            f"L0 {decimal(checked.l0.mean, 3)}, L1 {decimal(checked.l1.mean, 3)} on average."
        )
    return lines


def table(theory: TheorySummary) -> list[tuple[str, list[str]]]:
    """Means and spreads: Fig. 1b's norms, Fig. 2's scales, Table 3's factors."""
    spreads = {
        "gradient norm": theory.figure_2.get("gradient_norm"),
        "Hessian norm": theory.figure_1b.hessian_norm,
        **{f"gradient scale, {title}": theory.figure_2.get(name) for name, title in SCALES.items()},
        **{title: theory.table_3.get(name) for name, title in FACTORS.items()},
    }
    return [
        (title, ["" if x is None else f"{x:.3g}" for x in (spread.mean, spread.std, spread.min, spread.max)])
        for title, spread in spreads.items()
        if spread
    ]
