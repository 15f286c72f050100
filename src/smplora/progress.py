"""Progress bars on standard error with rate and time left; a line now and then where there is no terminal."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(total: int, title: str, *, unit: str = "step", initial: int = 0, show: bool = True) -> Any:
    """A bar of ``total`` units, used as a context manager."""
    quiet_s = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        initial=initial,
        disable=not show,
        file=sys.stderr,
        mininterval=quiet_s,
        dynamic_ncols=True,
    )
