"""Imports point one way, registries are complete, files stay small, --help needs no heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import smplora
from smplora.adapt import ADAPTATIONS, LEARNING_RATES
from smplora.adapt import TITLES as METHODS
from smplora.attacks import ATTACKS
from smplora.objectives import OBJECTIVES, TITLES
from smplora.registry import load

PACKAGE = Path(smplora.__file__).parent
LAYERS = [  # a module may import from its own layer and from those above
    {
        "",
        "core",
        "core.*",
        "errors",
        "files",
        "offline",
        "parsing",
        "registry",
        "reproduce",
        "streams",
        "objectives",
        "attacks",
        "adapt",
        "subsets",
        "config",
        "config.*",
        "contracts",
    },
    {
        "objectives.*",
        "adapt.*",
        "diffusion",
        "text",
        "proxy",
        "metrics",
        "metrics.*",
        "quality",
        "features",
        "scorers",
        "views",
        "kohya",
        "verdict",
        "evidence",
        "blind",
        "batches",
        "cells",
        "game",
        "feed",
        "optimizers",
        "precision",
        "ema",
        "ddim",
        "encoders",
        "inception",
        "extractors",
        "gradients",
        "curvature",
        "smoothness",
        "lowpass",
        "shadowed",
        "copies",
        "prompts",
        "networks",
        "export",
        "layouts",
    },
    {"attacks.*", "gauge"},
    {
        "cache",
        "data",
        "data.*",
        "subsets.*",
        "split",
        "components",
        "download",
        "single_file",
        "models",
        "run",
        "examples",
        "progress",
        "subject",
        "inversions",
        "foreign",
        "judgement",
    },
    {
        "caption",
        "dataset",
        "sweep",
        "sweep.*",
        "train",
        "trainstate",
        "private",
        "teachers",
        "prior",
        "monitor",
        "theory",
        "trackers",
        "memory",
        "processes",
        "audit",
        "shadows",
        "shadowpool",
        "collect",
        "control",
        "plan",
        "signals",
        "gates",
        "exposed",
        "memorisation",
        "evaluate",
        "generated",
        "report",
        "report.*",
        "card",
        "publish",
        "once",
        "tasks",
        "quickstart",
        "reproduce.*",
    },
    {"cli", "__main__", "api"},
]


def layer(module: str) -> int:
    family = f"{module.split('.')[0]}.*" if "." in module else module
    return next(i for i, names in enumerate(LAYERS) if family in names)


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports at run time."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "smplora":
            base = (node.module or "").removeprefix("smplora").removeprefix(".")
            for alias in node.names:
                inner = PACKAGE.joinpath(*base.split("."), alias.name) if base else PACKAGE / alias.name
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                found.add(".".join(filter(None, [base, alias.name])) if is_module else base)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
    wrong = [other for other in imports(path) if layer(other) > layer(name)]
    assert not wrong, f"{name} imports {wrong}"


def test_no_file_is_long() -> None:
    repository = PACKAGE.parent.parent
    files = [p for folder in ("src", "tests", "scripts", "benchmarks") for p in (repository / folder).rglob("*.py")]
    assert not [f"{p}: {n}" for p in files if (n := len(p.read_text().splitlines())) > 400]


@pytest.mark.parametrize(
    ("registry", "folder"), [(OBJECTIVES, "objectives"), (ATTACKS, "attacks"), (ADAPTATIONS, "adapt")]
)
def test_one_file_one_line(registry: dict[str, str], folder: str) -> None:
    files = {f"smplora.{folder}.{p.stem}" for p in (PACKAGE / folder).glob("*.py") if p.stem != "__init__"}
    assert {value.partition(":")[0] for value in registry.values()} == files
    for name in registry:
        assert hasattr(load(registry, name, folder), "from_config")


def test_every_objective_has_a_title() -> None:
    assert TITLES.keys() == OBJECTIVES.keys()
    assert METHODS.keys() == LEARNING_RATES.keys() == ADAPTATIONS.keys()


def test_help_does_not_import_torch() -> None:
    program = "import sys; from smplora.cli import main; main(['train', '--help']); "
    check = "sys.exit('torch' in sys.modules)"
    wrapped = f"import contextlib\nwith contextlib.suppress(SystemExit):\n    {program}\nimport sys; {check}"
    assert subprocess.run([sys.executable, "-c", wrapped], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_nothing_imports_torchvision() -> None:
    program = "import smplora.quickstart, sys; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False).returncode == 0
