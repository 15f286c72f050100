"""Progress bars on standard error with rate and time left; a line now and then where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

from tqdm import tqdm

QUIET_S = 3.0
Item = TypeVar("Item")


def progress(items: Sequence[Item], title: str, unit: str) -> Iterable[Item]:
    """``items`` with a bar that appears when they take more than a few seconds, and is gone when they are through."""
    return cast(
        Iterable[Item],
        tqdm(
            items,
            desc=title,
            unit=unit,
            leave=False,
            file=sys.stderr,
            delay=QUIET_S,
            mininterval=_interval_s(),
            dynamic_ncols=True,
        ),
    )


def _interval_s() -> float:
    return 0.1 if sys.stderr.isatty() else 10.0


def bar(total: int, title: str, *, unit: str = "step", initial: int = 0, show: bool = True) -> Any:
    """A bar of ``total`` units, used as a context manager."""
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        initial=initial,
        disable=not show,
        file=sys.stderr,
        mininterval=_interval_s(),
        dynamic_ncols=True,
    )
