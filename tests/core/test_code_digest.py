"""Stale results are never taken for new ones: the digest of code sees every file that computes, under any name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from smplora.config.catalogue.attacks import ATTACKS
from smplora.core.code_digest import PACKAGE, code_digest, reachable

LOSS = frozenset({"smplora.attacks.methods.loss", "smplora.attacks.views"})


def copied(folder: Path, rename: tuple[str, str] | None = None) -> Path:
    """The package's source in ``folder``, one module renamed with all that names it."""
    package = folder / "smplora"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    if rename:
        old, new = rename
        path = package.joinpath(*old.split(".")[1:]).with_suffix(".py")
        path.rename(path.with_stem(new))
        for file in package.rglob("*.py"):
            text = file.read_text()
            file.write_text(text.replace(f"from {old} import", f"from {old.rpartition('.')[0]}.{new} import"))
    return package


def test_a_copy_has_the_same_digest(tmp_path: Path) -> None:
    assert code_digest(LOSS, copied(tmp_path)) == code_digest(LOSS)


@pytest.mark.parametrize("module", sorted(reachable(LOSS)))
def test_every_module_that_is_reached_counts(tmp_path: Path, module: str) -> None:
    package = copied(tmp_path)
    path = package.parent.joinpath(*module.split("."))
    path = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    path.write_text(path.read_text() + "\n# changed\n")
    assert code_digest(LOSS, package) != code_digest(LOSS)


def test_a_renamed_module_counts(tmp_path: Path) -> None:
    package = copied(tmp_path / "renamed", ("smplora.models.diffusion", "denoising"))
    renamed = code_digest(LOSS, package)
    assert "smplora.models.denoising" in reachable(LOSS, package)
    assert renamed != code_digest(LOSS)
    again = copied(tmp_path / "changed", ("smplora.models.diffusion", "denoising"))
    (again / "models" / "denoising.py").write_text((again / "models" / "denoising.py").read_text() + "\n# changed\n")
    assert code_digest(LOSS, again) != renamed


def test_a_module_that_is_gone_is_an_error(tmp_path: Path) -> None:
    package = copied(tmp_path)
    (package / "models" / "diffusion.py").unlink()
    with pytest.raises(ModuleNotFoundError, match=r"smplora\.models\.diffusion"):
        code_digest(LOSS, package)


def test_what_is_not_imported_does_not_count(tmp_path: Path) -> None:
    package = copied(tmp_path)
    (package / "main.py").write_text("changed = 1\n")
    assert code_digest(LOSS, package) == code_digest(LOSS)


def test_imports_for_type_checkers_do_not_count(tmp_path: Path) -> None:
    package = tmp_path / "one"
    package.mkdir()
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from one import b\n"
        "def late():\n    from one import c\n    import one.d\n"
    )
    for name in "bcd":
        (package / f"{name}.py").write_text("")
    assert reachable(["one.a"], package) == {"one.a", "one.c", "one.d"}


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_an_attack_reaches_the_contracts(attack: str) -> None:
    module = ATTACKS[attack].partition(":")[0]
    assert {module, "smplora.attacks.base"} <= reachable([module])


def test_the_views_reach_how_the_model_is_asked() -> None:
    needed = {"smplora.models.diffusion", "smplora.core.random_streams", "smplora.models.proxy", "smplora.models.ddim"}
    assert needed <= reachable(["smplora.attacks.views"])
