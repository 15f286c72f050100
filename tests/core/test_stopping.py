"""A stop that a library swallows is a stop all the same."""

from __future__ import annotations

import os
import signal

import pytest

from smplora.cli.main import main
from smplora.core.errors import CheckpointError
from smplora.core.stopping import Stopped, heard, raise_stopped


@pytest.fixture
def handled() -> object:
    before = signal.signal(signal.SIGTERM, raise_stopped)
    yield
    signal.signal(signal.SIGTERM, before)


def swallowed(*_: object) -> None:
    """A stop comes while a library reads a file; what it makes of the exception says nothing of it."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Stopped:
        raise CheckpointError("the file cannot be read") from None


@pytest.mark.usefixtures("handled")
def test_an_error_after_a_stop_is_the_stop() -> None:
    with pytest.raises(Stopped) as caught, heard():
        swallowed()
    assert caught.value.number == signal.SIGTERM
    with pytest.raises(CheckpointError), heard():
        raise CheckpointError("the next command knows nothing of it")


@pytest.mark.usefixtures("handled")
def test_through_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("smplora.cli.main.import_module", lambda _: type("Module", (), {"cache": swallowed}))
    assert main(["cache"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "smplora: stopped; run the same command again to resume\n"
