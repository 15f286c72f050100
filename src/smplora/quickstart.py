"""The whole story in one command: adapt with three objectives, stop one early, attack everything, show it on a page."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from smplora import offline
from smplora.audit import audit, audit_settings
from smplora.config import AuditConfig, CacheOptions, DataOptions, EvaluateConfig, QuickstartConfig, TrainConfig
from smplora.data import open_source, read_samples
from smplora.download import fetch_model
from smplora.errors import TrainingError
from smplora.evaluate import evaluate, evaluation_settings
from smplora.examples import write_private_digits
from smplora.files import read_json
from smplora.judgement import FORMAT
from smplora.models import choose_device, load_base
from smplora.progress import bar
from smplora.report import print_table, summary, write_report
from smplora.run import RunFolder, check_place, check_settings, open_folder, say
from smplora.split import MANIFEST, Split, make_split, read_split, write_split
from smplora.subject import find_subject
from smplora.train import train

CHECKPOINT_EVERY = 100
DIGITS_PER_CELL = 50
MOST_WORKERS = 3
NOISE_PAIRS = 1
MEASURING = 400  # an audit and an evaluation, in training steps: what the progress bar counts


@dataclass(frozen=True)
class Measured:
    """What a worker brings back from one adapter."""

    folder: Path
    sentence: str


def quickstart(config: QuickstartConfig) -> Path:
    """``smplora quickstart``; returns the report's path. What an earlier, interrupted call finished is not done again.

    Raises:
        UserError: anything that the user can mend, before the first step where possible.
    """
    root = Path(config.output_dir)
    say(f"smplora quickstart: everything goes to {root}; run the same command again if it is interrupted")
    check_place(root)
    check_settings(root, config)
    split = private_split(config, root)
    choose_device(config.device)
    fetch_model(config)
    load_base(config, torch.device("cpu"))
    open_folder(root, config)
    images = shared(config, DataOptions)
    if not (config.train_data_dir or config.dataset_name):
        images["train_data_dir"] = str(write_private_digits(root / "images"))
    write_split(split, root)
    sizes = split.sizes
    say(
        f"{sum(sizes.values())} private images: {len(split.train)} to train on, "
        f"{sizes['aux_nonmember'] + sizes['test_nonmember']} to compare with, {sizes['reference']} held out for quality"
    )
    runs = {name: training(config, name, images, root) for name in ("lora", "smp_lora", "mp_lora")}
    subjects = [
        *(root / "lora" / "checkpoints" / f"checkpoint-{step}" for step in sorted(config.early_stops)),
        *(root / name for name in ("lora", "mp_lora", "smp_lora")),
    ]
    execute(config, runs, subjects)
    report = root / "report.html"
    write_report(subjects, report)
    print_table(subjects)
    say(f"report: {report.resolve()}")
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
        return _sealed_or_new(replace(config, train_data_dir=str(images), aux_size=aux_size), root)


def _sealed_or_new(config: QuickstartConfig, root: Path) -> Split:
    samples = read_samples(open_source(config))
    sealed = root / MANIFEST
    return read_split(sealed, samples) if sealed.exists() else make_split(samples, config)


def shared(config: QuickstartConfig, options: type) -> dict[str, Any]:
    """The values of options that the quickstart has in common with other commands."""
    return {f.name: getattr(config, f.name) for f in fields(options)}


def training(config: QuickstartConfig, objective: str, images: dict[str, Any], root: Path) -> TrainConfig:
    """The options of one of the runs: one configuration for all, but for objective and lambda."""
    return TrainConfig(
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
        max_train_steps=config.max_train_steps,
        checkpointing_steps=CHECKPOINT_EVERY,
        checkpoints_total_limit=None if objective == "lora" else 1,
        seed=config.seed,
        monitor_steps=0,  # the audits say it all, and later
        validation_steps=0,
        run_page=False,
    )


def execute(config: QuickstartConfig, runs: dict[str, TrainConfig], subjects: Iterable[Path]) -> None:
    """Train the runs, longest wait first, and measure each subject as soon as its run is complete."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = config.workers or (1 if choose_device(config.device).type != "cpu" else min(cores, MOST_WORKERS))
    threads = max(1, cores // workers)
    os.environ |= {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}  # inherited by the workers
    todo = list(subjects)
    with (
        ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=start_worker, initargs=(threads,)
        ) as pool,
        bar(len(runs) * config.max_train_steps + MEASURING * len(todo), "quickstart", unit="step") as display,
    ):
        pending: set[Future[Any]] = {pool.submit(train, run, progress=False) for run in runs.values()}
        measured = 0
        try:
            while pending:
                finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    pending.remove(future)
                    result = future.result()
                    if isinstance(result, Measured):
                        display.write(result.sentence, file=display.fp)
                        measured += MEASURING
                        continue
                    for subject in [s for s in todo if result in (s, *s.parents)]:
                        pending.add(pool.submit(measure, subject, config))
                steps = {name: latest_step(run) for name, run in runs.items()}
                display.set_postfix(
                    {n: f"{s}/{config.max_train_steps}" for n, s in steps.items() if 0 < s < config.max_train_steps},
                    refresh=False,
                )
                display.update(sum(steps.values()) + measured - display.n)
        except BaseException as error:
            for worker in active_children():  # what they do can be resumed
                worker.terminate()
            if isinstance(error, BrokenProcessPool):
                text = "a worker process was killed, perhaps for lack of memory; run the same command with --workers 1"
                raise TrainingError(text) from error
            raise


def start_worker(threads: int) -> None:
    """Set the threads of a worker process, and end it when its parent is killed: it would train on, unseen."""
    if offline.wanted():
        offline.block()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends us
    parent = parent_process()

    def watch() -> None:
        while parent is not None and os.getppid() == parent.pid:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def latest_step(run: TrainConfig) -> int:
    """How far a run is, read from its metrics."""
    rows = RunFolder(Path(run.output_dir)).metrics()
    return int(rows[-1]["step"]) if rows else 0


def measure(folder: Path, config: QuickstartConfig) -> Measured:
    """Audit and evaluate one adapter, unless that was done: for this very adapter, split and settings."""
    common = {"adapter": str(folder), "seed": config.seed, "device": config.device, **shared(config, CacheOptions)}
    auditing = AuditConfig(**common, noise_pairs=NOISE_PAIRS)
    evaluating = EvaluateConfig(**common, num_images=config.num_images)
    sha256 = find_subject(str(folder)).adapter_sha256
    seal = read_json(Path(config.output_dir) / MANIFEST)["seal"]
    content = _read(folder / "audit" / "audit.json")
    settings = audit_settings(auditing)
    if not (
        content.get("format") == FORMAT
        and _is_of(content, sha256, content.get("split", {}).get("seal") == seal)
        and _holds(content["settings"], settings)
    ):
        content = audit(auditing, progress=False)
    quality = _read(folder / "quality" / "quality.json")
    if content["split"]["cells"]["reference"] and not (
        _is_of(quality, sha256, quality.get("seal") == seal) and _holds(quality, evaluation_settings(evaluating))
    ):
        evaluate(evaluating, progress=False)
    return Measured(folder, f"{content['subject']['label']}: {content['verdict']['sentence']}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (OSError, ValueError):
        return {}


def _is_of(content: dict[str, Any], adapter_sha256: str, same_split: bool) -> bool:
    return same_split and content.get("subject", {}).get("adapter_sha256") == adapter_sha256


def _holds(content: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(content.get(name) == value for name, value in wanted.items())
