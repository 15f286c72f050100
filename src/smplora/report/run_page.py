"""The page of one run, index.html in its folder: how it goes on, for the eyes of its owner. Reads files only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from smplora.config.catalogue.objectives import TITLES
from smplora.core.files import write_atomically
from smplora.core.strips import thumbnail
from smplora.core.surroundings import real
from smplora.core.version import __version__
from smplora.core.wording import decimal, duration
from smplora.core.yaml_text import read_yaml
from smplora.report import wording
from smplora.report.figures.budget import budget_figures
from smplora.report.figures.curves import Line, over_steps
from smplora.report.figures.overview import CHANCE_GAIN
from smplora.report.figures.svg import Drawing, drawing, style
from smplora.report.html import template, uris
from smplora.report.theory import theory_section
from smplora.results.audit import Level
from smplora.results.curves import BUDGET, between_starts, read_curves, seconds_per_step
from smplora.results.estimate import Estimate
from smplora.results.record import read
from smplora.results.run import PAGE as PAGE
from smplora.results.run import Prompts
from smplora.results.subjects import flat
from smplora.statistics.intervals import Interval, auc_deviation
from smplora.statistics.verdict import LEAK, NO_LEAK

REFRESH_S = 10
ROUNDS_SHOWN = 8  # of validation images
METRICS = ("adaptation_loss", "mi_gain", "proxy_accuracy", "grad_norm", "learning_rate", "elapsed_s")
MONITOR = (
    *("held_out_loss", "member_loss", "gap"),
    *(f"{name}.{end}" for name in ("auc", "proxy_auc") for end in ("value", "low", "high")),
)
Points = Sequence[tuple[int, float]]


def write_run_page(folder: Path) -> None:
    """Write RUN/index.html, atomically and readable by its owner only.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(folder / PAGE, render_run(folder, time.strftime("%Y-%m-%d %H:%M:%S")))


def render_run(folder: Path, written: str) -> str:
    """The page as HTML, a function of the run's files and of ``written``, the time to show. It needs no network and no
    script; while the run is not done it asks the browser to load it again every few seconds."""
    config = read_yaml(folder / "config.yaml")
    done = (folder / "DONE.json").exists()
    metrics = read_curves(folder / "metrics.jsonl", METRICS)
    monitor = read_curves(folder / "monitor.jsonl", MONITOR)
    budget = read_curves(folder / "budget.jsonl", BUDGET)
    steps = int(config["max_train_steps"])
    step = _last_step(metrics) if budget["limit"] or not done else steps
    level, sentence = within_budget(budget, config, done) or verdict_so_far(monitor)
    captions, rounds = _rounds(folder / "validation")
    return template("run_page.html.j2").render(
        title=f"{real(folder).name}: {TITLES.get(config['objective'], config['objective'])}",
        refresh=None if done else REFRESH_S,
        done=done,
        step=step,
        steps=steps,
        pace=pace(metrics["elapsed_s"], steps) if not done else "",
        level=level,
        sentence=sentence,
        notes=remarks(monitor),
        curves=[*budget_figures(budget), *_figures(metrics, monitor)],
        theory=theory_section(folder),
        captions=captions,
        rounds=rounds,
        settings=flat(config),
        written=written,
        version=__version__,
    )


def verdict_so_far(monitor: Mapping[str, Points]) -> tuple[Level, str]:
    """Level and sentence from the last running attack, by the thresholds of the audit's verdict."""
    if not monitor["auc.value"]:
        return "amber", "Nothing was attacked so far: whether the adapter gives its images away is not known yet."
    (step, value), (_, low), (_, high) = (monitor[f"auc.{end}"][-1] for end in ("value", "low", "high"))
    deviation = auc_deviation(Interval(value, low, high, ""))
    number = f"AUC {decimal(value, 2)} {wording.interval(Estimate(value, low, high))}"
    if deviation.low > LEAK:
        return "red", f"Leaks at step {step:,}: used images can be distinguished from unused ones ({number})."
    if deviation.low == 0 and deviation.high < NO_LEAK:
        return "green", f"No leak found at step {step:,} by the running attack ({number})."
    return "amber", f"Unclear at step {step:,}: the running attack looks at few images ({number})."


def within_budget(budget: Mapping[str, Points], config: Mapping[str, Any], done: bool) -> tuple[Level, str] | None:
    """Level and sentence of a run with --privacy_budget; None without a look so far."""
    if not budget["limit"]:
        return None
    limit, given = budget["limit"][-1][1], config["privacy_budget"]
    high, losses = dict(budget["leakage.high"]), dict(budget["held_out_loss"])
    inside = [step for step, value in high.items() if value <= limit]
    measured = "on images set aside for it, by an attack that trains nothing"
    if not inside:
        least = min(high, key=lambda step: high[step])
        return (
            "red",
            f"Outside --privacy_budget {given}: the least, at step {least:,}, is up to {decimal(high[least], 2)}, "
            f"{measured}.",
        )
    best = min(inside, key=lambda step: losses[step])
    published = "published" if done else "the best so far"
    return "amber", (
        f"Inside --privacy_budget {given} at step {best:,}, which is {published}: up to {decimal(high[best], 2)}, "
        f"{measured}. Audit it."
    )


