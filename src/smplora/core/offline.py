"""The network stays quiet. The hub's clients are told not to go out unless a command asked for it: they look hosts up
even for files that are in the local cache, and say who they are.

``--offline``: every use of the network is an error that names who wanted it. On by SMPLORA_OFFLINE=1 too, so that
processes that a command starts inherit it.

Python's sockets are blocked except on this machine (loopback, Unix sockets); what libraries do below Python is told by
their own switches not to go out. Processes that train together talk through torch's own sockets and are not affected.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from smplora.core.errors import UserError
from smplora.core.files import PACKAGE

VARIABLE = "SMPLORA_OFFLINE"
TELEMETRY = "HF_HUB_DISABLE_TELEMETRY"
HUB_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
READ_ON_IMPORT = (  # module, name there, variables of which one is enough: what a library read when it was imported
    ("huggingface_hub.constants", "HF_HUB_OFFLINE", ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
    ("huggingface_hub.constants", "HF_HUB_DISABLE_TELEMETRY", (TELEMETRY, "DISABLE_TELEMETRY", "DO_NOT_TRACK")),
    ("datasets.config", "HF_HUB_OFFLINE", ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")),
)
ON = ("1", "true", "yes", "on")
_CONNECTING = ("connect", "connect_ex", "sendto")
_RESOLVING = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")


class OfflineError(UserError, ConnectionError):
    """Something wanted the network. Also a ConnectionError: libraries that can do without go on."""


def is_offline() -> bool:
    """Whether the surroundings ask for it."""
    return os.environ.get(VARIABLE, "").lower() in ON


def block() -> None:
    """Block the network for the rest of this process and the processes that it starts. Twice is once."""
    os.environ.update(dict.fromkeys((VARIABLE, TELEMETRY, *HUB_SWITCHES), "1"))
    tell_imported()
    for name in _CONNECTING:
        _guard(socket.socket, name, _peer)
    for name in _RESOLVING:
        _guard(socket, name, _host)


@contextmanager
def hub(asked: bool) -> Iterator[None]:
    """Inside, the hub's clients do not go out, in this process and those that it starts, unless ``asked``; they never
    send who asks. What was set before, by a variable or in a library, is set again afterwards."""
    switches = (TELEMETRY, *(() if asked else HUB_SWITCHES))
    variables = {name: os.environ.get(name) for name in switches}
    values = {(m, name): getattr(sys.modules[m], name) for m, name, _ in READ_ON_IMPORT if m in sys.modules}
    os.environ.update(dict.fromkeys(switches, "1"))
    tell_imported(switches)
    try:
        yield
    finally:
        for name, value in variables.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        tell_imported(switches)
        for (module, name), value in values.items():
            setattr(sys.modules[module], name, value)


def tell_imported(switches: Iterable[str] = (TELEMETRY, *HUB_SWITCHES)) -> None:
    """Libraries that were imported before one of these variables was set, or unset, obey it too."""
    for module, name, variables in READ_ON_IMPORT:
        if module in sys.modules and set(variables) & set(switches):
            setattr(sys.modules[module], name, any(os.environ.get(v, "").lower() in ON for v in variables))


@contextmanager
def named() -> Iterator[None]:
    """Inside, an error that comes from the blocked network is raised as such, whatever a library made of it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OfflineError):
            if is_offline() and type(cause).__name__ == "OfflineModeIsEnabled":  # the hub's client, which looked itself
                raise OfflineError(f"--offline: huggingface_hub wanted the network ({cause})") from error
            cause = cause.__cause__ or cause.__context__
        if cause is None or cause is error:
            raise
        raise cause from None


def _peer(own: socket.socket, *rest: Any) -> Any:
    """The host of ``connect(address)`` or ``sendto(data, address)``; None for families that stay on the machine."""
    return rest[-1][0] if own.family in (socket.AF_INET, socket.AF_INET6) else None


def _host(host: Any = None, *_: Any, **__: Any) -> Any:
    return host


def _guard(owner: Any, name: str, target: Callable[..., Any]) -> None:
    real = getattr(owner, name)
    if hasattr(real, "guards"):
        return

    @wraps(real)
    def guarded(*arguments: Any, **options: Any) -> Any:
        host = target(*arguments, **options)
        if not _here(host):
            raise OfflineError(f"--offline: {_asker()} wanted the network ({_shown(host)}); nothing was sent")
        return real(*arguments, **options)

    guarded.guards = real  # type: ignore[attr-defined]
    setattr(owner, name, guarded)


def _here(host: Any) -> bool:
    """Whether a host is this machine."""
    name = _shown(host)
    if name in ("", "localhost", "None", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _shown(host: Any) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes) else str(host)


def _asker() -> str:
    """Who wanted it, as "package (file:line)": what smplora called, or else the code next to the socket."""
    frames = [(Path(f.filename), f.lineno) for f in traceback.extract_stack() if Path(f.filename) != Path(__file__)]
    ours = [i for i, (path, _) in enumerate(frames) if path.is_relative_to(PACKAGE)]
    outside = [frame for frame in frames[ours[-1] + 1 if ours else 0 :] if _is_library(frame[0])]
    if not outside:
        return "smplora" if ours else "Python"
    path, line = outside[0] if ours else outside[-1]
    parts = path.parts
    package = parts[parts.index("site-packages") + 1] if "site-packages" in parts else path.stem
    return f"{package} ({path.name}:{line})"


def _is_library(path: Path) -> bool:
    """Neither the standard library nor code without a file."""
    return "site-packages" in path.parts or not (
        path.is_relative_to(Path(os.__file__).parent) or path.name.startswith("<")
    )
