"""A run folder: resolved configuration, environment, split, metrics, checkpoints, adapter; DONE.json comes last.

docs/formats.md describes the files.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from smplora import __version__
from smplora.config import TrainConfig
from smplora.errors import CheckpointError, ConfigError, listing
from smplora.export import ADAPTER_FILE
from smplora.files import UNFINISHED, read_json, write_atomically, write_json
from smplora.objectives import TITLES

CONFIG, ENVIRONMENT, METRICS, DONE, STATE = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "DONE.json",
    "state.json",
)
LOCK = f"{UNFINISHED}lock"
PRINTED_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "scikit-learn",
    "torchmetrics",
)
# options that do not change what is computed, so that they may differ when a run is resumed
FREE_OPTIONS = {"json", "device", "report_to", "resume_from_checkpoint", "checkpoints_total_limit", "workers"}

Options = TypeVar("Options")


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        "smplora": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PRINTED_LIBRARIES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resumed run needs: tensors by file, and the step."""

    step: int
    tensors: dict[str, dict[str, Tensor]]


class RunFolder:
    """One training run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def open(self, config: TrainConfig) -> None:
        """Make the folder and note configuration and environment.

        Raises:
            OSError: it cannot be written.
        """
        open_folder(self.path, config)
        self.checkpoints.mkdir(exist_ok=True)
        for unfinished in self.checkpoints.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        write_json(self.path / ENVIRONMENT, environment())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process can train here; a kill releases the lock.

        Raises:
            ConfigError: another process does.
        """
        if fcntl is None:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                text = f"--output_dir '{self.path}' is being trained in by another process; wait for it or stop it"
                raise ConfigError(text) from error
            yield
        (self.path / LOCK).unlink(missing_ok=True)

    @property
    def done(self) -> dict[str, Any] | None:
        """The content of DONE.json, or None."""
        return read_json(self.path / DONE) if (self.path / DONE).exists() else None

    def save(self, checkpoint: Checkpoint, adapter: bytes, keep: int | None) -> None:
        """Write a checkpoint whole or not at all; then delete all but the ``keep`` newest."""
        final = self.checkpoints / f"checkpoint-{checkpoint.step}"
        temporary = self.checkpoints / f"{UNFINISHED}{final.name}"
        temporary.mkdir()
        try:
            write_atomically(temporary / ADAPTER_FILE, adapter)
            for name, tensors in checkpoint.tensors.items():
                write_atomically(temporary / f"{name}.safetensors", safetensors.torch.save(tensors))
            write_json(temporary / STATE, {"step": checkpoint.step})
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in self.steps()[:-keep] if keep else []:
            shutil.rmtree(self.checkpoints / f"checkpoint-{old}")

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(
            int(p.name.removeprefix("checkpoint-"))
            for p in self.checkpoints.glob("checkpoint-*")
            if (p / STATE).exists()
        )

    def resume(self, which: str) -> Checkpoint | None:
        """The checkpoint to go on from, or None for a fresh start. Later checkpoints and metrics are discarded.

        Raises:
            CheckpointError: no such checkpoint, or a damaged one.
        """
        steps = self.steps()
        if which != "latest":
            if which not in {f"checkpoint-{s}" for s in steps}:
                have = ", ".join(f"checkpoint-{s}" for s in steps) or "none yet"
                raise CheckpointError(
                    f"--resume_from_checkpoint got '{which}'; allowed: latest, or one of this run: {have}"
                )
            wanted = int(which.removeprefix("checkpoint-"))
            for later in (s for s in steps if s > wanted):
                shutil.rmtree(self.checkpoints / f"checkpoint-{later}")
            (self.path / DONE).unlink(missing_ok=True)
            steps = [s for s in steps if s <= wanted]
        step = steps[-1] if steps else 0
        self._forget_metrics_after(step)
        if not steps:
            return None
        folder = self.checkpoints / f"checkpoint-{step}"
        try:
            names = [p.stem for p in folder.glob("*.safetensors") if p.name != ADAPTER_FILE]
            return Checkpoint(
                step, {name: safetensors.torch.load_file(folder / f"{name}.safetensors") for name in names}
            )
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder} is damaged ({error}); delete it to resume from the one before") from error

    def _forget_metrics_after(self, step: int) -> None:
        path = self.path / METRICS
        if path.exists():
            steps = ((line, _step_of(line)) for line in path.read_text().splitlines())
            lines = [line for line, its_step in steps if its_step is not None and its_step <= step]
            write_atomically(path, "".join(f"{line}\n" for line in lines))

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far; a line cut short by a kill is left out."""
        path = self.path / METRICS
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if _step_of(line) is not None]

    def finish(self, step: int, adapter_sha256: str) -> None:
        """Say that the adapter is complete."""
        write_json(self.path / DONE, {"step": step, "adapter_sha256": adapter_sha256})


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def check_folder(folder: Path, config: Any) -> None:
    """See, without writing, whether work with ``config`` can be started in ``folder`` or taken up again.

    Raises:
        ConfigError: it holds work with other settings or something else, or cannot be written.
    """
    if (folder / CONFIG).exists():
        before, now = asdict(read_config(folder, type(config))), asdict(config)
        changes = [
            f"{name} was {before[name]!r}, now {now[name]!r}"
            for name in before
            if name not in FREE_OPTIONS and before[name] != now[name]
        ]
        if changes:
            title = f"--output_dir '{folder}' holds other settings (give another folder, or these settings to resume)"
            raise ConfigError(listing(title, changes))
    elif folder.exists() and (not folder.is_dir() or any(not p.name.startswith(UNFINISHED) for p in folder.iterdir())):
        raise ConfigError(f"--output_dir got '{folder}', which holds something else; give a new or empty folder")
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"--output_dir got '{folder}', which cannot be written; give another folder")


def open_folder(folder: Path, config: Any) -> None:
    """Make the folder and write the resolved configuration, unless it is there.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.glob(f"{UNFINISHED}*"):
        if left_by_a_kill.name != LOCK:
            left_by_a_kill.unlink()
    if not (folder / CONFIG).exists():
        write_atomically(folder / CONFIG, yaml.safe_dump(asdict(config), sort_keys=False))


