"""Folders that commands write in: private, held by one process at a time, rid of what a kill left."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import warm
from smplora.cli.main import main
from smplora.core import files, lock
from smplora.core.errors import ConfigError
from smplora.core.files import LOCK, UNFINISHED, write_atomically
from smplora.core.output import output_folder

SHORT = ("--aux_size", "5", "--max_train_steps", "1", "--checkpointing_steps", "1")
FEW = ("--attacks", "[loss]", "--num_timesteps", "1", "--noise_pairs", "1")
HOLD = """
import sys, time
from pathlib import Path
from smplora.core.output import output_folder
with output_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def commands(run: Path, images: Path, folder: Path) -> dict[str, list[str]]:
    there = ["--output_dir", str(folder)]
    return {
        "train": ["train", "--train_data_dir", str(images), *SHORT, *there, "--report_to", "tensorboard"],
        "split": ["split", "--train_data_dir", str(images), "--aux_size", "5", *there],
        "audit": ["audit", str(run), *FEW, *there],
        "evaluate": ["evaluate", str(run), "--num_images", "20", "--num_inference_steps", "1", *there],
        "export": ["export", "--adapter", str(run), *there],
    }


def readable_by_others(folder: Path) -> list[Path]:
    return [p for p in (folder, *folder.rglob("*")) if p.lstat().st_mode & 0o077 and p.is_relative_to(folder)]


@pytest.fixture
def usual_umask() -> object:
    before = os.umask(0o022)
    yield
    assert os.umask(before) == 0o022, "a command sets it back"


@pytest.fixture
def folder(tmp_path: Path, usual_umask: None) -> Path:
    """An output folder that others can enter."""
    (tmp_path / "out").mkdir(mode=0o755)
    return tmp_path / "out"


@pytest.mark.parametrize("verb", ["train", "split", "audit", "export"])
def test_an_empty_folder_is_made_private(
    verb: str,
    trained_run: Path,
    image_folder: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(commands(trained_run, image_folder, folder)[verb]) == 0
    assert "could be entered by others; it is now private" in capsys.readouterr().err
    assert len(list(folder.iterdir())) > 0
    assert not readable_by_others(folder)
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("verb", ["split", "evaluate"])
def test_a_folder_with_other_things_stays_as_it_is_and_this_is_said(
    verb: str,
    trained_run: Path,
    image_folder: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "thesis.txt").write_text("")
    assert main(commands(trained_run, image_folder, folder)[verb]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "can be entered by others" in line]
    assert len(said) == 1
    assert "chmod 700" in said[0]
    assert {p.name for p in readable_by_others(folder)} == {"out", "thesis.txt"}


def test_one_process_writes_in_a_folder(
    trained_run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    with open(tmp_path / "said", "w") as said:
        holder = warm.start(str(folder), program=HOLD, stdout=said)
    while not (tmp_path / "said").read_text():
        time.sleep(0.02)
    try:
        images = ["--train_data_dir", str(image_folder), "--output_dir", str(folder)]
        for words in (
            *(
                words
                for verb, words in commands(trained_run, image_folder, folder).items()
                if verb in ("split", "audit")
            ),
            ["sweep", *images, *SHORT, "--seeds", "[0]"],
        ):
            assert main(words) == 2, words
            last = capsys.readouterr().err.splitlines()[-1]
            assert "is being written in by another process" in last
            assert f"process {holder.pid} " in last
    finally:
        holder.kill()
    assert holder.wait() == -signal.SIGKILL
    assert (folder / LOCK).exists(), "nobody tidied"
    assert main(commands(trained_run, image_folder, folder)["split"]) == 0
    assert not (folder / LOCK).exists()


def test_a_lock_is_not_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).symlink_to(tmp_path / "thesis")
    with pytest.raises(OSError, match="links"), output_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "thesis").read_text() == "years"


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner leaves between the opening and the locking of the file."""
    first = lock.try_lock

    def late(handle: int) -> bool:
        monkeypatch.setattr(lock, "try_lock", first)
        (tmp_path / LOCK).unlink()
        return first(handle)

    monkeypatch.setattr(lock, "try_lock", late)
    with output_folder(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), output_folder(tmp_path):
            pass
        assert (tmp_path / LOCK).read_text() == str(os.getpid())


@pytest.mark.parametrize("system", ["neither", "windows"])
def test_systems_without_flock(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OfWindows:
        LK_NBLCK = 2
        held = False

        def locking(self, handle: int, mode: int, length: int) -> None:
            if OfWindows.held:
                raise PermissionError(13, "Permission denied")
            OfWindows.held = True

    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", OfWindows() if system == "windows" else None)
    with output_folder(tmp_path):
        if system == "neither":
            with output_folder(tmp_path):
                pass
        else:
            with pytest.raises(ConfigError, match=f"process {os.getpid()}"), output_folder(tmp_path):
                pass


def test_what_a_kill_left_is_removed_by_the_next_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TIDIED_EVERY_S", 0.0)
    old = time.time() - 10
    names = [f"{UNFINISHED}{name}" for name in ("abcd_123", "held4567", "new45678", "notes", "linked12")]
    for name in names[:4]:
        (tmp_path / name).write_text("half")
    (tmp_path / names[4]).symlink_to(tmp_path / names[3])
    for name in (*names[:2], names[3]):
        os.utime(tmp_path / name, (old, old))
    with (tmp_path / names[1]).open() as writing:
        assert lock.try_lock(writing.fileno())
        write_atomically(tmp_path / "x", "1")
        left = {p.name for p in tmp_path.iterdir()}
    assert left == {"x", *names[1:]}, "a living writer, a new file, another name and a link are left alone"


def test_a_killed_report(trained_run: Path, tmp_path: Path) -> None:
    """A real SIGKILL in the middle of the write, then the command again."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    assert main(["audit", str(run), *FEW]) == 0
    page = tmp_path / "pages" / "report.html"
    stop = "import os\nos.fsync = lambda handle: os.kill(os.getpid(), 9)\n"
    killed = warm.run("report", str(run), "--output", str(page), program=stop + warm.COMMAND)
    assert killed.returncode == -signal.SIGKILL
    (left,) = page.parent.iterdir()
    os.utime(left, (0, 0))
    assert main(["report", str(run), "--output", str(page)]) == 0
    assert [p.name for p in page.parent.iterdir()] == ["report.html"]
