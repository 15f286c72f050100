"""Every option that names a file or folder: whatever stands there, a command ends in one line."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from smplora.cli.commands import VERBS
from smplora.cli.main import main
from smplora.config.checks import PLACES

OPTIONS = [
    (verb, name)
    for verb in VERBS
    for name, kind in get_type_hints(VERBS[verb].options).items()
    if name.endswith((*PLACES, "runs", "model")) and "str" in str(kind) and "dict" not in str(kind)
]
RUN = ("report", "split", "cache")  # commands that are not long about it


def test_there_are_many() -> None:
    assert len(OPTIONS) > 50


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").write_text("x")
    for one, other in (("a", "b"), ("b", "a")):
        (folder / one).symlink_to(folder / other)
    return {
        "NUL": f"{folder}/\0",
        "bytes": f"{folder}/\udcff",
        "empty": "",
        "long": "x" * 5000,
        "long part": f"{folder}/{'x' * 300}",
        "a file": f"{folder}/file",
        "below a file": f"{folder}/file/x",
        "a circle": f"{folder}/a",
        "below a circle": f"{folder}/a/x",
        "nobody's home": "~nobody-here/x",
    }


@pytest.mark.parametrize(("verb", "name"), OPTIONS)
def test_the_check(verb: str, name: str, places: dict[str, str]) -> None:
    """It finds what cannot be a name, and stumbles over nothing but what the operating system says."""
    kind = VERBS[verb].options
    is_list = "list" in str(get_type_hints(kind)[name])
    for what, place in places.items():
        options: Any = kind(**{name: [place] if is_list else place})
        problems = ""
        with suppress(OSError) if "long" in what else nullcontext():
            problems = "\n".join(options.problems())
        if what in ("NUL", "bytes") or (what == "empty" and name.endswith(PLACES)):
            assert f"--{name} " in problems, what


@pytest.mark.parametrize(("verb", "name"), [pair for pair in OPTIONS if pair[0] in RUN])
def test_the_command(
    verb: str,
    name: str,
    places: dict[str, str],
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    known = get_type_hints(VERBS[verb].options)
    given = {"train_data_dir": str(image_folder), "adapter": str(tmp_path / "no")}
    others = [f"--{n}={v}" for n, v in given.items() if n in known and n != name]
    for what, place in places.items():
        value = f'["{place}"]' if "list" in str(known[name]) else place
        status = main([verb, *others, f"--{name}={value}"])
        err = capsys.readouterr().err
        assert status in (0, 2), (what, err)
        if status == 2:
            assert err.count("smplora: ") == 1, (what, err)
            assert err.splitlines()[-1].startswith(("smplora: ", "  - ")), (what, err)
        else:
            assert what not in ("NUL", "bytes", "long", "long part"), (what, err)
