"""Ctrl-C, and SIGTERM as schedulers send it: training writes a checkpoint before it leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Somebody asked for an end; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Wish:
    """Whether an end was asked for, and by which signal."""

    number: int | None = None

    def grant(self) -> None:
        """Raise ``Stopped`` if it was."""
        if self.number is not None:
            raise Stopped(self.number)


_asked: list[int] = []  # the signals that ``raise_stopped`` heard


def raise_stopped(number: int, frame: FrameType | None) -> None:
    """A handler that ends what is going on."""
    _asked.append(number)
    raise Stopped(number)


@contextmanager
def heard() -> Iterator[None]:
    """Inside, an error that follows a stop is that stop: what a handler raises in the midst of a library may come out
    as an error of the library, such as a file that cannot be read."""
    _asked.clear()
    try:
        yield
    except Exception as error:
        if _asked:
            raise Stopped(_asked[-1]) from error
        raise


@contextmanager
def wish_to_stop(heeded: bool = True) -> Iterator[Wish]:
    """Inside, the first Ctrl-C or SIGTERM is noted and nothing else happens; the second one ends at once.

    Args:
        heeded: whether somebody looks. If not, nothing is changed; nor in worker processes, which their parent ends,
            and outside of the main thread, which alone hears signals.
    """
    wish = Wish()

    def note(number: int, frame: FrameType | None) -> None:
        if wish.number is not None:
            raise Stopped(number)
        wish.number = number

    if not heeded or parent_process() is not None or threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.signal(number, note) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
