"""Locks on files that die with their process: what a kill leaves behind locks nothing."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None  # type: ignore[assignment]

REFUSED = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # what says that another process has it
WAIT_S = 0.5  # between looks
FAR = 2**30  # the byte that is locked on Windows: what stands before it can be read by others
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class HeldError(Exception):
    """Another process has a lock; ``pid`` is its number where it is known."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"held by process {pid or 'unknown'}")
        self.pid = pid


def try_lock(handle: int) -> bool:
    """Lock an open file until it is closed, or its process ends; False where another process has it. A file system that
    locks nothing is trusted."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            os.lseek(handle, FAR, os.SEEK_SET)
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(handle, 0, os.SEEK_SET)
    except OSError as error:
        return error.errno not in REFUSED
    return True


@contextmanager
def waiting_lock(path: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """As ``lock``, but where another process has it, wait until it has not; ``on_wait`` is called once."""
    said = False
    while True:
        try:
            handle = _acquired(path)
            break
        except HeldError:
            if not said:
                on_wait()
            said = True
            time.sleep(WAIT_S)
    with _held(handle, path):
        yield


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Inside, this process has the lock that is the file ``path``; a link is not followed. The file goes with it.

    Raises:
        HeldError: another process has it.
        OSError: the file cannot be made.
    """
    with _held(_acquired(path), path):
        yield


@contextmanager
def _held(handle: int, path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            path.unlink()  # still locked: whoever has opened it by now looks whether it is there
        os.close(handle)


def _acquired(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o600)
        try:
            if not try_lock(handle):
                holder = os.read(handle, 20).decode("ascii", "replace")
                raise HeldError(int(holder) if holder.isdecimal() else None)
            if _is_there(handle, path):
                os.truncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner had it removed meanwhile


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
