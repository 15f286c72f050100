"""What the runs of a sweep found: a row for each adapter, an estimate over seeds for each setting."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smplora.audit.reuse import previous_audit
from smplora.config.catalogue.objectives import TITLES
from smplora.config.sweep import SweepConfig
from smplora.config.sweep_points import SEEDS, shown, uses
from smplora.experiments.sweep.plan import SweptAdapter
from smplora.quality.reuse import previous_quality
from smplora.report.figures.plane import Bar, Place, on_front
from smplora.report.figures.svg import style
from smplora.results.attack import GROUPS, Group
from smplora.results.estimate import Estimate
from smplora.statistics.intervals import Interval
from smplora.statistics.over_runs import TWO_RUNS, over_seeds

FORMAT = "smplora.sweep/1"
MEASURES = {
    "auc": "AUC, test members",
    "aux_auc": "AUC, aux members",
    "kid": "KID, held-out",
    "fid": "FID, held-out",
    "held_out_loss": "loss on held-out images",
}
PRIVACY: dict[Group, str] = {"test": "auc", "aux_members": "aux_auc"}
ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class AdapterRow:
    """One adapter; of what could not be measured there is nothing."""

    subject: SweptAdapter
    measured: dict[str, Interval]
    verdict: str | None
    attack: str | None
    problem: str | None


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds only."""

    number: str  # its number in figure and table
    label: str
    values: dict[str, Any]
    step: int | None
    rows: list[AdapterRow]
    measured: dict[str, Interval]  # over the runs that have it
    front: bool = False


def rows(subjects: Sequence[SweptAdapter], outcome: Mapping[str, str | None]) -> list[AdapterRow]:
    """Read what each subject's audit and evaluation wrote."""
    return [_row(subject, outcome) for subject in subjects]


def _row(subject: SweptAdapter, outcome: Mapping[str, str | None]) -> AdapterRow:
    tasks = {kind: task.name for kind, task in subject.tasks.items()}
    problems = [p for name in (subject.run, *tasks.values()) if (p := outcome.get(name))]
    audit = None if outcome.get(subject.run) or outcome.get(tasks["audit"]) else previous_audit(subject.audit)
    quality = None if outcome.get(subject.run) or outcome.get(tasks["quality"]) else previous_quality(subject.evaluate)
    estimates: dict[str, Estimate | None] = {}
    if audit:
        estimates |= {PRIVACY[group]: audit.strongest[group].auc for group in GROUPS}
    if quality:
        held_out = quality.against.held_out
        estimates |= {"kid": held_out.kid, "fid": held_out.fid, "held_out_loss": quality.held_out_loss}
    measured = {name: interval for name, value in estimates.items() if (interval := _interval(value))}
    return AdapterRow(
        subject,
        measured,
        audit.verdict.level if audit else None,
        audit.strongest["test"].attack if audit else None,
        problems[0] if problems else None,
    )


def _interval(estimate: Estimate | None) -> Interval | None:
    if estimate is None or estimate.value is None:
        return None
    low, high = (estimate.value if end is None else end for end in (estimate.low, estimate.high))
    return Interval(estimate.value, low, high, estimate.method or "its own")


def settings(measured_rows: Sequence[AdapterRow], config: SweepConfig) -> list[Setting]:
    """Rows with the same values and step together, and which of them no other one beats."""
    groups: dict[str, list[AdapterRow]] = {}
    for row in measured_rows:
        key = json.dumps([row.subject.point.setting, row.subject.step], sort_keys=True, default=str)
        groups.setdefault(key, []).append(row)
    settings = []
    for number, group in enumerate(groups.values(), 1):
        point, step = group[0].subject.point, group[0].subject.step
        parts = [f"{name} {shown(value)}" for name, value in point.setting.items()]
        measured = {
            name: over_seeds([row.measured[name] for row in group if name in row.measured])
            for name in MEASURES
            if any(name in row.measured for row in group)
        }
        label = ", ".join([*parts, *([f"stopped at step {step}"] if step else [])]) or "as given"
        settings.append(Setting(str(number), label, point.setting, step, group, measured))
    places = placed(settings, config)
    best = dict(zip([p.number for p in places], on_front(places), strict=True)) if places else {}
    return [Setting(**{**vars(one), "front": best.get(one.number, False)}) for one in settings]


