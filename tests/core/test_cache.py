"""The cache on disk: private, by content, whatever is damaged or foreign is made anew, removed with one command."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from said import complaint
from smplora.cli.main import main
from smplora.config.data import DataOptions
from smplora.core.cache import TAG, Cache, cache_folder
from smplora.core.errors import ConfigError
from smplora.data.encode import Encoder
from smplora.data.pictures import Framing
from smplora.data.pool import open_source, read_samples
from smplora.models.load import load_model

TENSORS = {"mean": torch.randn(4, 3), "ids": torch.arange(6).reshape(2, 3), "half": torch.ones(3, dtype=torch.bfloat16)}


def entries(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "encoded").iterdir() if p.name != TAG)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.load("a", "b") is None
    cache.save(TENSORS, "a", "b")
    loaded = Cache(tmp_path).load("a", "b")
    assert loaded is not None
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    assert cache.load("ab") is cache.load("a", "b", "") is cache.load("b", "a") is None


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    old = os.umask(0)  # what the umask would allow must not matter
    try:
        Cache(tmp_path / "deep" / "cache").save(TENSORS, "a")
    finally:
        os.umask(old)
    folder = tmp_path / "deep" / "cache"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (folder, folder / "encoded", *entries(folder))] == [
        0o700,
        0o700,
        0o600,
    ]


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    (tmp_path / "encoded").mkdir(mode=0o777)
    Cache(tmp_path)
    assert stat.S_IMODE((tmp_path / "encoded").stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["cut", "changed", "renamed", "foreign", "empty"])
def test_damaged_and_foreign_entries_are_as_if_absent(damage: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.save(TENSORS, "a")
    (path,) = entries(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-5])
    elif damage == "changed":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "renamed":
        cache.save({"mean": torch.zeros(1)}, "b")
        other = next(p for p in entries(tmp_path) if p != path)
        other.replace(path)
    elif damage == "foreign":
        save_file({"mean": torch.zeros(1)}, path)
    else:
        path.write_bytes(b"")
    assert cache.load("a") is None
    cache.save(TENSORS, "a")
    assert cache.load("a") is not None


def test_nothing_in_it_names_a_caption(tmp_path: Path) -> None:
    Cache(tmp_path).save(TENSORS, "text", "a very private caption")
    (path,) = entries(tmp_path)
    assert b"private" not in path.read_bytes()
    assert "private" not in path.name


def test_what_nobody_used_for_a_month_is_forgotten(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for key in ("old", "used"):
        cache.save(TENSORS, key)
    long_ago = time.time() - 31 * 24 * 3600
    for path in entries(tmp_path):
        os.utime(path, (long_ago, long_ago))
    cache.load("used")
    again = Cache(tmp_path)
    assert again.load("old") is None
    assert again.load("used") is not None


@pytest.mark.parametrize("name", ["holiday.mp4", f"{'a' * 64}.safetensors", "link.safetensors", "folder"])
def test_what_is_the_users_stays(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder ``encoded`` that was there, with files as old as can be: named like ours, links, folders among them."""
    theirs = tmp_path / "encoded" / name
    theirs.parent.mkdir()
    theirs.parent.chmod(0o755)
    film = tmp_path / "film"
    save_file({"x": torch.zeros(1)}, film)
    if name.startswith("link"):
        theirs.symlink_to(film)
    elif name == "folder":
        theirs.mkdir()
    else:
        film.rename(theirs)
    os.utime(theirs, (0, 0))
    if len(name) > 64:
        Cache(tmp_path).save(TENSORS, "a")
    else:
        with pytest.raises(ConfigError, match=f"files that are not smplora's, such as '{name}'"):
            Cache(tmp_path)
        assert stat.S_IMODE(theirs.parent.stat().st_mode) == 0o755
    assert main(["cache", "--cache_dir", str(tmp_path), "--clear"]) == 0
    assert "other files in it: 1, which smplora does not touch" in capsys.readouterr().err
    assert theirs.exists()


