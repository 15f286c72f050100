"""A run folder: resolved configuration, environment, split, metrics, checkpoints, adapter; DONE.json comes last.

docs/formats.md describes the files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from smplora.config.data import CacheOptions
from smplora.config.exactly import exactly
from smplora.config.monitor import MonitorOptions
from smplora.config.theory import TheoryOptions
from smplora.config.train import TrainConfig
from smplora.core.console import say
from smplora.core.environment import environment
from smplora.core.errors import CheckpointError, ConfigError, listing
from smplora.core.files import LOCK, PRIVATE, UNFINISHED, check_writable, write_atomically, write_json
from smplora.core.output import output_folder
from smplora.core.reading import Unreadable
from smplora.core.yaml_text import as_yaml, read_yaml
from smplora.results.curves import read_rows
from smplora.results.record import read, write
from smplora.results.run import BaseModel, Done
from smplora.runs.checkpoints import STATE, Checkpoint, damage, read_checkpoint, read_state, write_checkpoint

if TYPE_CHECKING:  # torch takes seconds to import, and who only reads the folder needs none
    from smplora.models.diffusion import LatentDiffusion

NOISE_SEED, PRIVACY = "noise_seed", "privacy.json"  # files of the run folder

CONFIG, MODEL, ENVIRONMENT = "config.yaml", "model.json", "environment.json"
METRICS, MONITOR, DONE = "metrics.jsonl", "monitor.jsonl", "DONE.json"
BUDGET, EARLY_STOPPING = "budget.jsonl", "early_stopping.jsonl"  # of --privacy_budget, of --stop_when
GRADIENTS, HESSIAN, THEORY = "gradients.jsonl", "hessian.jsonl", "theory.json"
# options that do not change what is computed, so that they may differ when a run is resumed
FREE_OPTIONS = {
    "allow_download",
    "folder_repeats",  # what it decides is sealed with the split
    "json",
    "output_dir",
    "device",
    "shard_base_model",
    "resume_from_checkpoint",
    "checkpoints_total_limit",
    "workers",
} | {f.name for options in (CacheOptions, MonitorOptions, TheoryOptions) for f in fields(options)}

Options = TypeVar("Options")
Result = TypeVar("Result")


class RunFolder:
    """One training run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def open(self, config: TrainConfig, model: LatentDiffusion) -> None:
        """Make the folder and note configuration, base model and environment.

        Raises:
            CheckpointError: the run was started with another base model.
            OSError: it cannot be written.
        """
        open_folder(self.path, config)
        if (self.path / MODEL).exists():
            self.check_model(model)
        else:
            write(self.path / MODEL, BaseModel(config.pretrained_model_name_or_path, model.digest))
        self.checkpoints.mkdir(mode=PRIVATE, exist_ok=True)
        for unfinished in self.checkpoints.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        write_json(self.path / ENVIRONMENT, environment())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process can train here; a kill releases the lock.

        Raises:
            ConfigError: another process does.
        """
        with output_folder(self.path, None):
            yield

    @property
    def done(self) -> Done | None:
        """The content of DONE.json, or None.

        Raises:
            CheckpointError: it is damaged.
        """
        path = self.path / DONE
        return read(path, Done, "delete it and run 'smplora train'") if path.exists() else None

    def save(self, checkpoint: Checkpoint, publish: Callable[[Path], object], keep: int | None) -> None:
        """Write a checkpoint, with what ``publish`` writes into it, whole or not at all; then delete all but the
        ``keep`` newest."""
        write_checkpoint(checkpoint, publish, self.folder_of(checkpoint.step))
        for old in self.steps()[:-keep] if keep else []:
            self._delete(old)

    def _delete(self, step: int) -> None:
        """Delete a checkpoint; a kill meanwhile leaves none that looks complete."""
        doomed = self.checkpoints / f"{UNFINISHED}deleted-{step}"
        self.folder_of(step).rename(doomed)
        shutil.rmtree(doomed)

    def folder_of(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.checkpoints / f"checkpoint-{step}"

    def set_aside_damaged(self) -> list[str]:
        """Rename the newest checkpoints until one is what was written, those without state.json among them; returns
        what happened, a line each. They are kept for their owner to look at, and not used."""
        lines = []
        steps = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in self.checkpoints.glob("checkpoint-*"))
        for step in sorted((int(name[1]) for name in steps if name), reverse=True):
            folder, problem = self.folder_of(step), damage(self.folder_of(step))
            if problem is None:
                break
            aside = self.checkpoints / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            lines.append(f"{folder} is damaged ({problem}): it is now {aside.name}")
        left = self.steps()
        then = f"the run goes on from checkpoint-{left[-1]}" if left else "no checkpoint is left: the run starts anew"
        return [*lines, then] if lines else []

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        names = (re.fullmatch(r"checkpoint-(\d+)", p.parent.name) for p in self.checkpoints.glob(f"*/{STATE}"))
        return sorted(int(name[1]) for name in names if name)

    def check_resume(self, which: str) -> None:
        """See whether ``--resume_from_checkpoint`` can be followed.

        Raises:
            CheckpointError: no such checkpoint.
        """
        have = [f"checkpoint-{s}" for s in self.steps()]
        if which not in ("latest", *have):
            allowed = ", ".join(have) or "none yet"
            raise CheckpointError(
                f"--resume_from_checkpoint got '{which}'; allowed: latest, or one of this run: {allowed}"
            )

    def check_processes(self, now: int) -> None:
        """See whether the run was started with as many processes: a step would see another batch.

        Raises:
            CheckpointError: it was not.
        """
        steps = self.steps()
        before = now
        for step in reversed(steps):
            with suppress(CheckpointError):  # damaged; it is stepped over
                before = read_state(self.folder_of(step)).num_processes
                break
        if before != now:
            raise CheckpointError(
                f"'{self.path}' was trained by {before} processes, and now there would be {now}; "
                f"resume with --num_processes {before}"
            )

    def rewind(self, which: str) -> None:
        """Discard what came after the checkpoint to go on from: later checkpoints and metrics, and the end."""
        if which == "latest" and self.done is not None:
            return
        if which == "latest":
            for line in self.set_aside_damaged():
                say(line)
        else:
            if problem := damage(self.checkpoints / which):
                raise CheckpointError(f"{self.checkpoints / which} is damaged ({problem}); resume from another one")
            (self.path / DONE).unlink(missing_ok=True)
            for later in (s for s in self.steps() if s > int(which.removeprefix("checkpoint-"))):
                self._delete(later)
        for file in (METRICS, MONITOR, GRADIENTS, HESSIAN, BUDGET, EARLY_STOPPING):
            self._forget_after(max(self.steps(), default=0), self.path / file)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint, or None for a fresh start.

        Raises:
            CheckpointError: it is damaged.
        """
        steps = self.steps()
        return read_checkpoint(self.folder_of(steps[-1])) if steps else None

    def _forget_after(self, step: int, path: Path) -> None:
        if path.exists():
            lines = [line for line, row in self._rows(path) if row["step"] <= step]
            write_atomically(path, "".join(f"{line}\n" for line in lines))

    @staticmethod
    def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
        try:
            return read_rows(path)
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}); mend or delete the file and run this again") from error

    def log(self, row: dict[str, Any], file: str = METRICS) -> None:
        """Append one line to metrics.jsonl or another file of lines."""
        self.log_all([row], file)

    def log_all(self, rows: list[dict[str, Any]], file: str) -> None:
        """Append several lines."""
        with open(self.path / file, "a", encoding="utf-8", opener=private) as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)

    def metrics(self, file: str = METRICS) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl or monitor.jsonl so far; a last line cut short by a kill is left out.

        Raises:
            CheckpointError: another line is damaged.
        """
        return [row for _, row in self._rows(self.path / file)]

    def elapsed(self) -> list[tuple[int, float]]:
        """(step, seconds since the run was started or resumed) of those lines."""
        return [(row["step"], row["elapsed_s"]) for row in self.metrics()]

    def check_model(self, model: LatentDiffusion) -> None:
        """Refuse a base model that is not the one that the run was started with: other weights, settings, tokenizer or
        noise schedule. Runs of version 0.1 know the weights only.

        Raises:
            CheckpointError: it differs.
        """
        before = read(self.path / MODEL, BaseModel, "restore it, or train anew and run this")
        if before.digest not in (model.digest, model.weights_digest):
            raise CheckpointError(
                f"the base model '{before.name}' has other weights, settings or tokenizer than when '{self.path}' was "
                "started; restore them or train anew"
            )

    def publish(self, publish: Callable[[Path], Result]) -> Result:
        """Let ``publish`` write into a temporary folder, then move what it wrote to its place; returns its result."""
        temporary = self.path / f"{UNFINISHED}published"
        temporary.mkdir()
        try:
            result = publish(temporary)
            for entry in temporary.iterdir():
                shutil.rmtree(self.path / entry.name, ignore_errors=True)  # where it is a folder
                os.replace(entry, self.path / entry.name)
            return result
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def finish(self, step: int, adapter_sha256: str) -> None:
        """Say that the adapter is complete."""
        write(self.path / DONE, Done(step, adapter_sha256))


def private(path: str, flags: int) -> int:
    """Opens a file; one that is made thereby is readable by its owner alone."""
    return os.open(path, flags, 0o600)


def check_place(folder: Path) -> None:
    """See, without writing, whether work can be started in ``folder`` or taken up again.

    Raises:
        ConfigError: it holds something else, or cannot be written.
    """
    ours = (folder / CONFIG).exists()
    if (
        not ours
        and folder.exists()
        and (not folder.is_dir() or any(not p.name.startswith(UNFINISHED) for p in folder.iterdir()))
    ):
        raise ConfigError(f"--output_dir got '{folder}', which holds something else; give a new or empty folder")
    check_writable(folder)


def check_settings(folder: Path, config: Any) -> None:
    """Compare ``config`` with the one in ``folder``, if there is one.

    Raises:
        ConfigError: lists the settings that differ.
    """
    if not (folder / CONFIG).exists():
        return
    before, now = asdict(read_config(folder, type(config))), asdict(config)
    names = [name for name in before if name not in FREE_OPTIONS and before[name] != now[name]]
    if names:
        title = f"--output_dir '{folder}' holds other settings (give another folder, or these settings to resume)"
        raise ConfigError(listing(title, [f"{name} was {before[name]!r}, now {now[name]!r}" for name in names]))


def open_folder(folder: Path, config: Any) -> None:
    """Make the folder and write the resolved configuration, unless it is there.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    for left_by_a_kill in folder.glob(f"{UNFINISHED}*"):
        if left_by_a_kill.is_dir():
            shutil.rmtree(left_by_a_kill)
        elif left_by_a_kill.name != LOCK:
            left_by_a_kill.unlink()
    if not (folder / CONFIG).exists():
        write_atomically(folder / CONFIG, as_yaml(asdict(config)))


def read_config(folder: Path, options: type[Options]) -> Options:
    """The configuration in a folder.

    Raises:
        CheckpointError: there is none, or that of another command or version, or values that no option takes.
    """
    path = folder / CONFIG
    try:
        content = read_yaml(path)
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' is not a run folder: it has no {CONFIG}; 'smplora train' makes one"
        ) from error
    except Unreadable as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    config, problems = exactly(options, content)
    if config is None or problems:
        title = f"{path} cannot be used (was it written by another command or version?)"
        raise CheckpointError(listing(title, problems))
    return config
