"""Documents name tests and files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from smplora.data.split import CELLS

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    local = [t for t in targets if not t.startswith(("http", "mailto"))]
    assert not [t for t in local if not (path.parent / t).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_named_tests_exist(path: Path) -> None:
    defined = {
        name
        for test in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", test.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", path.read_text()))
    assert not named - defined - set(CELLS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_named_files_of_tests_exist(path: Path) -> None:
    named = set(re.findall(r"`(tests/[\w/.-]+)`", path.read_text()))
    assert not [name for name in named if not (REPOSITORY / name).exists()]
    assert named or path.name != "security.md"


def test_every_promise_of_security_has_tests() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text()
    promises = page.partition("## What is promised")[2].partition("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert not [row for row in rows if "`tests/" not in row.split("|")[2]]


def test_the_tables_of_the_formats_are_those_of_the_code() -> None:
    program = [sys.executable, str(REPOSITORY / "scripts" / "write_formats.py"), "--check"]
    assert subprocess.run(program, check=False).returncode == 0, "run python scripts/write_formats.py"
