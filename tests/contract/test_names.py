"""Names that no import finds point somewhere: registries, lazy commands, assets, the package's own frames, the linter's
exceptions. A file that is moved or renamed fails here, not in somebody's hands."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import smplora
from smplora.core import offline
from smplora.core.files import ASSETS

PACKAGE = Path(smplora.__file__).parent
REPOSITORY = PACKAGE.parent.parent
DOTTED = re.compile(r"smplora(\.\w+)+(:\w+)?")
SOURCES = sorted(PACKAGE.rglob("*.py"))


def dotted_strings(path: Path) -> set[str]:
    """Strings of a file that are the name of a module, or of something in one."""
    nodes = ast.walk(ast.parse(path.read_text()))
    strings = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {s for s in strings if DOTTED.fullmatch(s)}


NAMES = sorted(set().union(*map(dotted_strings, SOURCES)))


def points_somewhere(name: str) -> bool:
    module, _, attribute = name.partition(":")
    try:
        if find_spec(module) is None:
            return False
    except ModuleNotFoundError:
        return False
    named = getattr(import_module(module), attribute, None) if attribute else module
    return named is not None and not isinstance(named, ModuleType)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_string_points_somewhere(name: str) -> None:
    assert points_somewhere(name)


def test_registries_and_commands_are_among_them() -> None:
    assert len([name for name in NAMES if ":" in name]) > 60
    assert not points_somewhere("smplora.core.files:nothing")
    assert not points_somewhere("smplora.nothing:write_json")
    assert not points_somewhere("smplora.nothing.nothing")


def test_assets_are_found_from_one_place_only() -> None:
    """A file that moves takes ``__file__`` along, not what lies beside it."""
    users = {str(p.relative_to(PACKAGE)) for p in SOURCES if "__file__" in p.read_text()}
    assert users == {"core/offline.py"}


def asset_paths() -> set[str]:
    """What the code names below ``ASSETS``: "tiny" of ``ASSETS / "tiny"``."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.BinOp)
                and ast.unparse(node.left) == "ASSETS"
                and isinstance(node.right, ast.Constant)
            ):
                found.add(str(node.right.value))
    return found


def test_every_asset_is_there_and_asked_for() -> None:
    assert asset_paths() == {path.name for path in ASSETS.iterdir()}


def test_every_template_is_there_and_asked_for() -> None:
    sources = "".join(path.read_text() for path in SOURCES)
    templates = {path.name for path in PACKAGE.rglob("*.j2")}
    inner = "".join(path.read_text() for path in PACKAGE.rglob("*.j2"))
    named = set(re.findall(r'"([\w.]+\.j2)"', sources + inner))
    assert named == templates


def test_the_network_names_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """``offline`` tells smplora's frames from others by the package's folder, wherever it stands itself."""
    assert offline.PACKAGE == PACKAGE
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port: [])  # put back when the test is over
    offline._guard(socket, "getaddrinfo", offline._host)
    inside = PACKAGE / "data" / "names_elsewhere.py"  # whatever stands in the package, however deep
    with pytest.raises(offline.OfflineError, match="smplora wanted the network"):
        exec(compile("import socket\nsocket.getaddrinfo('example.org', 80)", str(inside), "exec"))


def test_the_linters_exceptions_point_somewhere() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = settings["tool"]["ruff"]["lint"]["per-file-ignores"]
    assert patterns
    for pattern in patterns:
        assert list(REPOSITORY.glob(pattern)), pattern


def test_files_that_documents_name_are_there() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git checkout")
    wrong = []
    for name in listed.splitlines():
        path = REPOSITORY / name
        dated = name.startswith("docs/log/2")  # speaks of files as they were
        if path.suffix not in (".md", ".py", ".j2", ".toml", ".yaml") or not path.exists() or dated:
            continue
        folders = "src|tests|scripts|benchmarks|configs|docs|examples"
        for word in re.findall(rf"(?:{folders})/[\w/-]+\.\w+", path.read_text()):
            placeholder = re.search("[A-Z]{4}", word)
            if not (REPOSITORY / word).exists() and not placeholder and not name.startswith("tests/"):
                wrong.append(f"{name}: {word}")
        for word in re.findall(r"`([\w/]+\.py)`", path.read_text()) if path.suffix == ".md" else ():
            if not any(f"/{own}".endswith(f"/{word}") for own in listed.splitlines()):
                wrong.append(f"{name}: {word}")
    assert not wrong


def test_names_of_formats_stay() -> None:
    """Files of earlier versions open: a format is named after what it is, not after the file of the code."""
    sources = "".join(path.read_text() for path in SOURCES)
    formats = {
        f"{name}/1"
        for name in (
            "cache",
            "certificate",
            "dataset",
            "privacy",
            "properties",
            "reproduce",
            "split",
            "sweep",
            "theory",
        )
    }
    assert set(re.findall(r'"smplora\.([\w.]+/\d+)"', sources)) == formats | {"audit/2", "audit/3", "quality/2"}
