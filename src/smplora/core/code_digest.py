"""Which code a result comes from: a digest that changes when a module changes, or any that it imports."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from smplora.core.files import PACKAGE


def code_digest(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """SHA-256 of names and contents of ``modules`` and of every module of ``package`` that they import, directly or
    through others. What is imported for type checkers only does not count: it computes nothing.

    Args:
        modules: dotted names, as "smplora.attacks.methods.loss".
        package: its folder.

    Raises:
        ModuleNotFoundError: a name that points nowhere.
    """
    return _digest(tuple(sorted(modules)), package)


@cache
def _digest(modules: tuple[str, ...], package: Path) -> str:
    digest = hashlib.sha256()
    for name in sorted(reachable(modules, package)):
        digest.update(f"{name}\0".encode() + _file(name, package).read_bytes() + b"\0")
    return digest.hexdigest()


def reachable(modules: Iterable[str], package: Path = PACKAGE) -> set[str]:
    """The dotted names of ``modules`` and of all that they import of ``package``.

    Raises:
        ModuleNotFoundError: a name that points nowhere.
    """
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imported(name, package)
    return reached


@cache
def imported(module: str, package: Path = PACKAGE) -> tuple[str, ...]:
    """The modules of ``package`` that one of its modules imports at run time, in functions too, by dotted name.

    Raises:
        ModuleNotFoundError: the module, or one that it imports, does not exist.
    """
    return tuple(sorted(set(_imports(ast.parse(_file(module, package).read_text(encoding="utf-8")), package))))


def _imports(tree: ast.AST, package: Path) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_own(alias.name, package))
        elif isinstance(node, ast.ImportFrom) and _is_own(node.module or "", package):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _find(inner, package) else str(node.module)
        yield from _imports(node, package)


def _is_own(name: str, package: Path) -> bool:
    return name.partition(".")[0] == package.name


def _find(name: str, package: Path) -> Path | None:
    path = package.parent.joinpath(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _file(name: str, package: Path) -> Path:
    path = _find(name, package)
    if path is None:
        raise ModuleNotFoundError(f"no module {name} in {package.parent}", name=name)
    return path
