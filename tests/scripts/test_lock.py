"""requirements.lock: what PyPI hands out, in the versions of constraints.txt, each with a hash."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("lock", REPOSITORY / "scripts" / "lock.py")
assert SPEC
assert SPEC.loader
lock: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lock)
LINES = [line for line in lock.LOCK.read_text().splitlines() if not line.startswith("#")]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_line_has_a_version_and_a_hash() -> None:
    assert len(LINES) > 100
    assert not [line for line in LINES if not re.fullmatch(r"[\w.-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line)]
    names = [plain(line.partition("==")[0]) for line in LINES]
    assert len(set(names)) == len(names)
    assert lock.LOCK.read_text().startswith(lock.HEADER)


def test_its_versions_are_those_of_the_constraints() -> None:
    locked = {plain(n): v for n, v in re.findall(r"^([\w.-]+)==([\w.]+)", "\n".join(LINES), re.MULTILINE)}
    text = (REPOSITORY / "constraints.txt").read_text()
    pinned = {plain(n): v for n, v in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)}
    assert len(pinned) > 30
    assert {name: locked.get(name) for name in pinned} == pinned, "run make lock"


def item(url: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "torch", "version": "2.13.0"}, "download_info": {"url": url, **more}}


def test_what_pip_reports() -> None:
    hashes = {"archive_info": {"hashes": {"sha256": "ab" * 32}}}
    own = item("file:///smplora", dir_info={})
    content = {"install": [own, item(f"{lock.HOST}packages/torch-2.13.0.whl", **hashes)]}
    assert list(lock.entries(content)) == [f"torch==2.13.0 --hash=sha256:{'ab' * 32}\n"]
    for wrong in (item("https://elsewhere/torch.whl", **hashes), item(f"{lock.HOST}torch.whl", archive_info={})):
        with pytest.raises(ValueError, match="would not come from PyPI"):
            list(lock.entries({"install": [wrong]}))
