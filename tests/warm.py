"""Programs and commands in processes of their own, forked from one that has imported everything: a start takes
milliseconds in place of seconds. What is started is a process like any other: it has its own standard output and error,
environment and exit status, and can be killed."""

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
from pathlib import Path
from typing import IO, Any

COMMAND = "from smplora.cli.main import entry_point; entry_point()"
PRELOADED = ("smplora.experiments.quickstart", "smplora.cli.commands", "peft")
NOT_INHERITED = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "SMPLORA_OFFLINE")  # read when a library is imported


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
    environment = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__)), str(theirs.fileno())]
    server = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True)
    theirs.close()
    atexit.register(server.wait)
    atexit.register(ours.close)
    return ours


def serve(connection: socket.socket) -> None:
    """Fork what is asked for until the other end is closed."""
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
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


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
