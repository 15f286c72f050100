"""What the runs of a plan came to: numbers by the paper's protocol and by the honest one, mean and standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smplora.core.files import read_json
from smplora.core.parallel import Task
from smplora.experiments.reproduce.commands import command_line
from smplora.experiments.reproduce.paper import METRICS
from smplora.experiments.reproduce.plan import Plan, Planned
from smplora.experiments.reproduce.runs import Need, Run
from smplora.runs.folder import RunFolder

PERCENT = ("asr", "tpr")  # printed in %


@dataclass(frozen=True)
class Found:
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

    def identity(self, root: Path) -> dict[str, Any]:
        """What tells this run from all others, and where it is."""
        done = RunFolder(self.folder).done or {}
        return {
            "seed": self.planned.seed,
            "run": str(self.folder.relative_to(root)),
            "key": self.planned.key,
            "adapter_sha256": done.get("adapter_sha256"),
            "problem": self.problem,
            "commands": [command_line(task.options, root) for task in self.tasks],
        }


class Results:
    """The runs of a plan, by what the paper calls them."""

    def __init__(self, plan: Plan, outcome: Mapping[str, str | None]) -> None:
        self.plan, self.outcome = plan, outcome

    def of(self, need: Need) -> list[Found]:
        """The run that ``need`` asks for, one for each seed."""
        return [
            Found(planned, self._problem(planned, need), self._tasks(planned, need))
            for planned in (self.plan.of(need.run, seed) for seed in self.plan.seeds)
        ]

    def whole(self, need: Need) -> list[Found]:
        """Those of them that nothing is missing of."""
        return [found for found in self.of(need) if found.problem is None]

    @staticmethod
    def _tasks(planned: Planned, need: Need) -> tuple[Task, ...]:
        wanted = planned.tasks_for(need)
        return tuple(task for task in planned.tasks if task.name in wanted)

    def _problem(self, planned: Planned, need: Need) -> str | None:
        wanted = planned.tasks_for(need)
        said = [f"{self.outcome[name]}" for name in wanted if self.outcome.get(name, "not run") is not None]
        return said[0] if said else None


def described(run: Run) -> dict[str, Any]:
    """``run`` for a JSON file: the paper's values, and a title for people."""
    return {"title": run.title, **asdict(run)}


def measured(found: Found, attack: str | None) -> dict[str, Any]:
    """The numbers of one run.

    Args:
        attack: whose numbers; None: of the usual audit, by both protocols, with image quality.
    """
    if attack:
        audit = read_json(found.folder / found.planned.place_of(attack) / "audit.json")
        return {"honest": {**_of_attack(audit, attack, "test"), "attack": attack}}
    audit = read_json(found.folder / "audit" / "audit.json")
    quality = read_json(found.folder / "quality" / "quality.json")
    against = quality["against"]
    optimistic = next(a["paper_protocol"] for a in audit["attacks"] if a["name"] == "error_map")
    strongest, aux = audit["strongest"]["test"], audit["strongest"]["aux_members"]
    return {
        "paper_protocol": {
            **{name: _value(against["train"][name]) for name in ("fid", "kid")},
            "asr": {"value": 100 * optimistic["asr"]},
            "auc_dev": {"value": optimistic["auc_deviation"]},
            "tpr": {"value": 100 * optimistic["tpr_at_5_fpr"]},
            "attack": "error_map",
        },
        "honest": {
            **{name: _bounds(against["held_out"][name]) for name in ("fid", "kid")},
            **_of_attack(audit, strongest["attack"], "test"),
            "auc_dev": _bounds(strongest["auc_deviation"]),  # corrected for the choice among attacks
            "attack": strongest["attack"],
        },
        "aux_members": {
            **_of_attack(audit, aux["attack"], "aux_members"),
            "auc_dev": _bounds(aux["auc_deviation"]),
            "attack": aux["attack"],
        },
        "features": quality["title"],
        "verdict": audit["verdict"]["level"],
    }


def _of_attack(audit: Mapping[str, Any], name: str, group: str) -> dict[str, Any]:
    numbers = next(a[group] for a in audit["attacks"] if a["name"] == name)
    tpr = numbers["tpr_at_fpr"]["0.05"]
    return {
        "asr": _bounds(numbers["asr"], 100),
        "auc_dev": _bounds(numbers["auc_deviation"]),
        "tpr": _bounds(tpr, 100) | ({} if tpr["resolvable"] else {"needs_nonmembers": tpr["needs_nonmembers"]}),
    }


def _bounds(value: Mapping[str, Any], factor: float = 1.0) -> dict[str, Any]:
    """Value and interval of a VALUE of docs/formats.md."""
    ends = {end: value.get(end) for end in ("value", "low", "high")}
    found = {end: None if x is None else factor * x for end, x in ends.items()}
    return found | ({"reason": value["reason"]} if value.get("reason") else {})


def _value(value: Mapping[str, Any]) -> dict[str, Any]:
    """Of a VALUE of docs/formats.md what a protocol without intervals has."""
    return {key: value[key] for key in ("value", "reason") if value.get(key) is not None or key == "value"}


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{protocol: {metric: {"mean", "standard_error", "n"}}} of ``measured`` of several seeds; the standard error is the
    sample's standard deviation over the root of n, null for one seed."""
    found: dict[str, Any] = {}
    for protocol in ("paper_protocol", "honest", "aux_members"):
        for metric in METRICS:
            values = [row[protocol][metric]["value"] for row in rows if metric in row.get(protocol, {})]
            kept = [value for value in values if value is not None]
            if kept:
                error = float(np.std(kept, ddof=1) / len(kept) ** 0.5) if len(kept) > 1 else None
                means = {"mean": float(np.mean(kept)), "standard_error": error, "n": len(kept)}
                found.setdefault(protocol, {})[metric] = means
    return found
