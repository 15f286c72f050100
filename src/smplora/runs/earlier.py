"""Results that a command replaces: what differs from the new one is kept beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smplora.core.console import say_once
from smplora.core.files import PRIVATE
from smplora.core.reading import read_json
from smplora.runs.subject import PROOFS, RESULT_FILES

EARLIER = "earlier"  # in the folder of an audit or evaluation: 1, 2, ..
OF_THE_RUN = ("elapsed_s", "environment")  # what differs when the same is measured again


@contextmanager
def keeping_earlier(folder: Path, name: str) -> Iterator[None]:
    """Inside, a result in ``folder`` may be replaced. The one before stays in ``folder/earlier/N``, and that is said,
    unless the new one says the same.

    Args:
        name: of the kind of result, "audit", "quality" or "properties".
    """
    record = folder / PROOFS[name][0]
    before = _content(record)
    kept = _copy(folder, name) if before is not None else None
    try:
        yield
    finally:
        if kept is not None:
            if _content(record) == before:
                shutil.rmtree(kept)
                _remove_if_empty(kept.parent)
            else:
                say_once(f"{record} was there with other options or of another adapter: it is kept in {kept}")


def _content(record: Path) -> dict[str, Any] | None:
    try:
        content = read_json(record)
    except (OSError, ValueError):
        return None
    named = content.items() if isinstance(content, dict) else ()
    return {key: value for key, value in named if key not in OF_THE_RUN} or None


def _copy(folder: Path, name: str) -> Path:
    numbers = [int(path.name) for path in (folder / EARLIER).glob("*") if path.name.isdigit()]
    place = folder / EARLIER / str(max(numbers, default=0) + 1)
    place.mkdir(mode=PRIVATE, parents=True)
    (folder / EARLIER).chmod(PRIVATE)
    for file in RESULT_FILES[name]:
        if (folder / file).is_file():
            shutil.copyfile(folder / file, place / file)
            (place / file).chmod(0o600)
    return place


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
