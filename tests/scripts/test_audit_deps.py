"""Licences and vulnerabilities of what smplora stands on: what is not known is no pass."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "audit_deps.py"
SPEC = importlib.util.spec_from_file_location("audit_deps", SCRIPT)
assert SPEC
assert SPEC.loader
audit_deps: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit_deps)
OSI, EXCEPTION = "License :: OSI Approved ::", "GPL-2.0-only WITH Classpath-exception-2.0"
RULES = tomllib.loads(audit_deps.LIST.read_text(encoding="utf-8"))


def described(**headers: Any) -> Message:
    metadata = Message()
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            metadata[name.replace("_", "-")] = value
    return metadata


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (described(License_Expression="MIT"), None),
        (described(License_Expression="Apache-2.0 AND (GPL-3.0-only OR BSD-2-Clause)"), None),
        (described(License_Expression="Apache-2.0 WITH LLVM-exception"), None),
        (described(License_Expression="MIT AND GPL-3.0-only"), "MIT AND GPL-3.0-only"),
        (described(License_Expression="AGPL-3.0-or-later"), "AGPL-3.0-or-later"),
        (described(License_Expression="MIT)"), "MIT)"),
        (described(License_Expression="MIT AND"), "MIT AND"),
        (described(License_Expression=EXCEPTION), EXCEPTION),
        (described(Classifier=[f"{OSI} BSD License", "Topic :: Internet"]), None),
        (
            described(Classifier=[f"{OSI} MIT License", f"{OSI} GNU General Public License v3 (GPLv3)"]),
            "MIT AND GNU General Public License v3 (GPLv3)",
        ),
        (described(License="Apache 2.0 License"), None),
        (described(License="All rights reserved\nby us"), "All rights reserved"),
        (described(), "declares no licence"),
    ],
)  # fmt: skip
def test_a_licence(metadata: Message, problem: str | None) -> None:
    assert audit_deps.licence_problem("some-package", metadata, RULES) == problem


def test_a_distribution_that_is_judged_by_name() -> None:
    assert audit_deps.licence_problem("nvidia_cublas_cu12", described(License="NVIDIA Proprietary"), RULES) is None


def test_what_is_installed_here_is_accepted() -> None:
    """Of what constraints.txt names: others may come and go."""
    pinned = re.findall(r"^([\w-]+)==", (SCRIPT.parents[1] / "constraints.txt").read_text(), re.MULTILINE)
    found = {name: audit_deps.licence_problem(name, distribution(name).metadata, RULES) for name in pinned}
    assert len(found) > 30
    assert not {name: problem for name, problem in found.items() if problem}


def test_every_unusual_licence_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in (*RULES["unusual"].values(), *RULES["distributions"].values()))
    assert not [name for name in (*RULES["usual"]["licences"], *RULES["unusual"]) if "GPL" in name]


@pytest.mark.parametrize(
    ("program", "status", "words"),
    [
        (None, 2, "not looked for, which is no pass: pip-audit is not installed"),
        ("exit 0", 0, "none known"),
        ("echo 'pillow 1.0 PYSEC-1'; exit 1", 1, "PYSEC-1"),
        (
            "echo 'ConnectionError: no route' >&2; exit 1",
            2,
            "no pass: pip-audit could not ask (ConnectionError: no route)",
        ),
    ],
)
def test_vulnerabilities(
    program: str | None,
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(audit_deps, "licence_problem", lambda *_: None)
    if program:
        (tmp_path / "pip-audit").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "pip-audit").chmod(0o755)
    assert audit_deps.main() == status
    assert words in capsys.readouterr().out


def test_a_licence_that_is_refused_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(audit_deps, "vulnerabilities", lambda: (0, "none known"))
    monkeypatch.setattr(audit_deps, "licence_problem", lambda name, *_: "GPL-3.0-only" if name == "torch" else None)
    assert audit_deps.main() == 1
    assert "  torch: GPL-3.0-only\n" in capsys.readouterr().out
