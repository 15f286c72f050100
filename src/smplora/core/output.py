"""Folders that commands write in: private, and held by one process at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smplora.core.console import say
from smplora.core.errors import ConfigError
from smplora.core.files import LOCK, PRIVATE, UNFINISHED
from smplora.core.lock import HeldError, lock

OTHERS = 0o077  # permissions of everybody but the owner


@contextmanager
def private_files() -> Iterator[None]:
    """Inside, whatever this process and those that it starts write is readable by its owner alone, libraries' files
    among it."""
    before = os.umask(OTHERS)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def output_folder(folder: Path, ours: Iterable[str] | None = (), option: str = "output_dir") -> Iterator[None]:
    """Make ``folder``, private where nothing else is in it. Inside, no other process can write there in this way; a
    kill ends that.

    Args:
        ours: names of files and folders in it that are smplora's; None where all of them are.
        option: that says where it is.

    Raises:
        ConfigError: another process writes there.
        OSError: it cannot be written.
    """
    new = not folder.exists()
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    try:
        with lock(folder / LOCK):
            if not new:
                _make_private(folder, ours)
            yield
    except HeldError as error:
        process = f"process {error.pid}" if error.pid else "it"
        raise ConfigError(
            f"--{option} '{folder}' is being written in by another process; wait for {process} or stop it, or give "
            "another folder"
        ) from error


def _make_private(folder: Path, ours: Iterable[str] | None) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name != "posix" or not mode & OTHERS:
        return
    theirs = [p.name for p in folder.iterdir() if not p.name.startswith(UNFINISHED) and p.name not in (ours or ())]
    if ours is None or not theirs:
        with suppress(OSError):  # another user's, or on a file system without permissions
            folder.chmod(PRIVATE)
            say(f"'{folder}' could be entered by others; it is now private")
            return
    say(
        f"'{folder}' can be entered by others{' and holds other files' * bool(theirs)}: its permissions stay as they "
        "are, what smplora writes there is readable by you alone; chmod 700 makes all of it private"
    )
