"""What the runs of a plan came to: numbers by the paper's protocol and by the honest one, mean and standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smplora.core.errors import CheckpointError
from smplora.core.parallel import Task
from smplora.experiments.reproduce.commands import command_line
from smplora.experiments.reproduce.paper import METRICS
from smplora.experiments.reproduce.plan import Plan, Planned
from smplora.experiments.reproduce.runs import Need, PaperRun
from smplora.results.attack import Group
from smplora.results.audit import FORMAT as AUDIT_FORMAT
from smplora.results.audit import Audit
from smplora.results.estimate import Estimate
from smplora.results.quality import FORMAT as QUALITY_FORMAT
from smplora.results.quality import Quality
from smplora.results.record import read
from smplora.runs.folder import RunFolder

AGAIN = "run the same 'smplora reproduce'"


@dataclass(frozen=True)
class RunResult:
    """One run of a plan with one seed.

    Args:
        problem: why something that it needs is missing, or None.
        tasks: what it needs.
    """

    planned: Planned
    problem: str | None
    tasks: tuple[Task, ...] = ()

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.planned.folder

    def audit(self, attack: str | None = None) -> Audit:
        """The usual audit, or that of one attack.

        Raises:
            CheckpointError: it is damaged.
        """
        place = self.planned.place_of(attack) if attack else "audit"
        return read(self.folder / place / "audit.json", Audit, AGAIN, AUDIT_FORMAT)

    def quality(self) -> Quality:
        """Its quality; raises likewise."""
        return read(self.folder / "quality" / "quality.json", Quality, AGAIN, QUALITY_FORMAT)

    def identity(self, root: Path) -> dict[str, Any]:
        """What tells this run from all others, and where it is."""
        done = RunFolder(self.folder).done
        return {
            "seed": self.planned.seed,
            "run": str(self.folder.relative_to(root)),
            "key": self.planned.key,
            "adapter_sha256": done.adapter_sha256 if done else None,
            "problem": self.problem,
            "commands": [command_line(task.options, root) for task in self.tasks],
        }


class Results:
    """The runs of a plan, by what the paper calls them."""

    def __init__(self, plan: Plan, outcome: Mapping[str, str | None]) -> None:
        self.plan, self.outcome = plan, outcome

    def runs_for(self, need: Need) -> list[RunResult]:
        """The run that ``need`` asks for, one for each seed."""
        return [
            RunResult(planned, self._problem(planned, need), self._tasks(planned, need))
            for planned in (self.plan.planned_run(need.run, seed) for seed in self.plan.seeds)
        ]

    def whole(self, need: Need) -> list[RunResult]:
        """Those of them that nothing is missing of."""
        return [run for run in self.runs_for(need) if run.problem is None]

    @staticmethod
    def _tasks(planned: Planned, need: Need) -> tuple[Task, ...]:
        names = planned.tasks_for(need)
        return tuple(task for task in planned.tasks if task.name in names)

    def _problem(self, planned: Planned, need: Need) -> str | None:
        names = planned.tasks_for(need)
        problems = [f"{self.outcome[name]}" for name in names if self.outcome.get(name, "not run") is not None]
        return problems[0] if problems else None


def described(run: PaperRun) -> dict[str, Any]:
    """``run`` for a JSON file: the paper's values, and a title for people."""
    return {"title": run.title, **asdict(run)}


def measured(run: RunResult, attack: str | None) -> dict[str, Any]:
    """The numbers of one run.

    Args:
        attack: whose numbers; None: of the usual audit, by both protocols, with image quality.
    """
    if attack:
        return {"honest": {**_of_attack(run.audit(attack), attack, "test"), "attack": attack}}
    audit, quality = run.audit(), run.quality()
    against, optimistic = quality.against, audit.attack("error_map").paper_protocol
    if optimistic is None or against.train is None:
        raise CheckpointError(f"{run.folder} lacks what the paper's protocol needs; {AGAIN} again")
    strongest, aux = audit.strongest["test"], audit.strongest["aux_members"]
    return {
        "paper_protocol": {
            **{name: _value(getattr(against.train, name)) for name in ("fid", "kid")},
            "asr": {"value": _times(optimistic.asr, 100)},
            "auc_dev": {"value": optimistic.auc_deviation},
            "tpr": {"value": _times(optimistic.tpr_at_5_fpr, 100)},
            "attack": "error_map",
        },
        "honest": {
            **{name: _bounds(getattr(against.held_out, name)) for name in ("fid", "kid")},
            **_of_attack(audit, strongest.attack, "test"),
            "auc_dev": _bounds(strongest.auc_deviation),  # corrected for the choice among attacks
            "attack": strongest.attack,
        },
        "aux_members": {
            **_of_attack(audit, aux.attack, "aux_members"),
            "auc_dev": _bounds(aux.auc_deviation),
            "attack": aux.attack,
        },
        "features": quality.title,
        "verdict": audit.verdict.level,
    }


def _of_attack(audit: Audit, name: str, group: Group) -> dict[str, Any]:
    numbers = audit.attack(name, group).on(group)
    assert numbers is not None
    tpr = numbers.tpr_at_fpr["0.05"]
    return {
        "asr": _bounds(numbers.asr, 100),
        "auc_dev": _bounds(numbers.auc_deviation),
        "tpr": _bounds(tpr, 100) | ({} if tpr.resolvable else {"needs_nonmembers": tpr.needs_nonmembers}),
    }


def _bounds(estimate: Estimate | None, factor: float = 1.0) -> dict[str, Any]:
    """Value and interval."""
    estimate = estimate or Estimate(None)
    ends = {end: _times(getattr(estimate, end), factor) for end in ("value", "low", "high")}
    return ends | ({"reason": estimate.reason} if estimate.reason else {})


def _value(estimate: Estimate) -> dict[str, Any]:
    """What a protocol without intervals has."""
    return {"value": estimate.value} | ({"reason": estimate.reason} if estimate.reason else {})


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def means_over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{protocol: {metric: {"mean", "standard_error", "n"}}} of ``measured`` of several seeds; the standard error is the
    sample's standard deviation over the root of n, null for one seed."""
    by_protocol: dict[str, Any] = {}
    for protocol in ("paper_protocol", "honest", "aux_members"):
        for metric in METRICS:
            values = [row[protocol][metric]["value"] for row in rows if metric in row.get(protocol, {})]
            known = [value for value in values if value is not None]
            if known:
                error = float(np.std(known, ddof=1) / len(known) ** 0.5) if len(known) > 1 else None
                means = {"mean": float(np.mean(known)), "standard_error": error, "n": len(known)}
                by_protocol.setdefault(protocol, {})[metric] = means
    return by_protocol
