"""Atomic file writing: a reader, also after a kill, sees the old file or the new one, never half of either."""

from __future__ import annotations

import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

PACKAGE = Path(str(files("smplora")))  # not beside this file: files move
ASSETS = PACKAGE / "assets"
UNFINISHED = ".smplora-"  # how the names of files begin that a kill left half-written


def write_atomically(path: Path, content: str | bytes, *, flush: bool = True) -> None:
    """Write ``content`` to ``path`` through a temporary file in the same folder, flushed to disk, then renamed.

    Without ``flush`` a power failure, not a kill, may leave an empty file: for what is checked on reading.

    Raises:
        OSError: no space, no permission, no such folder; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused, so that every reader can parse the file."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
