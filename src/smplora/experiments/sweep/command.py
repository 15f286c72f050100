"""``smplora sweep``: plan, say what it costs, train and measure what is missing, write table, figure and page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smplora.config.data import SplitOptions
from smplora.config.dreambooth import CAPTION
from smplora.config.sweep import SweepConfig
from smplora.config.train import TrainConfig
from smplora.core.console import say
from smplora.core.device import choose_device
from smplora.core.environment import environment
from smplora.core.errors import ConfigError, TrainingError, listing, readable
from smplora.core.files import write_atomically, write_json
from smplora.core.output import output_folder
from smplora.core.parallel import MEASURING, Task, run_tasks
from smplora.core.reading import Unreadable
from smplora.core.surroundings import real
from smplora.core.wording import duration
from smplora.core.yaml_text import as_yaml, read_yaml
from smplora.data.pool import open_source, read_samples
from smplora.data.split import make_split
from smplora.experiments.sweep import plan, results
from smplora.experiments.sweep.page import cell, render
from smplora.report.run_page import PAGE
from smplora.runs.base_model import fetch_model
from smplora.runs.folder import CONFIG, FREE_OPTIONS, check_place, open_folder
from smplora.training.reuse import train_length

TABLE, NUMBERS = "sweep.csv", "sweep.json"
OF_A_SWEEP = "grid"  # a key that no other configuration has
SHARED = {f.name for f in fields(TrainConfig)} - FREE_OPTIONS  # what all runs in a folder have in common


def sweep(config: SweepConfig) -> Path:
    """Train and measure every point; returns the page's path. What was done before is not done again, and what fails
    does not stop the others.

    Raises:
        UserError: anything that the user can mend, before the first step where possible; at the end, if anything
            failed.
    """
    root = Path(config.output_dir)
    check_place(root)
    check_sweep(root, config)
    choose_device(config.device)
    runs, subjects = plan.trainings(config), plan.subjects(config)
    check_images(runs.values())
    tasks = plan.tasks_of(runs, subjects)
    for model in {options.pretrained_model_name_or_path: options for options in runs.values()}.values():
        fetch_model(model)
    say_cost(config, runs, subjects, tasks)
    if config.dry_run:
        if config.json:
            print(json.dumps({"runs": {name: options.output_dir for name, options in runs.items()}}))
        return root / PAGE
    with output_folder(root, None):
        return run_all(config, root, tasks, subjects)


def run_all(config: SweepConfig, root: Path, tasks: Sequence[Task], subjects: Sequence[plan.SweptAdapter]) -> Path:
    """Train and measure what is missing, once everything was checked; as ``sweep``."""
    open_folder(root, config)
    write_atomically(root / CONFIG, as_yaml(asdict(config)))  # it may have grown
    outcome = run_tasks(tasks, "sweep", workers=config.workers, device=config.device)
    settings = results.settings(results.rows(subjects, outcome), config)
    write_atomically(root / TABLE, results.table(settings))
    write_json(root / NUMBERS, results.content(settings, config, environment()))
    write_atomically(root / PAGE, render(settings, config))
    print_table(settings)
    say(f"page: {real(root / PAGE)}")
    if config.json:
        print(json.dumps({"page": str(root / PAGE), "table": str(root / TABLE), "numbers": str(root / NUMBERS)}))
    failed = [f"{name}: {problem}" for name, problem in outcome.items() if problem is not None]
    if failed:
        title = (
            f"{len(failed)} of {len(tasks)} tasks failed; the others are on the page, and the same command tries again"
        )
        raise TrainingError(listing(title, failed))
    return root / PAGE


def check_sweep(root: Path, config: SweepConfig) -> None:
    """Compare what all runs share with the sweep in ``root``, if there is one. What varies may be others: new points
    are added, and those that are not asked for stay in their folders.

    Raises:
        ConfigError: it is another sweep, or none.
    """
    if not (root / CONFIG).exists():
        return
    try:
        before = read_yaml(root / CONFIG)
    except (OSError, Unreadable):
        before = None
    if not isinstance(before, dict) or OF_A_SWEEP not in before:
        raise ConfigError(f"--output_dir got '{root}', which holds something else; give a new or empty folder")
    now = asdict(config)
    differ = [name for name in sorted(SHARED) if name in before and before[name] != now[name]]
    if differ:
        title = f"--output_dir '{root}' holds another sweep (give another folder, or these settings to go on)"
        raise ConfigError(listing(title, [f"{name} was {before[name]!r}, now {now[name]!r}" for name in differ]))


def check_images(runs: Iterable[TrainConfig]) -> None:
    """See whether images and splits of all runs can be used, so that what is wrong is said once.

    Raises:
        DataError, SplitError: they cannot.
    """
    pools: dict[tuple[Any, ...], Any] = {}
    splits: set[tuple[Any, ...]] = set()
    for options in runs:
        if CAPTION not in options.wording and not options.default_caption:  # as in train
            options = replace(options, default_caption=options.wording)
        names = ("train_data_dir", "dataset_name", "canaries_dir", "default_caption", "caption_column")
        where = tuple(getattr(options, name) for name in names)
        how = tuple(getattr(options, f.name) for f in fields(SplitOptions))
        if options.split_manifest or (where, how) in splits:
            continue
        if where not in pools:
            pools[where] = read_samples(open_source(options))
        make_split(pools[where], options)
        splits.add((where, how))


def say_cost(
    config: SweepConfig, runs: Mapping[str, TrainConfig], subjects: Sequence[plan.SweptAdapter], tasks: Sequence[Task]
) -> None:
    """Runs, steps and time, before anything starts."""
    if mixed := plan.mixed_references(config):
        say(mixed)
    for objective, names in config.unused.items():
        say(f"{objective} has no use for {', '.join(names)}: trained once for all values")
    left = [task for task in tasks if not task.done]
    lengths = sorted({train_length(options) for options in runs.values()})
    steps = f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,}"
    text = f"{len(runs)} run{'s' * (len(runs) > 1)} of {steps} steps, {len(subjects)} adapters to audit and evaluate"
    if not left:
        say(f"{text}: all done before")
        return
    say(f"{text}; {len(tasks) - len(left)} of {len(tasks)} tasks are done")
    seconds = plan.steps_left(left) * plan.step_seconds(runs)
    say(f"to do: {plan.steps_left(left):,} steps, an audit or evaluation counted as {MEASURING}: about "
        f"{duration(seconds)}")  # fmt: skip
    shadows = max((subject.audit.with_counts().shadows or 0 for subject in subjects), default=0)
    if shadows:
        say(f"audits train {shadows} shadow adapters for each setting on top, as long as its run each; settings that "
            f"would have the same ones share them, in {Path(config.output_dir) / plan.SHADOWS}")  # fmt: skip


def print_table(settings: Sequence[results.Setting]) -> None:
    """The page's table on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = max(console.width, 140)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in ("", "setting", "runs", *results.MEASURES.values(), "front"):
        table.add_column(header.replace(", ", ",\n").replace(" on ", "\non "))
    for one in settings:
        cells = [cell(one.measured.get(name)) for name in results.MEASURES]
        fine = sum(row.problem is None for row in one.rows)
        table.add_row(
            one.number,
            Text(readable(one.label)),
            f"{fine}" if fine == len(one.rows) else f"{fine} of {len(one.rows)}",
            *(Text("\n".join(filter(None, (c.text, c.interval)))) for c in cells),
            "yes" if one.front else "",
        )
    console.print(table)
