"""make bench-check: what grows beyond its tolerance fails; every number that it reads is in the committed results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark_scripts import BENCHMARKS, SCRIPTS, load
from smplora.core.files import write_json
from smplora.core.reading import read_json

check = load("bench_check", SCRIPTS)


def test_every_number_is_in_the_committed_results() -> None:
    for row in check.ROWS.values():
        record = read_json(BENCHMARKS / "results" / f"{row.file}.json")
        assert all(check.value(record, way) > 0 for way in row.keys)


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.25, 0), (1.4, 1), (0.5, 0)])
def test_worse_than_the_tolerance_fails(
    factor: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the row complete_run, 30 %; a smaller number is never worse."""

    def measure(words: list[Any], **_: object) -> None:
        assert words[:2] == [sys.executable, BENCHMARKS / "complete_run.py"]
        record = read_json(BENCHMARKS / "results" / "complete_run.json")
        first = record["command_to_import_torch"][0]
        margin = 0.3 * max(first, 0.5) * (factor - 1) / 0.3
        record["command_to_import_torch"][0] = first + margin
        write_json(Path(words[words.index("--results") + 1]) / "complete_run.json", record)

    monkeypatch.setattr(subprocess, "run", measure)
    assert check.main(["--rows", "complete_run"]) == status
    assert ("WORSE" in capsys.readouterr().out) == bool(status)
