"""The cells: disjoint, sealed, reproducible, refused when anything changed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from smplora.config.data import SplitOptions
from smplora.core.errors import SplitError
from smplora.data.cell_sizes import ENOUGH_FOR_FID, default_cell
from smplora.data.pool import Sample
from smplora.data.split import make_split, read_split, write_split
from smplora.results.manifest import CELLS
from smplora.results.record import as_json

POOL = [Sample(f"{i}.png", f"caption {i}", f"digest{i:04d}") for i in range(100)]


def test_members_and_nonmembers_of_the_test_cells_may_differ_in_number() -> None:
    split = make_split(POOL, SplitOptions(aux_size=5, test_size=9, test_nonmember_size=4))
    assert (split.sizes["test_member"], split.sizes["test_nonmember"]) == (9, 4)


def test_fixed_sizes_and_disjoint() -> None:
    split = make_split(POOL, SplitOptions(aux_size=12, test_size=9, reference_size=20))
    assert split.sizes == {
        "aux_member": 12,
        "test_member": 9,
        "aux_nonmember": 12,
        "test_nonmember": 9,
        "reference": 20,
    }
    assert max(Counter(s.digest for cell in CELLS for s in split.cells[cell]).values()) == 1
    assert split.train == split.cells["aux_member"] + split.cells["test_member"]


def test_defaults_use_everything() -> None:
    split = make_split(POOL, SplitOptions())
    assert split.sizes == {
        "aux_member": 20,
        "test_member": 20,
        "aux_nonmember": 20,
        "test_nonmember": 20,
        "reference": 20,
    }


def test_coin_is_fair_and_independent() -> None:
    pool = [Sample(f"{i}.png", "c", f"{i:05d}") for i in range(4000)]
    split = make_split(pool, SplitOptions(split_protocol="coin", reference_size=0))
    sizes = split.sizes
    for cell in CELLS[:4]:
        assert abs(sizes[cell] - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    members = {
        make_split(pool, SplitOptions(split_protocol="coin", split_seed=s, reference_size=0)).sizes["aux_member"]
        for s in range(5)
    }
    assert len(members) > 1  # a shuffle into halves would give one size


def test_a_function_of_seed_and_images_alone() -> None:
    first = make_split(POOL, SplitOptions(split_seed=3))
    renamed = [Sample(f"other/{s.file}", s.caption, s.digest) for s in reversed(POOL)]
    assert make_split(renamed, SplitOptions(split_seed=3)).seal == first.seal
    assert make_split(POOL, SplitOptions(split_seed=4)).seal != first.seal


def test_cells_larger_than_the_pool() -> None:
    with pytest.raises(SplitError, match=r"= 120, but there are 100 images"):
        make_split(POOL, SplitOptions(aux_size=30))


def test_pool_too_small() -> None:
    with pytest.raises(SplitError, match="there are 19 images; allowed: 20 or more"):
        make_split(POOL[:19], SplitOptions())
    with pytest.raises(SplitError, match="8, but there are 5"):
        make_split(POOL[:5], SplitOptions(aux_size=2))
    assert len(make_split(POOL[:9], SplitOptions(aux_size=2)).train) == 4


def test_manifest_round_trip(tmp_path: Path) -> None:
    split = make_split(POOL, SplitOptions())
    path = write_split(split, tmp_path)
    assert read_split(path, POOL) == split
    assert path.stat().st_mode & 0o077 == 0


def edited(tmp_path: Path, edit: str) -> Path:
    path = write_split(make_split(POOL, SplitOptions()), tmp_path)
    content = json.loads(path.read_text())
    cells = content["cells"]
    if edit == "twice":
        cells["reference"].append(cells["aux_member"][0])
    elif edit == "moved":
        cells["reference"].append(cells["aux_member"].pop())
    elif edit == "cell missing":
        del cells["test_member"]
    elif edit == "digest":
        cells["reference"][0]["digest"] = ["a"]
    elif edit == "seed":
        content["seed"] = float("inf")
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("twice", "twice, in aux_member and in reference"),
        ("moved", "was changed"),
        ("cell missing", r"not a split manifest of smplora \(Value error, it lacks test_member\)"),
        ("digest", r"not a split manifest of smplora \(cells.reference.0.digest: Input should be a valid string\)"),
        ("seed", r"not a split manifest of smplora \(seed: Infinity is not a number\)"),
    ],
)
def test_edited_manifest_is_refused(tmp_path: Path, edit: str, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        read_split(edited(tmp_path, edit), POOL)


def test_changed_images_and_captions_are_refused(tmp_path: Path) -> None:
    path = write_split(make_split(POOL, SplitOptions()), tmp_path)
    with pytest.raises(SplitError, match="1 images of"):
        read_split(path, POOL[1:])
    with pytest.raises(SplitError, match="1 captions differ"):
        read_split(path, [Sample("0.png", "another", "digest0000"), *POOL[1:]])


@pytest.mark.parametrize(("reference", "held_out"), [(20, "reference"), (0, "test_nonmember")])
def test_quality_is_measured_on_images_that_nothing_learned_from(reference: int, held_out: str) -> None:
    assert make_split(POOL, SplitOptions(aux_size=12, reference_size=reference)).held_out == held_out


def test_images_that_are_in_no_cell_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_split(make_split(POOL, SplitOptions()), tmp_path)
    read_split(path, POOL)
    assert capsys.readouterr().err == ""
    read_split(path, [*POOL, Sample("new.png", "c", "new")])
    assert "1 of the 101 images are in no cell" in capsys.readouterr().err


def test_how_often_an_image_is_trained_on_is_sealed(tmp_path: Path) -> None:
    often = [replace(sample, repeats=1 + (i == 7)) for i, sample in enumerate(POOL)]
    split, plain = make_split(often, SplitOptions()), make_split(POOL, SplitOptions())
    assert split.seal != plain.seal
    assert split.pass_length - plain.pass_length == sum(s.digest == "digest0007" for s in split.train)
    assert read_split(write_split(split, tmp_path), often) == split
    with pytest.raises(SplitError, match="1 images are to be trained on more or less often"):
        read_split(tmp_path / "split.json", POOL)
    assert "repeats" not in json.dumps(as_json(plain.manifest()))  # sealed as before there were repeats


@pytest.mark.parametrize(
    ("pool", "cell"), [(20, 4), (200, 40), (220, 43), (250, 45), (278, 52), (300, 57), (350, 70), (600, 100)]
)
def test_default_cells_leave_enough_for_fid_where_that_costs_little(pool: int, cell: int) -> None:
    assert default_cell(pool) == cell
    assert pool < 242 or pool - 4 * cell >= ENOUGH_FOR_FID
    assert default_cell(pool) <= default_cell(pool + 1), "one image more is never fewer in a cell"
