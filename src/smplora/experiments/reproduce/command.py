"""``smplora reproduce``: plan, say what it costs, train and measure what is missing, write files and page."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from smplora.config.catalogue.paper_targets import TARGETS
from smplora.config.reproduce import ReproduceConfig
from smplora.core.console import say
from smplora.core.environment import environment
from smplora.core.errors import ConfigError, DataError, TrainingError, listing
from smplora.core.files import UNFINISHED, check_writable, write_json
from smplora.core.output import output_folder
from smplora.core.parallel import number_of_workers, run_tasks
from smplora.core.reading import read_object
from smplora.core.registry import load
from smplora.core.surroundings import real
from smplora.core.wording import duration
from smplora.experiments.reproduce import sd15, tiny
from smplora.experiments.reproduce.page import PAGE, write_page
from smplora.experiments.reproduce.plan import IMAGES, Plan
from smplora.experiments.reproduce.results import Results
from smplora.experiments.reproduce.scale import Scale
from smplora.experiments.reproduce.section import Target

FORMAT = "smplora.reproduce/1"
MARK = "reproduce.json"  # of a folder that is ours: scale, and whether it is a quick one


def reproduce(config: ReproduceConfig) -> Path:
    """Compute the targets and write the page; returns its path. What was done before is not done again; what fails is
    shown as missing.

    Raises:
        UserError: anything that the user can mend, before the first step where possible; at the end, if anything
            failed.
    """
    scale, root = scale_of(config), Path(config.output_dir)
    check_folder(root, config)
    targets: dict[str, Target] = {name: load(TARGETS, name, "targets") for name in config.chosen_targets}
    plan = Plan((need for target in targets.values() for need in target.needs(scale.best_lambda)), scale, config)
    missing = scale.missing(plan.datasets, plan.attacks)
    print_plan(plan, config, sys.stdout if config.dry_run and not config.json else sys.stderr)
    if config.dry_run:
        for line in missing:
            say(line)
        if config.json:
            print(json.dumps(described(plan)))
        return root / PAGE
    if missing:
        raise DataError(listing("this is needed first", missing))
    with output_folder(root, None):
        return run_all(config, root, plan, targets)


def run_all(config: ReproduceConfig, root: Path, plan: Plan, targets: Mapping[str, Target]) -> Path:
    """Train and measure what is missing, once everything was checked; as ``reproduce``."""
    scale = plan.scale
    write_json(root / MARK, marked(config))
    scale.prepare(plan.datasets, plan.attacks, root / IMAGES)
    outcome = run_tasks(plan.tasks, "reproduce", workers=config.workers, device=config.device)
    results = Results(plan, outcome)
    for name, target in targets.items():
        write_json(root / f"{name}.json", content(name, target, results, scale))
    page = write_page(root)
    say(f"page: {real(page)}")
    if config.json:
        print(json.dumps({"page": str(page), "files": {name: str(root / f"{name}.json") for name in targets}}))
    failed = [f"{name}: {problem}" for name, problem in outcome.items() if problem is not None]
    if failed:
        title = f"{len(failed)} of {len(outcome)} tasks failed; the page has the others, the same command tries again"
        raise TrainingError(listing(title, failed))
    return page


def content(name: str, target: Target, results: Results, scale: Scale) -> dict[str, Any]:
    """What ``NAME.json`` holds (docs/formats.md)."""
    plan = results.plan
    runs = list(dict.fromkeys(need.run for need in target.needs(scale.best_lambda)))
    return {
        "format": FORMAT,
        "target": name,
        "title": target.title,
        "scale": scale.name,
        "quick": marked_quick(plan.root),
        "model": scale.model,
        "best_lambda": scale.best_lambda,
        "seeds": list(plan.seeds),
        "stands_for": {dataset: scale.stands_for(dataset) for dataset in dict.fromkeys(run.dataset for run in runs)},
        "differences": scale.differences(runs),
        **target.collect(results, scale.best_lambda),
        "environment": environment(),
    }


def check_folder(root: Path, config: ReproduceConfig) -> None:
    """See whether the output folder can be used, without writing.

    Raises:
        ConfigError: it holds something else, or the paper at another scale.
    """
    check_writable(root)
    if not root.exists() or not any(not p.name.startswith(UNFINISHED) for p in root.iterdir()):
        return
    if not (root / MARK).exists():
        raise ConfigError(f"--output_dir got '{root}', which holds something else; give a new or empty folder")
    before, now = read_object(root / MARK, ("scale", "quick"), "give another folder"), marked(config)
    if before != now:
        settings = " and ".join(f"{key} {before.get(key)}" for key in now)
        raise ConfigError(
            f"--output_dir '{root}' holds the paper with {settings}; give another folder, or these settings"
        )


def marked(config: ReproduceConfig) -> dict[str, Any]:
    """What all files in an output folder have in common."""
    return {"scale": config.scale, "quick": config.quick}


def marked_quick(root: Path) -> bool:
    """Whether a folder holds what ``--quick`` made."""
    return bool(read_object(root / MARK, ("quick",), "give another folder")["quick"])


def print_plan(plan: Plan, config: ReproduceConfig, file: Any) -> None:
    """Each run with its steps and how long it would take, and all of them together."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), title=f"The plan: {plan.scale.model}", title_justify="left")
    for header in ("run", "seed", "audits and evaluations", "about", ""):
        table.add_column(header, justify="right" if header in ("seed", "about") else "left")
    left = 0.0
    for planned in plan.planned.values():
        tasks, seconds = planned.tasks, plan.durations(planned)
        done = [task.name for task in tasks if task.done]
        left += sum(s for name, s in seconds.items() if name not in done)
        state = "done" if len(done) == len(tasks) else "to be resumed" if planned.folder.exists() else ""
        measured = planned.theory * ["gradients, curvature"] + [
            t.name.removeprefix(planned.name).strip() for t in tasks[1:]
        ]
        table.add_row(planned.run.title, str(planned.seed), ", ".join(measured), duration(sum(seconds.values())), state)
    console = Console(file=file)
    if not console.is_terminal:
        console.width = max(console.width, 140)
    console.print(table)
    workers = number_of_workers(config.workers, config.device)
    console.print(
        f"{len(plan.planned)} runs, to do: about {duration(left / workers)} with {workers} "
        f"worker{'s' * (workers > 1)} ({plan.scale.machine})."
    )


def described(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "scale": plan.scale.name,
        "runs": [
            {
                "run": planned.run.title, "seed": planned.seed, "key": planned.key, "folder": str(planned.folder),
                "tasks": {name: round(seconds, 1) for name, seconds in plan.durations(planned).items()},
            }
            for planned in plan.planned.values()
        ],
    }  # fmt: skip


def scale_of(config: ReproduceConfig) -> Scale:
    """The scale that ``--scale`` and ``--quick`` name."""
    if config.scale == "sd15":
        return sd15.SD15(config)
    return tiny.Quick() if config.quick else tiny.Tiny()
