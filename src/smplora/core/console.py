"""Progress bars on standard error with rate and time left; a line now and then where there is no terminal."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from tqdm import tqdm

from smplora.core.errors import readable

QUIET_S = 3.0
MOST_THREADS, AHEAD = 8, 4
Item = TypeVar("Item")
Result = TypeVar("Result")


def progress(items: Sequence[Item], title: str, unit: str) -> Iterable[Item]:
    """``items`` with a bar that appears when they take more than a few seconds, and is gone when they are through."""
    return cast(
        Iterable[Item],
        tqdm(
            items,
            desc=readable(title),
            unit=unit,
            leave=False,
            file=sys.stderr,
            delay=QUIET_S,
            mininterval=_interval_s(),
            dynamic_ncols=True,
        ),
    )


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str, unit: str) -> Iterator[Result]:
    """``function`` of each item in order, with a bar, computed a few items ahead by threads: reading and decoding
    pictures leaves Python's lock."""
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    try:
        ahead = deque(pool.submit(function, item) for item in items[: AHEAD * threads])
        for k in progress(range(len(items)), title, unit):
            if k + AHEAD * threads < len(items):
                ahead.append(pool.submit(function, items[k + AHEAD * threads]))
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


_SAID: set[str] = set()
_FIRST: list[str] = []
_LEFT_TO_PARENT = False


def say_once(text: str) -> None:
    """As ``say``, but only the first time in a command, of several processes by the first, and one line whatever is
    quoted."""
    text = text.replace("\n", "\\n")
    if text not in _SAID and not _LEFT_TO_PARENT and os.environ.get("RANK", "0") == "0":
        _SAID.add(text)
        say(text)


def say_first(text: str) -> None:
    """Say it, once in a command, before whatever is said next; where that is an error, it stands alone."""
    if text not in _SAID and not _LEFT_TO_PARENT and os.environ.get("RANK", "0") == "0":
        _SAID.add(text)
        _FIRST.append(text)


def leave_saying_to_the_parent() -> None:
    """In a worker process: what is said once in a command, its parent says."""
    global _LEFT_TO_PARENT
    _LEFT_TO_PARENT = True


def forget_what_was_said() -> None:
    """A new command begins."""
    _SAID.clear()
    _FIRST.clear()


def _interval_s() -> float:
    return 0.1 if sys.stderr.isatty() else 10.0


def bar(
    total: int | None, title: str, *, unit: str = "step", initial: int = 0, show: bool = True, leave: bool = True
) -> Any:
    """A bar of ``total`` units, or of nobody knows how many, used as a context manager; it stays unless ``leave`` is
    False."""
    return tqdm(
        total=total,
        leave=leave,
        desc=readable(title),
        unit=unit,
        initial=initial,
        disable=not show,
        file=sys.stderr,
        mininterval=_interval_s(),
        dynamic_ncols=True,
    )


def say(text: str) -> None:
    """A line for the user, on standard error: standard output is for results. What it quotes cannot take over the
    terminal or begin another line (errors.readable)."""
    while _FIRST:
        print(readable(_FIRST.pop(0)), file=sys.stderr)
    print(readable(text), file=sys.stderr, flush=True)
