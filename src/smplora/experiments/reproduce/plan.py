"""From targets to what has to be trained and measured: equal runs are one run, wherever they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from smplora.config.audit import AuditConfig
from smplora.config.data import CacheOptions
from smplora.config.evaluate import EvaluateConfig
from smplora.config.reproduce import ReproduceConfig
from smplora.config.train import TrainConfig
from smplora.core.parallel import Task
from smplora.experiments.reproduce.runs import LORA, Need, PaperRun
from smplora.experiments.reproduce.scale import Scale
from smplora.experiments.tasks import task
from smplora.runs.folder import DONE

RUNS, IMAGES = "runs", "images"
MEASURED = "-measured"  # of the name of a run whose gradients and curvature were measured


@dataclass
class Planned:
    """One training with everything that is measured of it. ``key`` names what it computes: the digest of its options
    but for folders and devices."""

    run: PaperRun
    seed: int
    key: str
    name: str
    train: TrainConfig
    audit: AuditConfig | None = None
    evaluate: EvaluateConfig | None = None
    more_audits: dict[str, AuditConfig] = field(default_factory=dict)  # by attack

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.train.output_dir)

    @property
    def theory(self) -> bool:
        """Whether gradients and curvature are measured while training."""
        return self.train.gradient_steps > 0

    @staticmethod
    def place_of(attack: str) -> str:
        """Where the audit by one attack goes, inside of the run folder."""
        return f"audit_{attack}"

    @property
    def tasks(self) -> list[Task]:
        """In order; the later ones wait for the training."""
        measuring: list[tuple[str, AuditConfig | EvaluateConfig]] = []
        measuring += [("audit", self.audit)] if self.audit else []
        measuring += [("evaluate", self.evaluate)] if self.evaluate else []
        measuring += [(self.place_of(attack), options) for attack, options in self.more_audits.items()]
        return [
            task(self.name, self.train),
            *(task(f"{self.name} {what}", options, after=self.name) for what, options in measuring),
        ]

    def tasks_for(self, need: Need) -> list[str]:
        """Names of the tasks that ``need`` cannot do without."""
        names = [*(("audit", "evaluate") if need.measured else ()), *map(self.place_of, need.attacks)]
        return [self.name, *(f"{self.name} {what}" for what in names)]


class Plan:
    """Every run that ``needs`` of the targets ask for, once per seed, in the order asked."""

    def __init__(self, needs: Iterable[Need], scale: Scale, config: ReproduceConfig) -> None:
        self.scale, self.seeds = scale, config.chosen_seeds
        self.root = Path(config.output_dir)
        self.common = {**asdict_of(config, CacheOptions), "device": config.device}
        self.planned: dict[str, Planned] = {}
        distinct = list(dict.fromkeys(needs))
        for seed in self.seeds:
            theory = {self._key(need.run, seed) for need in distinct if need.theory}
            for need in distinct:
                self._add(need, seed, theory)

    def planned_run(self, run: PaperRun, seed: int) -> Planned:
        """Where ``run`` is to be found.

        Raises:
            KeyError: it was not asked for.
        """
        return self.planned[self._key(run, seed)]

    @property
    def tasks(self) -> list[Task]:
        """Everything to do."""
        return [task for planned in self.planned.values() for task in planned.tasks]

    @property
    def datasets(self) -> list[str]:
        """The paper's names of those that are needed, each once."""
        return list(dict.fromkeys(planned.run.dataset for planned in self.planned.values()))

    @property
    def attacks(self) -> set[str]:
        """Those that have audits of their own."""
        return {attack for planned in self.planned.values() for attack in planned.more_audits}

    def durations(self, planned: Planned) -> dict[str, float]:
        """About how many seconds each of its tasks takes, by the task's name, were it not begun yet."""
        return {task.name: self.scale.duration(planned.train, task.options) for task in planned.tasks}

    def _key(self, run: PaperRun, seed: int) -> str:
        return key_of(self.scale.training(run, seed))

    def _add(self, need: Need, seed: int, theory: set[str]) -> None:
        options = self.scale.training(need.run, seed)
        key = key_of(options)
        if key not in self.planned:
            name = name_of(need.run, seed, key)
            # a run with the measurements does for one without them
            if key in theory or (self.root / RUNS / f"{name}{MEASURED}" / DONE).exists():
                name, options = name + MEASURED, options | self.scale.theory(need.run)
            place = self.scale.place(need.run.dataset, self.root / IMAGES)
            train = TrainConfig(
                **options, **place, **self.scale.bookkeeping, **self.common, output_dir=str(self.root / RUNS / name)
            )
            self.planned[key] = Planned(need.run, seed, key, name, train)
        planned = self.planned[key]
        subject: dict[str, Any] = {"adapter": str(planned.folder), "seed": seed, **self.common}
        auditing = {**subject, **self.scale.auditing}
        if need.measured and planned.audit is None:
            planned.audit = AuditConfig(**auditing)
            planned.evaluate = EvaluateConfig(**subject, **self.scale.evaluating)
        for attack in need.attacks:
            output = str(planned.folder / planned.place_of(attack))
            planned.more_audits[attack] = AuditConfig(**{**auditing, "attacks": [attack]}, output_dir=output)


def asdict_of(config: Any, options: type) -> dict[str, Any]:
    """The values of options that ``config`` has in common with others."""
    return {f.name: getattr(config, f.name) for f in fields(options)}


def key_of(options: dict[str, Any]) -> str:
    """Digest of the options that decide what a run computes."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def name_of(run: PaperRun, seed: int, key: str) -> str:
    """A folder's name that people can read and that no other run has."""
    weight = f"-{run.mi_lambda:g}" if run.objective != LORA else ""
    method = run.objective if run.adaptation == "lora" else f"{run.adaptation}-{run.objective}"
    return f"{run.dataset.lower()}-{method}{weight}-s{seed}-{key[:8]}"
