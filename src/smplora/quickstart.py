"""The whole story in one command: adapt with three objectives, stop one early, attack everything, show it on a page."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from smplora.audit import audit
from smplora.config import AuditConfig, EvaluateConfig, QuickstartConfig, TrainConfig
from smplora.data import read_folder
from smplora.evaluate import evaluate
from smplora.examples import write_private_digits
from smplora.export import ADAPTER_FILE, file_sha256
from smplora.files import read_json
from smplora.models import choose_device, load_model
from smplora.progress import bar
from smplora.report import print_table, summary, write_report
from smplora.run import RunFolder, check_folder, open_folder, say
from smplora.split import MANIFEST, Split, make_split, write_split
from smplora.train import train

CHECKPOINT_EVERY = 100
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
    check_folder(root, config)
    split = private_split(config)
    choose_device(config.device)
    load_model(config.pretrained_model_name_or_path, torch.device("cpu"))
    open_folder(root, config)
    images = config.train_data_dir or str(write_private_digits(root / "images"))
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


def private_split(config: QuickstartConfig) -> Split:
    """The cells; whatever is wrong with images or sizes is said here, before anything is written to the output."""
    if config.train_data_dir:
        return make_split(read_folder(config), config)
    with TemporaryDirectory() as folder:
        return make_split(read_folder(replace(config, train_data_dir=str(write_private_digits(Path(folder))))), config)


def training(config: QuickstartConfig, objective: str, images: str, root: Path) -> TrainConfig:
    """The options of one of the runs: one configuration for all, but for objective and lambda."""
    return TrainConfig(
        pretrained_model_name_or_path=config.pretrained_model_name_or_path,
        device=config.device,
        train_data_dir=images,
        caption_column=config.caption_column,
        default_caption=config.default_caption,
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
    )


def execute(config: QuickstartConfig, runs: dict[str, TrainConfig], subjects: Iterable[Path]) -> None:
    """Train the runs, longest wait first, and measure each subject as soon as its run is complete."""
    cores = os.cpu_count() or 1
    workers = config.workers or (1 if choose_device(config.device).type != "cpu" else min(cores, MOST_WORKERS))
    threads = max(1, cores // workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # inherited by the workers
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
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def start_worker(threads: int) -> None:
    """Set the threads of a worker process, and end it when its parent is killed: it would train on, unseen."""
    torch.set_num_threads(threads)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def latest_step(run: TrainConfig) -> int:
    """How far a run is, read from its metrics."""
    rows = RunFolder(Path(run.output_dir)).metrics()
    return int(rows[-1]["step"]) if rows else 0


def measure(folder: Path, config: QuickstartConfig) -> Measured:
    """Audit and evaluate one adapter, unless that was done for this very adapter."""
    sha256 = file_sha256(folder / ADAPTER_FILE)
    if not _is_of(folder / "audit" / "audit.json", sha256):
        audit(
            AuditConfig(adapter=str(folder), noise_pairs=NOISE_PAIRS, seed=config.seed, device=config.device),
            progress=False,
        )
    content = read_json(folder / "audit" / "audit.json")
    if content["split"]["cells"]["reference"] and not _is_of(folder / "quality" / "quality.json", sha256):
        evaluate(
            EvaluateConfig(adapter=str(folder), num_images=config.num_images, seed=config.seed, device=config.device),
            progress=False,
        )
    return Measured(folder, f"{content['subject']['label']}: {content['verdict']['sentence']}")


def _is_of(path: Path, adapter_sha256: str) -> bool:
    try:
        return bool(read_json(path)["subject"]["adapter_sha256"] == adapter_sha256)
    except (OSError, ValueError, KeyError):
        return False