def test_a_folder_that_is_a_link_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_text("")
    (tmp_path / "encoded").symlink_to(tmp_path / "films")
    with pytest.raises(ConfigError, match="not smplora's, such as 'encoded'"):
        Cache(tmp_path)
    assert main(["cache", "--cache_dir", str(tmp_path), "--clear"]) == 0
    assert (tmp_path / "films" / "a.mp4").exists()


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder("x") == Path("x")
    monkeypatch.setenv("SMPLORA_CACHE", "/somewhere")
    assert cache_folder(None) == Path("/somewhere")
    monkeypatch.delenv("SMPLORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder(None) == Path("/xdg/smplora")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "smplora"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("not of the cache")
    where = ("cache", "--cache_dir", str(tmp_path))
    assert main([*where]) == 0
    assert "0 latents, text embeddings, images and signals" in capsys.readouterr().err
    Cache(tmp_path).save(TENSORS, "a")
    assert main([*where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 1
    assert main([*where, "--clear"]) == 0
    assert "removed" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_used(tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    arguments = ("--train_data_dir", str(image_folder), "--output_dir", str(tmp_path / "run"), "--aux_size", "4")
    assert main(["train", *arguments, "--cache_dir", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert "--cache_dir got" in err
    assert "--cache_latents_to_disk false" in err
    assert complaint(err).count("\n") == 1


def test_never_among_the_images(tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = str(image_folder / "sub" / "cache")
    for verb, adapter in (("train", ()), ("audit", ("--adapter", str(tmp_path)))):
        assert main([verb, "--train_data_dir", str(image_folder), *adapter, "--cache_dir", inside]) == 2
        assert "which is inside of the images' folder" in capsys.readouterr().err
    assert not Path(inside).exists()


def test_the_user_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        Cache(tmp_path / "c")
    assert capsys.readouterr().err.count(f"are kept in {tmp_path / 'c'}, readable by you alone") == 1


class Counting:
    """A source that counts what is read."""

    def __init__(self, folder: Path) -> None:
        self.inner = open_source(DataOptions(train_data_dir=str(folder), default_caption="x"))
        self.title, self.where_captions_come_from, self.read_names = self.inner.title, "", list[str]()
        self.reading = self.inner.reading

    def captions(self, problems: list[str]) -> dict[str, str | None]:
        return self.inner.captions(problems)

    def read(self, name: str) -> Image.Image:
        self.read_names.append(name)
        return self.inner.read(name)


def test_encoding_does_not_depend_on_what_was_cached(noise_folder: Path, tmp_path: Path) -> None:
    source = Counting(noise_folder)
    samples = read_samples(source)
    model = load_model("tiny", torch.device("cpu"))
    square, wide, flipped = Framing(32, 32), Framing(32, 48), Framing(32, 32, flipped=True)
    plain = Encoder(model, source).latents([(s, square) for s in samples])
    encoder = Encoder(model, source, Cache(tmp_path))
    encoder.latents([(s, square) for s in samples[3:8]])
    source.read_names.clear()
    mixed = encoder.latents([(s, square) for s in reversed(samples)])
    assert set(source.read_names) == {s.file for s in (*samples[:3], *samples[8:])}
    for one, other in zip(plain, mixed, strict=True):
        assert torch.equal(one, other.flip(0))
    source.read_names.clear()
    assert torch.equal(encoder.latents([(s, square) for s in samples])[1], plain[1])
    assert not source.read_names
    assert encoder.latents([(samples[0], wide)])[0].shape == (1, 4, 8, 12)
    assert not torch.equal(encoder.latents([(samples[0], flipped)])[0][0], plain[0][0])
    texts = encoder.texts(["a", "b"], 32)
    stored = len(entries(tmp_path))
    assert torch.equal(encoder.texts(["b"], 32)["encoder_hidden_states"][0], texts["encoder_hidden_states"][1])
    assert len(entries(tmp_path)) == stored
    kept = [load_file(p) for p in entries(tmp_path)]
    assert sum("mean" in k for k in kept) == len(samples) + 2


def test_another_model_has_other_entries(noise_folder: Path, tmp_path: Path) -> None:
    source = Counting(noise_folder)
    samples = read_samples(source)[:2]
    model = load_model("tiny", torch.device("cpu"))
    encoder = Encoder(model, source, Cache(tmp_path))
    encoder.latents([(s, Framing(32, 32)) for s in samples])
    encoder.texts(["a"], 32)
    model.digest = "another"
    encoder.latents([(s, Framing(32, 32)) for s in samples])
    encoder.texts(["a"], 32)
    assert len(entries(tmp_path)) == 6
