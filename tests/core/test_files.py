"""Named random streams and atomic files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from smplora.core.files import write_atomically, write_json
from smplora.core.random_streams import generator, stream_seed
from smplora.core.reading import read_json
from smplora.data.cells import walk


def test_streams_are_named() -> None:
    seeds = {
        stream_seed(0, "a", 1),
        stream_seed(0, "a", 2),
        stream_seed(0, "b", 1),
        stream_seed(1, "a", 1),
        stream_seed("0a", 1),
    }
    assert len(seeds) == 5
    assert stream_seed(0, "noise", 7) == 4742882823771301809  # the same on every machine and in every version


def test_generators_repeat() -> None:
    assert torch.equal(torch.randn(3, generator=generator(0, "x")), torch.randn(3, generator=generator(0, "x")))


def test_walk_visits_everything_once_per_pass_whatever_the_batch() -> None:
    whole = list(walk(7, 0, 21, 0, "train"))
    assert all(sorted(whole[i : i + 7]) == list(range(7)) for i in (0, 7, 14))
    assert whole[:7] != whole[7:14]
    assert [i for start in range(0, 21, 3) for i in walk(7, start, 3, 0, "train")] == whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "x.json", [1, None])
    assert json.loads((tmp_path / "x.json").read_text()) == [1, None]
