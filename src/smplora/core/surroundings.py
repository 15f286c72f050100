"""What a process was started with may lack: streams that are closed or know few letters, a home folder."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def settle_streams() -> None:
    """Make standard output and error usable whatever they are: a letter that they do not know is shown escaped. Where
    one is closed, nothing that is opened later may take its number and be written into by a library."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
        elif mode == "w" and hasattr(stream, "reconfigure"):
            with suppress(OSError):  # what is already waiting to be written cannot be
                stream.reconfigure(errors="backslashreplace")


def flush_streams() -> None:
    """Write what is waiting in standard output and error.

    Raises:
        OSError: that cannot be done; ``BrokenPipeError`` where nobody reads it.
    """
    sys.stdout.flush()
    sys.stderr.flush()


def leave_broken_streams() -> None:
    """Lead nowhere what can no longer be written to: at the end of the process Python would complain about it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):  # not a file of the operating system's
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def home() -> Path | None:
    """The user's home folder; None where nobody says which it is: HOME is not set or empty, as in some containers, and
    the user has no entry in the list of users."""
    if os.environ.get("HOME") == "":
        return None
    folder = os.path.expanduser("~")
    return Path(folder) if folder != "~" else None


def real(path: str | Path) -> Path:
    """``path`` from the root, its links followed; where they lead in a circle, as far as can be."""
    return Path(os.path.realpath(path))


def expanded(path: str) -> Path:
    """``path`` with ~ resolved; as it is where that cannot be done."""
    return Path(os.path.expanduser(path))
