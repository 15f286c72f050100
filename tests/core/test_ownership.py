"""What a user has stays as it is: no command writes over a file that smplora did not write, or through a link."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from smplora.cli.main import main
from smplora.core.ownership import is_ours

FEW = ("--attacks", "[loss]", "--num_timesteps", "1", "--noise_pairs", "1", "--device", "cpu")
DRAW = ("--num_images", "20", "--num_inference_steps", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def audited(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("audited") / "run"
    shutil.copytree(trained_run, run)
    assert main(["audit", "--adapter", str(run), *FEW]) == 0
    return run


def commands(run: Path, images: Path, folder: Path) -> dict[str, tuple[list[str], tuple[str, ...]]]:
    """Every command that writes where it is told: its words, and files that it writes."""
    there = ["--output_dir", str(folder)]
    return {
        "audit": (["audit", "--adapter", str(run), *FEW, *there], ("audit.json", "scores.npz", "exposed.png")),
        "evaluate": (["evaluate", "--adapter", str(run), *DRAW, *there], ("quality.json", "samples.png")),
        "export": (["export", "--adapter", str(run), *there], ("README.md", "kohya_lora_weights.safetensors")),
        "report": (["report", "--runs", f"[{run}]", "--output", str(folder / "report.html")], ("report.html",)),
        "split": (["split", "--train_data_dir", str(images), "--aux_size", "5", *there], ("split.json",)),
    }


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("verb", ["audit", "evaluate", "export", "report", "split"])
def test_a_file_of_the_users_is_not_replaced(
    verb: str, kind: str, audited: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, files = commands(audited, image_folder, tmp_path / "out")[verb]
    for name in files:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        thesis = tmp_path / "out" / name if kind == "file" else tmp_path / "thesis"
        thesis.write_text('{"years": 4}')
        if kind == "link":
            (tmp_path / "out" / name).symlink_to(thesis)
        capsys.readouterr()
        assert main(words) == 2, name
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{name}' is there and is" in said
        assert "it is not replaced: move it, or give another place" in said
        assert thesis.read_text() == '{"years": 4}'


@pytest.mark.parametrize("verb", ["audit", "evaluate", "export", "report", "split"])
def test_our_own_are_written_anew(verb: str, audited: Path, image_folder: Path, tmp_path: Path) -> None:
    words, files = commands(audited, image_folder, tmp_path / "out")[verb]
    for _ in range(2):
        assert main(words) == 0
        assert all((tmp_path / "out" / name).exists() for name in files)
    assert is_ours(tmp_path / "out" / files[0])


def test_a_file_of_another_command_proves_nothing(audited: Path, image_folder: Path, tmp_path: Path) -> None:
    """A folder that has a split.json of ours may have pictures of the user's."""
    assert main(["split", "--train_data_dir", str(image_folder), "--aux_size", "5", "--output_dir", str(tmp_path)]) == 0
    (tmp_path / "samples.png").write_bytes(b"a picture")
    assert main(["evaluate", "--adapter", str(audited), *DRAW, "--output_dir", str(tmp_path)]) == 2
    assert (tmp_path / "samples.png").read_bytes() == b"a picture"


def test_links_are_not_followed_into_what_is_published(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link in a run folder would hand out what it leads to; arbitrary bytes are no adapter."""
    secret = tmp_path / "secret"
    secret.write_text("#!/bin/sh")
    for name in ("README.md", "kohya_lora_weights.safetensors"):
        run = tmp_path / f"run-{name}"
        shutil.copytree(audited, run)
        (run / name).unlink()
        (run / name).symlink_to(secret)
        for words in (["export", "--output_dir", str(tmp_path / "out")], ["push", "--repo_id", "a/b", "--dry_run"]):
            assert main([*words, "--adapter", str(run)]) == 2
            assert f"{name}' is no plain file" in capsys.readouterr().err
    run = tmp_path / "run-bytes"
    shutil.copytree(audited, run)
    (run / "kohya_lora_weights.safetensors").write_bytes(b"anything")
    assert main(["push", "--repo_id", "a/b", "--dry_run", "--adapter", str(run)]) == 2
    assert "is not a safetensors file" in capsys.readouterr().err
