"""The whole story in one command: adapt with four objectives, stop one early, attack everything, show it on a page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from smplora.config.audit import AuditConfig
from smplora.config.data import CacheOptions, DataOptions
from smplora.config.distill import DISTILLED
from smplora.config.evaluate import EvaluateConfig
from smplora.config.quickstart import CHECKPOINT_EVERY, QuickstartConfig
from smplora.config.train import TrainConfig
from smplora.core.console import say
from smplora.core.device import choose_device
from smplora.core.output import output_folder
from smplora.core.parallel import Task, run_tasks
from smplora.core.surroundings import real
from smplora.data.digits import write_private_digits
from smplora.data.pool import open_source, read_samples
from smplora.data.split import MANIFEST, Split, make_split, read_split, write_split
from smplora.experiments.tasks import task
from smplora.report.report import print_table, summary, write_report
from smplora.runs.base_model import fetch_model, load_base
from smplora.runs.folder import check_place, check_settings, open_folder
from smplora.training.opening import base_in_words, toy_warning

DIGITS_PER_CELL = 50
DIGITS = "the digits that come with smplora"  # what messages call them
NOISE_PAIRS = 1
ADVICE = (  # what many runs of these systems say, docs/log/2026-11-30-arena.md, not the ones above
    "for your own images try --objective synth_lora first: over seeds and splits of these digits it gave least away at "
    "equal image quality to attackers who train shadow adapters. Audit with --shadows 8 before you publish"
)


def quickstart(config: QuickstartConfig) -> Path:
    """``smplora quickstart``; returns the report's path. What an earlier, interrupted call finished is not done again.

    Raises:
        UserError: anything that the user can mend, before the first step where possible.
    """
    config = replace(config, pretrained_model_name_or_path=config.model)
    root = Path(config.output_dir)
    own_images = config.train_data_dir or config.dataset_name
    if own_images and (toy := toy_warning(config.pretrained_model_name_or_path)):
        say(toy)
    say(f"smplora quickstart: everything goes to {root}; run the same command again if it is interrupted")
    check_place(root)
    check_settings(root, config)
    split = private_split(config, root)
    choose_device(config.device)
    fetch_model(config)
    model = load_base(config, torch.device("cpu"))
    say(
        f"{base_in_words(model, config.resolution)}; {config.max_train_steps:,} steps of each of three objectives, "
        "fewer of the fourth; the bar has the time"
    )
    with output_folder(root, None):
        return run_all(config, root, split)


def run_all(config: QuickstartConfig, root: Path, split: Split) -> Path:
    """Train, attack, evaluate, and show it, once everything was checked; returns the report's path."""
    open_folder(root, config)
    images = shared(config, DataOptions)
    if not (config.train_data_dir or config.dataset_name):
        images["train_data_dir"] = str(write_private_digits(root / "images"))
    write_split(split, root)
    sizes = split.sizes
    held_out = f"{sizes['reference']} held out for quality" if sizes["reference"] else "none held out for quality alone"
    say(
        f"{sum(sizes.values())} private images: {len(split.train)} to train on, "
        f"{sizes['aux_nonmember'] + sizes['test_nonmember']} to compare with, {held_out}"
    )
    runs = {name: training(config, name, images, root) for name in ("lora", "distill_lora", "smp_lora", "mp_lora")}
    subjects = [
        *(root / "lora" / "checkpoints" / f"checkpoint-{step}" for step in sorted(config.early_stops)),
        *(root / name for name in ("lora", "mp_lora", "smp_lora", DISTILLED)),
    ]
    run_tasks(tasks_of(config, runs, subjects), "quickstart", workers=config.workers, device=config.device, strict=True)
    report = root / "report.html"
    write_report(subjects, report)
    print_table(subjects)
    say(ADVICE)
    say(f"report: {real(report)}")
    if config.json:
        print(json.dumps(summary(subjects, report)))
    return report


def private_split(config: QuickstartConfig, root: Path) -> Split:
    """The cells: those of an interrupted call, or new ones. Whatever is wrong with images or sizes is said here, before
    anything is written to the output.

    Raises:
        DataError, SplitError: images that cannot be used, changed or are too few.
    """
    if config.train_data_dir or config.dataset_name:
        return _sealed_or_new(config, root)
    aux_size = DIGITS_PER_CELL if config.split_protocol == "fixed" and config.aux_size is None else config.aux_size
    with TemporaryDirectory() as folder:
        images = write_private_digits(Path(folder))
        return _sealed_or_new(replace(config, train_data_dir=str(images), aux_size=aux_size), root, DIGITS)


def _sealed_or_new(config: QuickstartConfig, root: Path, title: str = "") -> Split:
    source = open_source(config)
    source.title = title or source.title
    samples = read_samples(source)
    sealed = root / MANIFEST
    return read_split(sealed, samples) if sealed.exists() else make_split(samples, config)


def shared(config: QuickstartConfig, options: type) -> dict[str, Any]:
    """The values of options that the quickstart has in common with other commands."""
    return {f.name: getattr(config, f.name) for f in fields(options)}


def training(config: QuickstartConfig, objective: str, images: dict[str, Any], root: Path) -> TrainConfig:
    """The options of one of the runs: one configuration for all, but for objective, lambda and the steps of a
    distillation, whose teachers take time too."""
    steps = config.max_train_steps
    own: dict[str, Any] = {}
    if objective == DISTILLED:
        own = {"teacher_steps": config.teacher_steps or max(1, steps // 4)}
        steps = config.distill_steps or max(1, 2 * steps // 5)
    return TrainConfig(
        **own,
        pretrained_model_name_or_path=config.pretrained_model_name_or_path,
        model_config=config.model_config,
        prediction_type=config.prediction_type,
        variant=config.variant,
        revision=config.revision,
        device=config.device,
        **images,
        **shared(config, CacheOptions),
        resolution=config.resolution,
        split_manifest=str(root / MANIFEST),
        output_dir=str(root / objective),
        objective=objective,
        mi_lambda={"mp_lora": config.mp_lambda, "smp_lora": config.smp_lambda}.get(objective, TrainConfig.mi_lambda),
        proxy_learning_rate=config.proxy_learning_rate,
        rank=config.rank,
        lora_targets=config.lora_targets,
        learning_rate=config.learning_rate,
        train_batch_size=config.train_batch_size,
        max_train_steps=steps,
        checkpointing_steps=CHECKPOINT_EVERY,
        checkpoints_total_limit=None if objective == "lora" else 1,
        seed=config.seed,
        monitor_steps=0,  # the audits say it all, and later
        validation_steps=0,
        run_page=False,
    )


def tasks_of(config: QuickstartConfig, runs: dict[str, TrainConfig], subjects: Iterable[Path]) -> list[Task]:
    """Train the runs, then audit and evaluate each subject of theirs."""
    common = {"seed": config.seed, "device": config.device, **shared(config, CacheOptions)}
    tasks = [task(name, run) for name, run in runs.items()]
    for folder in subjects:
        name = str(folder.relative_to(config.output_dir))
        auditing = AuditConfig(adapter=str(folder), noise_pairs=NOISE_PAIRS, **common)
        tasks.append(task(f"audit of {name}", auditing, after=folder.relative_to(config.output_dir).parts[0]))
        quality = EvaluateConfig(adapter=str(folder), num_images=config.num_images, **common)
        tasks.append(task(f"evaluation of {name}", quality, after=f"audit of {name}"))
    return tasks
