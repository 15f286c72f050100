"""Programs and commands in processes of their own, forked from one that has imported everything: a start takes
milliseconds in place of seconds. What is started is a process like any other: it has its own standard output and error,
environment and exit status, and can be killed.

What they are forked from is itself a fork of this process, made before the first test, so that no test can change it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from typing import IO, Any

COMMAND = "from smplora.cli.main import entry_point; entry_point()"
PRELOADED = ("smplora.experiments.quickstart", "smplora.cli.commands", "peft")


class Process:
    """A process that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status; minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask({"wait": self.pid, "block": False})
        return self.returncode

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        if self.returncode is None:
            self.returncode = _ask({"wait": self.pid, "block": True})
        return int(self.returncode or 0)

    def kill(self) -> None:
        """With SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


def start(
    *arguments: str,
    program: str = COMMAND,
    env: Mapping[str, str] | None = None,
    stdout: IO[Any] | None = None,
    stderr: IO[Any] | None = None,
) -> Process:
    """Start ``smplora`` with these arguments, or another Python program.

    Args:
        env: its environment; without it this process's.
        stdout, stderr: open files; without them nothing is kept.
    """
    environment = dict(os.environ if env is None else env)
    with open(os.devnull, "w") as nothing:
        handles = [(handle or nothing).fileno() for handle in (stdout, stderr)]
        return Process(_ask({"program": program, "arguments": arguments, "environment": environment}, handles))


def run(
    *arguments: str, program: str = COMMAND, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``start`` and wait; as ``subprocess.run`` with its output captured."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        status = start(*arguments, program=program, env=env, stdout=out, stderr=err).wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([program, *arguments], status, out.read(), err.read())


def _ask(request: dict[str, Any], handles: list[int] | None = None) -> Any:
    connection = _server()
    content = json.dumps(request).encode()
    socket.send_fds(connection, [len(content).to_bytes(4, "big")], handles or [])
    connection.sendall(content)
    answer = connection.recv(100)
    return json.loads(answer) if answer else None


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            os.setsid()
            serve(theirs)
        finally:
            os._exit(1)
    theirs.close()
    atexit.register(os.waitpid, pid, 0)
    atexit.register(ours.close)
    return ours


def start_server() -> None:
    """Now, and not when the first process is started."""
    _server()


@cache
def _everything() -> None:
    """Imported, and workers of a command are forked too."""
    for name in PRELOADED:
        import_module(name)
    from smplora.core import parallel

    parallel.get_context = lambda method: get_context("fork")


def serve(connection: socket.socket) -> None:
    """Fork what is asked for until the other end is closed."""
    while True:
        header, handles, _, _ = socket.recv_fds(connection, 4, 2)
        if not header:
            os._exit(0)
        length, content = int.from_bytes(header, "big"), b""
        while len(content) < length:
            content += connection.recv(length - len(content))
        request = json.loads(content)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], 0 if request["block"] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            _everything()
            answer = os.fork()
            if answer == 0:
                connection.close()
                _become(request, handles)
            for handle in handles:
                os.close(handle)
        connection.sendall(json.dumps(answer).encode())


def _become(request: dict[str, Any], handles: list[int]) -> None:
    """Run the program of a request in this process, which ends with it."""
    for target, handle in enumerate(handles, 1):
        os.dup2(handle, target)
        os.close(handle)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):  # they are pytest's
        errors = "backslashreplace" if name == "stderr" else None
        stream = os.fdopen(number, mode, 1, encoding="utf-8", errors=errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    os.environ.clear()
    os.environ.update(request["environment"])
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = os.environ.get("HF_HUB_OFFLINE") == "1"
    sys.argv = ["smplora", *request["arguments"]]
    status: Any = 0
    try:
        exec(compile(request["program"], "<program>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as ended:
        status = ended.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(status or 0))
