"""Registries are complete, files stay small, --help needs no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import smplora
import warm
from smplora.config.catalogue.adaptations import ADAPTATIONS, LEARNING_RATES
from smplora.config.catalogue.adaptations import TITLES as METHODS
from smplora.config.catalogue.attacks import ATTACKS
from smplora.config.catalogue.objectives import OBJECTIVES, TITLES
from smplora.core.registry import load

PACKAGE = Path(smplora.__file__).parent


def test_no_file_is_long() -> None:
    repository = PACKAGE.parent.parent
    files = [p for folder in ("src", "tests", "scripts", "benchmarks") for p in (repository / folder).rglob("*.py")]
    assert not [f"{p}: {n}" for p in files if (n := len(p.read_text().splitlines())) > 400]


@pytest.mark.parametrize(
    ("registry", "folder"), [(OBJECTIVES, "objectives"), (ATTACKS, "attacks.methods"), (ADAPTATIONS, "adapters")]
)
def test_one_file_one_line(registry: dict[str, str], folder: str) -> None:
    shared = ("__init__", "base", "game")
    here = PACKAGE.joinpath(*folder.split("."))
    files = {f"smplora.{folder}.{p.stem}" for p in here.glob("*.py") if p.stem not in shared}
    assert {value.partition(":")[0] for value in registry.values()} == files
    for name in registry:
        assert load(registry, name, folder)


def test_every_objective_has_a_title() -> None:
    assert TITLES.keys() == OBJECTIVES.keys()
    assert METHODS.keys() == LEARNING_RATES.keys() == ADAPTATIONS.keys()


def test_help_does_not_import_torch() -> None:
    program = "import sys; from smplora.cli.main import main; main(['train', '--help']); "
    check = "sys.exit('torch' in sys.modules)"
    wrapped = f"import contextlib\nwith contextlib.suppress(SystemExit):\n    {program}\nimport sys; {check}"
    assert subprocess.run([sys.executable, "-c", wrapped], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_nothing_imports_torchvision() -> None:
    program = "import smplora.experiments.quickstart, sys; sys.exit('torchvision' in sys.modules)"
    assert warm.run(program=program).returncode == 0
