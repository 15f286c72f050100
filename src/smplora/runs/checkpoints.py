"""A checkpoint on disk: written whole or not at all, with the SHA-256 of each file, which reading checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from smplora.core.errors import CheckpointError
from smplora.core.files import UNFINISHED, files_sha256, write_atomically
from smplora.results.record import read, write
from smplora.results.run import CheckpointState

if TYPE_CHECKING:
    from torch import Tensor

STATE = "state.json"
STATES = (  # its files of tensors
    "adapter_state", "optimizer", "ema", "scaler", "proxy", "proxy_optimizer", "budget", "early_stopping",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resumed run needs: tensors by file, and the step."""

    step: int
    max_train_steps: int
    num_processes: int
    tensors: dict[str, dict[str, Tensor]]


def write_checkpoint(checkpoint: Checkpoint, publish: Callable[[Path], object], folder: Path) -> None:
    """Write a checkpoint, with what ``publish`` writes into it.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    import safetensors.torch

    temporary = folder.parent / f"{UNFINISHED}{folder.name}"
    temporary.mkdir()
    try:
        publish(temporary)
        for name, tensors in checkpoint.tensors.items():
            write_atomically(temporary / f"{name}.safetensors", safetensors.torch.save(tensors))
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        digests = {path.relative_to(temporary).as_posix(): files_sha256([path]) for path in files}
        state = CheckpointState(checkpoint.step, checkpoint.max_train_steps, checkpoint.num_processes, digests)
        write(temporary / STATE, state)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read_state(folder: Path) -> CheckpointState:
    """What state.json says.

    Raises:
        CheckpointError: it is damaged.
    """
    return read(folder / STATE, CheckpointState, "delete the checkpoint and run this")


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None. Those of version 0.1, which has no digests, must open."""
    try:
        files = read_state(folder).files or {}
        for name, digest in files.items():
            path = folder / name
            if name == "README.md":  # a card is written anew after an audit
                continue
            if path.is_symlink() or not path.is_file() or files_sha256([path]) != digest:
                return f"{name} is not what was written"
        for path in () if files else folder.glob("*.safetensors"):
            with safe_open(path, framework="pt"):
                pass
    except CheckpointError:
        return f"{STATE} cannot be read"
    except (OSError, SafetensorError) as error:
        return f"{getattr(error, 'filename', None) or 'a file'} cannot be read"
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Its tensors; ``damage`` comes first.

    Raises:
        CheckpointError: it cannot be read.
    """
    import safetensors.torch

    try:
        names = [name for name in STATES if (folder / f"{name}.safetensors").exists()]
        tensors = {name: safetensors.torch.load_file(folder / f"{name}.safetensors") for name in names}
        state = read_state(folder)
        return Checkpoint(state.step, state.max_train_steps, state.num_processes, tensors)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); delete it to resume from the one before") from error