def read_config(folder: Path, options: type[Options]) -> Options:
    """The configuration in a folder.

    Raises:
        CheckpointError: there is none, or that of another command or version.
    """
    try:
        content = yaml.safe_load((folder / CONFIG).read_text())
        if not isinstance(content, dict) or content.keys() != {f.name for f in fields(options)}:  # type: ignore[arg-type]
            raise ValueError(f"not the options of {options.__name__}")
        return options(**content)
    except OSError as error:
        raise CheckpointError(f"'{folder}' is not a run folder: it has no {CONFIG}") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be used ({error}); was it written by another command or version?"
        ) from error


@dataclass(frozen=True)
class Subject:
    """What is audited: a run's adapter, or that of one of its checkpoints."""

    folder: Path
    run: Path
    config: TrainConfig
    step: int
    max_train_steps: int

    @property
    def label(self) -> str:
        """For people: "LoRA", "LoRA, stopped at step 500"."""
        title = TITLES.get(self.config.objective, self.config.objective)
        return title if self.folder == self.run else f"{title}, stopped at step {self.step}"

    def describe(self, adapter_sha256: str, model: str) -> dict[str, Any]:
        """The "subject" object of audit.json and quality.json."""
        return {
            "label": self.label,
            "objective": self.config.objective,
            "step": self.step,
            "max_train_steps": self.max_train_steps,
            "adapter_sha256": adapter_sha256,
            "model": model,
        }


def find_subject(adapter: str) -> Subject:
    """The subject of ``--adapter``: a run folder, a checkpoint folder, or the adapter file in one of them.

    Raises:
        CheckpointError: neither, or the run is not finished.
    """
    folder = Path(adapter)
    folder = folder.parent if folder.is_file() else folder
    run = folder.parent.parent if folder.name.startswith("checkpoint-") else folder
    config = read_config(run, TrainConfig)
    if folder == run:
        done = RunFolder(run).done
        if done is None:
            raise CheckpointError(
                f"'{run}' is not finished; 'smplora train --config {run / CONFIG}' resumes it, or audit a checkpoint"
            )
        return Subject(folder, run, config, done["step"], done["step"])
    if not (folder / STATE).exists():
        have = ", ".join(f"checkpoint-{s}" for s in RunFolder(run).steps()) or "none"
        raise CheckpointError(f"--adapter got '{folder}', which does not exist; checkpoints of this run: {have}")
    steps = RunFolder(run).done
    return Subject(
        folder, run, config, read_json(folder / STATE)["step"], steps["step"] if steps else config.max_train_steps or 0
    )


def say(text: str) -> None:
    """A line for the user, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)