def kinds(settings: Sequence[Setting]) -> list[str]:
    """What the colour of each setting stands for: its objective, or where there is one only, the value of the first
    option that varies."""
    objectives = [str(one.rows[0].subject.point.objective) for one in settings]
    if len(set(objectives)) > 1:
        return [TITLES.get(objective, objective) for objective in objectives]
    return [", ".join(f"{name} {shown(value)}" for name, value in list(one.values.items())[:1]) for one in settings]


def placed(settings: Sequence[Setting], config: SweepConfig) -> list[Place]:
    """The settings that have both measures, in the figure's terms."""
    x, y = config.quality, PRIVACY[config.privacy]
    names = kinds(settings)
    looks = {text: style(i) for i, text in enumerate(dict.fromkeys(names))}
    return [
        Place(one.label, one.number, _bar(one.measured[x]), _bar(one.measured[y]), looks[text], _curve(one))
        for one, text in zip(settings, names, strict=True)
        if x in one.measured and y in one.measured
    ]


def _bar(interval: Interval) -> Bar:
    ends = (interval.value,) * 2 if interval.method == TWO_RUNS else (interval.low, interval.high)
    return Bar(interval.value, *ends)


def _curve(one: Setting) -> str | None:
    """Checkpoints of a setting and its end lie on one line."""
    point = one.rows[0].subject.point
    return json.dumps(point.setting, sort_keys=True, default=str) if point.train["objective"] == "lora" else None


def content(settings: Sequence[Setting], config: SweepConfig, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What sweep.json holds (docs/formats.md)."""
    root = Path(config.output_dir)
    return {
        "format": FORMAT,
        "front": {"quality": config.quality, "privacy": PRIVACY[config.privacy]},
        "settings": [
            {
                "number": int(one.number),
                "label": one.label,
                "values": one.values,
                "step": one.step,
                "n": sum(row.problem is None for row in one.rows),
                "on_front": one.front,
                **{name: one.measured[name].as_dict() if name in one.measured else None for name in MEASURES},
                "runs": [
                    {
                        "folder": row.subject.folder.relative_to(root).as_posix(),
                        "measured": _measured_in(row, root),
                        **{seed: row.subject.point.train[seed] for seed in SEEDS},
                        "verdict": row.verdict,
                        "attack": row.attack,
                        "problem": row.problem,
                        **{name: row.measured[name].bounds() if name in row.measured else None for name in MEASURES},
                    }
                    for row in one.rows
                ],
            }
            for one in settings
        ],
        "environment": dict(environment),
    }


def _measured_in(row: AdapterRow, root: Path) -> str:
    own = row.subject.audit.output_dir
    return (Path(own).parent if own else row.subject.folder).relative_to(root).as_posix()


def table(settings: Sequence[Setting]) -> str:
    """sweep.csv: one line for each adapter."""
    varied = list(dict.fromkeys(name for one in settings for name in one.values))
    bounds = [f"{name}{'' if end == 'value' else f'_{end}'}" for name in MEASURES for end in ENDS]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["setting", *varied, *SEEDS, "step", *bounds, "verdict", "attack", "on_front", "run", "problem"])
    for one in settings:
        for row in one.rows:
            train = row.subject.point.train
            numbers = [getattr(row.measured[n], end) if n in row.measured else "" for n in MEASURES for end in ENDS]
            options = {
                name: value
                for name, value in train.items()
                if uses(train["objective"], name, train.get("teacher_objective", "lora"))
            } | one.values
            values = [shown(options.get(name, "")) for name in varied]
            writer.writerow(
                [
                    *(one.number, *values, *(train[seed] for seed in SEEDS), row.subject.step or "end", *numbers),
                    *(row.verdict or "", row.attack or "", one.front, row.subject.run, row.problem or ""),
                ]
            )
    return lines.getvalue()