def remarks(monitor: Mapping[str, Points]) -> list[str]:
    """What the held-out loss and the gap say, in words."""
    held_out, gaps = monitor["held_out_loss"], monitor["gap"]
    if len(held_out) < 2:
        return []
    best = min(held_out, key=lambda point: point[1])
    if best[0] == held_out[-1][0]:
        trend = "The held-out loss is at its lowest: the adapter still learns what images that it has not seen share."
    elif best[0] == held_out[0][0]:
        trend = "The held-out loss has never been below the base model's: the adapter learns its own images only."
    else:
        then, now = (decimal(value, 4) for value in (best[1], held_out[-1][1]))
        trend = (
            f"The held-out loss was lowest at step {best[0]:,} ({then}; now {now}): since then the adapter fits "
            "the images that it sees rather than others like them."
        )
    gap = gaps[-1][1]
    side = "below" if gap >= 0 else "above"
    return [trend, f"The members' loss is {decimal(abs(gap), 4)} {side} that of held-out images."]


def pace(elapsed: Points, steps: int) -> str:
    """Rate and time left, from the lines of metrics.jsonl since the run was last started; "" while unknown."""
    seconds = seconds_per_step(between_starts(elapsed[-20:])[-1])
    if seconds is None:
        return ""
    left = (steps - elapsed[-1][0]) * seconds
    shown = f"{1 / seconds:.1f} steps a second" if seconds <= 1 else f"{seconds:.1f} seconds a step"
    return f"{shown}, about {duration(left)} left"


def _last_step(metrics: Mapping[str, Points]) -> int:
    return max((points[-1][0] for points in metrics.values() if points), default=0)


def _figures(metrics: Mapping[str, Points], monitor: Mapping[str, Points]) -> list[Drawing]:
    first, second = style(0), style(1)
    band = (monitor["auc.low"], monitor["auc.high"])
    attacks = [
        Line("running attack", monitor["auc.value"], first),
        Line("the proxy itself", monitor["proxy_auc.value"], second),
    ]
    losses = [Line("held-out images", monitor["held_out_loss"], first), Line("members", monitor["member_loss"], second)]

    def single(name: str, title: str, chance: float | None = None) -> tuple[list[Line], str, str, Any]:
        points = metrics[name] if name in metrics else monitor[name]
        return [Line(title, points, first)], name, title, {"chance": chance}

    figures: list[tuple[list[Line], str, str, Any]] = [
        single("adaptation_loss", "adaptation loss of the batches"),
        (losses, "held_out_loss", "loss on fixed images", {}),
        single("gap", "gap: held-out less members", 0.0),
        (attacks, "auc", "AUC on aux images", {"chance": 0.5, "band": band}),
        single("mi_gain", "MI gain of the proxy", CHANCE_GAIN),
        single("proxy_accuracy", "accuracy of the proxy", 0.5),
        single("grad_norm", "gradient norm"),
        single("learning_rate", "learning rate"),
    ]
    drawn = ((lines, over_steps(lines, name, title, **options)) for lines, name, title, options in figures)
    return [drawing(svg, lines) for lines, svg in drawn if svg]


def _rounds(folder: Path) -> tuple[list[str], list[tuple[str, tuple[str, ...]]]]:
    """Captions of the columns, and of some rounds of validation images, the last among them, title and pictures."""
    if not (folder / "prompts.json").exists():
        return [], []
    prompts = read(folder / "prompts.json", Prompts, "resume the run")
    columns = [(c, k) for c in range(len(prompts.captions)) for k in range(prompts.images)]
    steps = sorted({int(p.stem.split("-")[1]) for p in folder.glob("step-*.png")})
    complete = [s for s in steps if all((folder / f"step-{s}-{c}-{k}.png").exists() for c, k in columns)]
    places = {round(i * (len(complete) - 1) / (ROUNDS_SHOWN - 1)) for i in range(ROUNDS_SHOWN)} if complete else set()
    shown = [complete[i] for i in sorted(places)]
    rounds = [
        (f"step {s:,}", uris([thumbnail(Image.open(folder / f"step-{s}-{c}-{k}.png")) for c, k in columns]))
        for s in shown
    ]
    return [prompts.captions[c] for c, _ in columns], rounds
