"""What Windows and macOS lack, taken away here."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from pathlib import Path

import pytest

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.core import files, lock, parallel
from smplora.core.files import write_atomically
from smplora.experiments.tasks import task


def test_the_lock_is_imported_without_fcntl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("lock_of_windows", str(lock.__file__))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.fcntl is None
    with module.lock(tmp_path / "x"):
        assert (tmp_path / "x").read_text() == str(os.getpid())


def test_no_open_file_is_renamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class OfWindows:
        name = "nt"

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def replace(self, source: str, target: Path) -> None:
            assert str(source) not in opened()
            os.replace(source, target)

    monkeypatch.setattr(files, "os", OfWindows())
    write_atomically(tmp_path / "x", "1")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def opened() -> set[str]:
    """Names of the files that this process has open."""
    links = Path("/proc/self/fd").iterdir()
    return {os.readlink(link) for link in links if os.path.lexists(link)}


@pytest.mark.parametrize("options", [TrainConfig(), AuditConfig(), EvaluateConfig()])
def test_work_can_be_sent_to_a_process_that_was_not_forked(options: TrainConfig | AuditConfig | EvaluateConfig) -> None:
    work = task("one", options).work
    assert pickle.loads(pickle.dumps(work.run)) is work.run
    assert pickle.loads(pickle.dumps(options)) == options
    assert pickle.loads(pickle.dumps(parallel.start_worker)) is parallel.start_worker


def test_only_linux_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = []
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", _NoPool)
    real = parallel.get_context
    monkeypatch.setattr(parallel, "get_context", lambda method: methods.append(method) or real(method))
    for system in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        with parallel.pool(1, "cpu", ["smplora.core.parallel"]):
            pass
    assert methods == ["forkserver", "spawn", "spawn"]


class _NoPool:
    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> _NoPool:
        return self

    def __exit__(self, *_: object) -> None: ...
