"""Shadow adapters, as shadow_plan.py plans them, are trained in worker processes, and asked."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from smplora.attacks.base import Attack
from smplora.attacks.shadow_comparison import ShadowAttack, Shadows, near_normal
from smplora.audit.shadow_plan import ATTACKED, Shadow, ShadowPlan
from smplora.core.arrays import Floats
from smplora.core.cache import open_cache
from smplora.core.console import say
from smplora.core.errors import TrainingError
from smplora.core.files import LOCK
from smplora.core.lock import waiting_lock
from smplora.core.parallel import Task, Work, run_tasks
from smplora.data.pool import Sample
from smplora.data.split import Split
from smplora.runs.subject import Loaded, load_subject

NO_MORE: dict[str, tuple[Sample, ...]] = {"reference": ()}
MeasureSignals = Callable[[Loaded, Mapping[str, Attack], str], Mapping[tuple[str, str], Floats]]


def with_shadows(
    attacks: Mapping[str, Attack],
    plan: ShadowPlan,
    target: Split,
    training: Work,
    measure: MeasureSignals,
    workers: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Attack]:
    """The attacks, those that need shadows with trained and asked ones.

    Args:
        target: the split of the adapter under audit.
        training: trains one shadow.
        measure, dtype: see ``measure_shadows``.

    Raises:
        TrainingError: one or more could not be trained.
    """
    train_shadows(plan, training, workers)
    compared = {a.shadow_signal: a.compared for a in attacks.values() if isinstance(a, ShadowAttack)}
    shadows = measure_shadows(plan, target, compared, measure, dtype)
    return {
        name: a.among(shadows[a.shadow_signal]) if isinstance(a, ShadowAttack) else a for name, a in attacks.items()
    }


def train_shadows(plan: ShadowPlan, training: Work, workers: int | None = None) -> None:
    """Train those that are not there, in worker processes.

    Raises:
        TrainingError: one or more could not be trained; what was trained stays.
    """
    waiting = f"another audit trains the shadow adapters in {plan.folder}, which this one will use too: waiting for it"
    with waiting_lock(plan.folder / LOCK, lambda: say(waiting)):
        train_each(plan.shadows, "shadow adapters", "shadow_dir", training, workers)


def train_each(shadows: Sequence[Shadow], title: str, option: str, training: Work, workers: int | None) -> None:
    """As ``train_shadows``.

    Args:
        title: what messages call them.
        option: that says where they go.
    """
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()  # what this process keeps, workers cannot have
    tasks = [Task(Path(shadow.options.output_dir).name, shadow.options, training) for shadow in shadows]
    problems = run_tasks(tasks, title, workers=workers, device=shadows[0].options.device)
    failed = {name: problem for name, problem in problems.items() if problem}
    if failed:
        name, problem = next(iter(failed.items()))
        problem = problem.replace("--output_dir", f"--{option}")
        raise TrainingError(f"{len(failed)} of {len(tasks)} {title} were not trained; {name}: {problem}")


def measure_shadows(
    plan: ShadowPlan,
    target: Split,
    compared: Mapping[str, Attack],
    measure: MeasureSignals,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Shadows]:
    """The signals of every shadow for every audited image, by the attack whose they are.

    Args:
        target: the split of the adapter under audit; its captions are not used.
        compared: attacks, by the names of their signals.
        measure: computes signals of every cell of a subject, as an audit does; its last argument is a title for people.
        dtype: of the base model, as the adapter under audit has it.
    """
    measured: dict[str, list[Floats]] = {name: [] for name in compared}
    for number, shadow in enumerate(plan.shadows):
        options = shadow.options
        cache = open_cache(options.cache_dir, options.cache_latents_to_disk)
        loaded = load_subject(str(shadow.adapter), None, options.device, cache=cache, dtype=dtype)
        known = {s.digest: s for cell in ATTACKED for s in loaded.split.cells[cell]}
        split = replace(target, cells={c: tuple(known[s.digest] for s in target.cells[c]) for c in ATTACKED} | NO_MORE)
        title = f"ask shadow {number + 1} of {len(plan.shadows)}"
        signals = measure(replace(loaded, split=split), compared, title)
        for name, parts in measured.items():
            parts.append(np.concatenate([near_normal(name, signals[name, c]) for c in ATTACKED]))
    digests = [s.digest for cell in ATTACKED for s in target.cells[cell]]
    trained_on = [{s.digest for s in shadow.split.train} for shadow in plan.shadows]
    is_in = {digest: np.array([digest in images for images in trained_on]) for digest in digests}
    return {
        name: Shadows(dict(zip(digests, np.stack(parts, 1), strict=True)), is_in)  # [n, N, k]
        for name, parts in measured.items()
    }
