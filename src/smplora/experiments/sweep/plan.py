"""What a sweep does: a run for each point, an audit and an evaluation for each of its adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from smplora.config.audit import AuditConfig
from smplora.config.data import CacheOptions
from smplora.config.evaluate import EvaluateConfig
from smplora.config.sweep import SweepConfig
from smplora.config.sweep_points import Point
from smplora.config.synthetic import BALANCED
from smplora.config.train import TrainConfig
from smplora.core.parallel import Task
from smplora.experiments.tasks import task
from smplora.results.curves import seconds_per_step
from smplora.runs.folder import RunFolder
from smplora.training.train import train

RUNS, MEASURED, SHADOWS = "runs", "measured", "shadows"
TRIAL_STEPS = 5  # the first of them is slower and not counted


@dataclass(frozen=True)
class SweptAdapter:
    """An adapter that is audited: the end of a point's run, or one of its checkpoints."""

    point: Point
    step: int | None  # of a checkpoint
    name: str
    run: str  # name of the task that trains it
    folder: Path  # of the run or checkpoint
    audit: AuditConfig
    evaluate: EvaluateConfig

    @property
    def tasks(self) -> dict[str, Task]:
        """By what they write. Both wait for the run only: images are also worth having where the audit fails."""
        return {
            "audit": task(f"audit of {self.name}", self.audit, after=self.run),
            "quality": task(f"evaluation of {self.name}", self.evaluate, after=self.run),
        }


def trainings(config: SweepConfig) -> dict[str, TrainConfig]:
    """The runs, by their names."""
    root = Path(config.output_dir) / RUNS
    return {
        point.run: TrainConfig(**{**point.train, "output_dir": str(root / point.run)}) for point in config.all_points
    }


def subjects(config: SweepConfig) -> list[SweptAdapter]:
    """Every adapter to audit, checkpoints before the end of their run."""
    root = Path(config.output_dir) / RUNS
    common: dict[str, Any] = {
        "seed": config.seed,
        "device": config.device,
        **{f.name: getattr(config, f.name) for f in fields(CacheOptions)},
    }
    adapters = []
    for point in config.all_points:
        for step in [*config.stops(point), None]:
            folder = root / point.run if step is None else root / point.run / "checkpoints" / f"checkpoint-{step}"
            own = folder / MEASURED / point.variant if point.variant else None
            options = {**common, "adapter": str(folder)}
            adapters.append(
                SweptAdapter(
                    point,
                    step,
                    ", ".join([point.run, *([f"step {step}"] if step else []), *([point.variant] * bool(own))]),
                    point.run,
                    folder,
                    _with_shared_shadows(
                        AuditConfig(**{**options, "output_dir": str(own / "audit") if own else None, **point.audit}),
                        Path(config.output_dir) / SHADOWS,
                    ),
                    EvaluateConfig(
                        **{**options, "output_dir": str(own / "quality") if own else None, **point.evaluate}
                    ),
                )
            )
    return adapters


def mixed_references(config: SweepConfig) -> str:
    """What must be said where settings have their quality measured on different images; "" where not."""
    balanced = [TrainConfig(**point.train).chooses_by_reference for point in config.all_points]
    if all(balanced) or not any(balanced):
        return ""
    return (
        f"{sum(balanced)} of {len(balanced)} runs have --drop_nearest {BALANCED} or --stop_when: their quality is "
        "measured on the half of the reference images that chose nothing, that of the others on all; FID, KID and "
        "held-out loss of the two kinds are not comparable"
    )


def _with_shared_shadows(audit: AuditConfig, folder: Path) -> AuditConfig:
    """Shadow adapters that are the same for several adapters are trained once."""
    shadows = audit.with_counts().shadows and not audit.shadow_dir
    return replace(audit, shadow_dir=str(folder)) if shadows else audit


def tasks_of(runs: Mapping[str, TrainConfig], measured: Sequence[SweptAdapter]) -> list[Task]:
    """Runs in the order given; what measures them follows as soon as they are done."""
    return [
        *(task(name, options) for name, options in runs.items()),
        *(task for subject in measured for task in subject.tasks.values()),
    ]


def steps_left(tasks: Sequence[Task]) -> int:
    """Work to do, in training steps: what an audit or evaluation takes is counted as so many."""
    return sum(t.length - t.progress for t in tasks if not t.done)


def step_seconds(runs: Mapping[str, TrainConfig]) -> float:
    """How long a step takes here: of the runs that are there, or of a few steps of the first one, which also shows
    whether it can be trained.

    Raises:
        UserError: it cannot.
    """
    rates = [
        rate for options in runs.values() if (rate := seconds_per_step(RunFolder(Path(options.output_dir)).elapsed()))
    ]
    if rates:
        return sum(rates) / len(rates)
    with TemporaryDirectory() as folder:
        nothing_else = {"monitor_steps": 0, "validation_steps": 0, "run_page": False, "report_to": None}
        first = replace(
            next(iter(runs.values())),
            output_dir=folder,
            max_train_steps=TRIAL_STEPS,
            logging_steps=1,
            checkpointing_steps=TRIAL_STEPS,
            gradient_steps=0,
            hessian_steps=0,
            **nothing_else,  # type: ignore[arg-type]
        )
        train(first, progress=False)
        return seconds_per_step(RunFolder(Path(folder)).elapsed()) or 0.0
