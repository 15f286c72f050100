"""Atomic file writing: a reader, also after a kill, sees the old file or the new one, never half of either."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from smplora.core.errors import ConfigError
from smplora.core.lock import NO_FOLLOW, try_lock

PICKLED_ADAPTER = "ask its author for .safetensors, or convert it on a machine that holds nothing of worth"
PICKLED_MODEL = "take the model's .safetensors file, which holds numbers only, or convert it where you trust it"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")  # suffixes of files that may run a program when read
PRIVATE = 0o700  # of folders that we make: only some of what libraries write into them is readable by its owner alone
PACKAGE = Path(str(files("smplora")))  # not beside this file: files move
ASSETS = PACKAGE / "assets"
BUNDLED_MODEL, BUNDLED_FLOW_MODEL = "tiny", "tiny-flow"  # their names for options
BUNDLED_FOLDER = ASSETS / "tiny"
BUNDLED = {  # what is said of them, and their folders in diffusers format
    BUNDLED_MODEL: ("the bundled model", BUNDLED_FOLDER),
    BUNDLED_FLOW_MODEL: ("the bundled flow model", ASSETS / "tiny_flow"),
}
UNFINISHED = ".smplora-"  # how the names of files begin that a kill left half-written
LOCK = f"{UNFINISHED}lock"  # in a folder that a process writes in (lock.py)
LEFTOVER = re.compile(rf"{re.escape(UNFINISHED)}[a-z0-9_]{{8}}")  # the names that ``tempfile`` gives them
SURELY_LOCKED_S, SURELY_LEFT_S = 1.0, 3600.0  # age of a half-written file that its writer has locked, or given up
TIDIED_EVERY_S = 1.0
_tidied: dict[Path, float] = {}  # when leftovers were looked for in a folder


def write_atomically(path: Path, content: str | bytes, *, flush: bool = True) -> None:
    """Write ``content`` to ``path`` through a temporary file in the same folder, flushed to disk, then renamed.

    What an earlier kill left half-written in the folder is removed. Without ``flush`` a power failure, not a kill, may
    leave an empty file: for what is checked on reading, in folders that others tidy.

    Raises:
        OSError: no space, no permission, no such folder; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    if flush and time.monotonic() - _tidied.get(path.parent, -math.inf) > TIDIED_EVERY_S:
        remove_leftovers(path.parent)
        _tidied[path.parent] = time.monotonic()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            try_lock(handle)  # says that its writer lives
            file.write(data)
            file.flush()
            if flush:
                os.fsync(file.fileno())
            if os.name == "posix":
                os.replace(name, path)
        if os.name != "posix":  # Windows renames no open file
            os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete the files in ``folder`` that kills left half-written: by their names ours, and without a living writer."""
    for path in (p for p in folder.iterdir() if LEFTOVER.fullmatch(p.name)):
        with suppress(OSError):  # gone by now, or another user's
            about = path.lstat()
            age = time.time() - about.st_mtime
            if not stat.S_ISREG(about.st_mode) or age < (SURELY_LOCKED_S if os.name == "posix" else SURELY_LEFT_S):
                continue
            handle = os.open(path, os.O_RDWR | NO_FOLLOW)
            try:
                abandoned = try_lock(handle)
            finally:
                os.close(handle)
            if abandoned:
                path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused, so that every reader can parse the file."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_writable(folder: Path) -> None:
    """See whether ``folder`` exists or could be made, and written.

    Raises:
        ConfigError: not so.
    """
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"--output_dir got '{folder}', which cannot be written; give another folder")


def files_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(2**24):
                digest.update(part)
    return digest.hexdigest()


def no_pickle(path: str | None, name: str, way_out: str) -> list[str]:
    """What is given must not be a pickle; seen by its name, before anything is opened."""
    if Path(path or "").suffix.lower() not in PICKLES:
        return []
    return [f"--{name} got '{path}', a pickle, which can run any program when it is read; {way_out}"]
