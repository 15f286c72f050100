"""What continuous integration covers is what is said of the package."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from smplora.cli.parse import parse

REPOSITORY = Path(__file__).parents[2]
CI: dict[Any, Any] = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEPS = [step for job in CI["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("job", [name for name in CI["jobs"] if name != "docs"])
def test_every_python_that_is_promised(job: str) -> None:
    names = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one) for one in PROJECT["classifiers"]]
    promised = [name[1] for name in names if name]
    assert CI["jobs"][job]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_every_system() -> None:
    systems = {name.partition("-")[0] for name in CI["jobs"]["run"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}


def test_it_may_read_and_nothing_else() -> None:
    assert CI["permissions"] == {"contents": "read"}
    assert not [name for name, job in CI["jobs"].items() if "permissions" in job]
    checkouts = [step for step in STEPS if "checkout" in step.get("uses", "")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert "pull_request_target" not in CI[True], "would run a stranger's code with our rights"  # "on" is YAML's true


def test_a_release_needs_no_secret_and_is_tested_first() -> None:
    """Trusted publishing: a short-lived token for this very workflow, of a tag, after the tests."""
    release = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    assert release[True] == {"push": {"tags": ["v*"]}}
    assert release["permissions"] == {"contents": "read"}
    publish = release["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    commands = [step.get("run", "") for step in release["jobs"]["build"]["steps"]]
    assert commands.index("make test") < next(
        k for k, line in enumerate(commands) if line.startswith("python -m build")
    )
    assert "secrets." not in (REPOSITORY / ".github" / "workflows" / "release.yml").read_text()


def test_the_wheel_has_the_configs_and_the_examples() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    assert included == {"configs": "smplora/ready/configs", "examples": "smplora/ready/examples"}
    assert all((REPOSITORY / folder).is_dir() for folder in included)


def test_its_commands_are_ours() -> None:
    words = [shlex.split(step["run"], comments=True) for step in STEPS if "run" in step]
    ours = [line for line in words if line[0] == "smplora" and not line[1].startswith("-")]
    assert ours
    for line in ours:
        parse(line[1], line[2:])
    targets = {line[1] for line in words if line[0] == "make"}
    assert targets <= set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
