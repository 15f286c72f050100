"""The paper's data sets from made-up originals in the layouts of the downloads."""

from __future__ import annotations

import json
import stat
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from smplora import api
from smplora.cli.main import main
from smplora.config.catalogue.paper_data_sets import SUBSETS
from smplora.config.data import DataOptions
from smplora.data.paper.drawing import counts, shuffled
from smplora.data.pool import open_source, read_samples

REPOSITORY = Path(__file__).parents[2]


def picture(number: int) -> bytes:
    """A bitmap of one pixel: a different picture for every number."""
    header = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0)
    return header + struct.pack("<I", number)


def celeba(folder: Path, people: int, each: int = 9, women_from: int = 0) -> Path:
    """``people`` of ``each`` images; person k is a woman where k >= women_from; one image in nine is mislabelled."""
    (folder / "img_align_celeba").mkdir(parents=True)
    lines, attributes = [], []
    for k in range(people * each):
        person, name = k % people, f"{k:06d}.jpg"
        (folder / "img_align_celeba" / name).write_bytes(picture(k))
        lines.append(f"{name} {person + 1}")
        male = (person < women_from) != (k // people == 0)
        attributes.append(f"{name} -1 {1 if male else -1}")
    (folder / "identity_CelebA.txt").write_text("\n".join(lines) + "\n")
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(people * each), "Young Male", *attributes]) + "\n")
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return celeba(tmp_path_factory.mktemp("originals") / "celeba", people=120, women_from=60)


def build(name: str, source: Path, output: Path, *more: str) -> dict[str, Any]:
    assert main(["dataset", name, "--source", str(source), "--output_dir", str(output), *more]) == 0
    record: dict[str, Any] = json.loads((output / "dataset.json").read_text())
    assert len(list((output / "images").rglob("*.*"))) == len(record["images"]) == SUBSETS[name].images
    return record


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["dataset", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def people_of(record: dict[str, Any]) -> Counter[str]:
    return Counter(row["group"] for row in record["images"])


def test_the_counts_are_uniform_and_sum_up() -> None:
    drawn = [n for seed in range(40) for n in counts(100, 1, 4, 252, seed)]
    assert sum(drawn) == 40 * 252
    frequencies = Counter(drawn)
    assert set(frequencies) == {1, 2, 3, 4}
    assert all(abs(frequencies[k] / 4000 - 0.25) < 0.03 for k in frequencies)  # four standard deviations
    assert counts(3, 8, 8, 24, 0) == [8, 8, 8]
    with pytest.raises(ValueError, match="cannot have 9"):
        counts(2, 1, 4, 9, 0)


def test_missing_names_leave_the_order_of_the_others() -> None:
    names = [str(k) for k in range(50)]
    order = shuffled(names, 0, "x")
    assert sorted(order) == sorted(names) != order
    assert shuffled(names[::-2], 0, "x") == [name for name in order if name in names[::-2]]
    assert shuffled(names, 1, "x") != order


def test_small(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "data" / "small"
    record = build("celeba_small", faces, output)
    assert list(people_of(record).values()) == [8] * 25
    assert "200 images have no caption: smplora caption" in capsys.readouterr().out
    assert record["originals"] == {
        "title": "CelebA",
        "images": 1080,
        "images_listed_but_missing": 0,
        "people": 120,
        "people_with_8_images": 120,
    }
    people = dict(line.split() for line in (faces / "identity_CelebA.txt").read_text().splitlines())
    for row in record["images"]:
        original = faces / row["original"]
        assert people[original.name] == row["group"]
        assert (output / row["file"]).samefile(original)
    assert stat.S_IMODE(output.stat().st_mode) == 0o700
    samples = read_samples(open_source(DataOptions(train_data_dir=str(output), default_caption="a face")))
    assert {s.digest for s in samples} == {row["digest"] for row in record["images"]}


def test_the_same_seed_draws_the_same_people(faces: Path, tmp_path: Path) -> None:
    first = build("celeba_small", faces, tmp_path / "a")
    assert build("celeba_small", faces, tmp_path / "b", "--copy_images") == first
    assert api.dataset("celeba_small", output_dir=tmp_path / "b") == tmp_path / "b"
    assert not (tmp_path / "b" / first["images"][0]["file"]).samefile(faces / first["images"][0]["original"])
    assert people_of(build("celeba_small", faces, tmp_path / "c", "--seed", "1")) != people_of(first)
    large = build("celeba_large", faces, tmp_path / "large")
    assert set(people_of(first)) < set(people_of(large))
    assert set(people_of(large).values()) == {8}


@pytest.mark.parametrize(("majority", "men"), [("male", 14), ("female", 6)])
def test_gender(faces: Path, tmp_path: Path, majority: str, men: int) -> None:
    drawn = people_of(build("celeba_gender", faces, tmp_path / "out", "--majority", majority))
    assert list(drawn.values()) == [8] * 20
    assert sum(int(person) <= 60 for person in drawn) == men


def test_varying(faces: Path, tmp_path: Path) -> None:
    drawn = people_of(build("celeba_varying", faces, tmp_path / "out"))
    assert len(drawn) == 100
    assert set(drawn.values()) == {1, 2, 3, 4}


@pytest.fixture
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer images, drawn in the same way."""
    sizes = {"afhq_large_5x": (60, 20), "mscoco_large_5x": (80, 0), "pokemon": (12, 0)}
    for name, (images, each) in sizes.items():
        changed = replace(SUBSETS[name], images=images, fewest=each, most=each)
        monkeypatch.setitem(SUBSETS, name, changed)


@pytest.mark.usefixtures("smaller")
def test_afhq(tmp_path: Path) -> None:
    for c, name in enumerate(("cat", "dog", "wild")):
        folder = tmp_path / "afhq" / "train" / name
        folder.mkdir(parents=True)
        for k in range(21):
            (folder / f"{k}.png").write_bytes(picture(c * 2000 + k))
    record = build("afhq_large_5x", tmp_path, tmp_path / "out")
    assert people_of(record) == {"cat": 20, "dog": 20, "wild": 20}
    source = open_source(
        DataOptions(train_data_dir=str(tmp_path / "out"), default_caption="a photo of a {class} animal")
    )
    assert set(source.captions([]).values()) == {f"a photo of a {name} animal" for name in ("cat", "dog", "wild")}


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    (folder / "train2017").mkdir()
    (folder / "annotations").mkdir()
    for k in range(83):
        (folder / "train2017" / f"{k:012d}.jpg").write_bytes(picture(k))
    images = [{"id": k, "file_name": f"{k:012d}.jpg"} for k in range(85)]  # two are not there
    notes = [{"id": 10 * k + n, "image_id": k, "caption": f" {k} said {n}\n"} for n in (4, 0, 2) for k in range(85)]
    content = {"images": images, "annotations": notes}
    (folder / "annotations" / "captions_train2017.json").write_text(json.dumps(content))
    return folder


@pytest.mark.usefixtures("smaller")
def test_mscoco(coco: Path, tmp_path: Path) -> None:
    record = build("mscoco_large_5x", coco, tmp_path / "out", "--captions", "all")
    assert record["originals"]["images_listed_but_missing"] == 2
    source = open_source(DataOptions(train_data_dir=str(tmp_path / "out")))
    for name, caption in source.captions([]).items():
        number = int(Path(name).stem)
        assert (caption, *source.reading.more_captions[name]) == tuple(f"{number} said {n}" for n in (0, 2, 4))


@pytest.mark.usefixtures("smaller")
def test_pokemon_from_a_folder_and_from_a_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "drawings"
    folder.mkdir()
    for k in range(12):
        (folder / f"{k}.png").write_bytes(picture(k))
        (folder / f"{k}.txt").write_text(f"drawing {k}")
    first = build("pokemon", folder, tmp_path / "a")
    rows = {"image": [str(folder / f"{k}.png") for k in range(12)], "text": [f"drawing {k}" for k in range(12)]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.save_to_disk(str(tmp_path / "saved"))
    second = build("pokemon", tmp_path / "saved", tmp_path / "b")
    assert second["digest"] == first["digest"]
    told = [read_samples(open_source(DataOptions(train_data_dir=str(tmp_path / n)))) for n in "ab"]
    assert {s.digest: s.caption for s in told[0]} == {s.digest: s.caption for s in told[1]}


def test_the_same_picture_twice_is_taken_once(tmp_path: Path) -> None:
    folder = celeba(tmp_path / "faces", 25)
    first = build("celeba_small", folder, tmp_path / "a")
    one, other = first["images"][0]["original"], first["images"][1]["original"]
    (folder / other).unlink()  # it is also a link in the first build
    (folder / other).write_bytes((folder / one).read_bytes())
    second = build("celeba_small", folder, tmp_path / "b")
    assert second["same_pictures"] == {other: one}
    assert len({row["digest"] for row in second["images"]}) == 200


def test_the_same_command_again_checks(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    record = build("celeba_small", faces, output, "--copy_images")
    assert main(["dataset", "celeba_small", "--output_dir", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["digest"] == record["digest"]
    assert "holds another build (seed 0)" in refused(capsys, "celeba_small", "--output_dir", output, "--seed", 1)
    assert "holds another build (name celeba_small" in refused(capsys, "celeba_large", "--output_dir", output)
    (output / record["images"][0]["file"]).unlink()
    (output / record["images"][1]["file"]).write_bytes(picture(10**6))
    message = refused(capsys, "celeba_small", "--output_dir", output)
    assert "2 problems" in message
    assert "not the picture that was drawn" in message


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give one of pokemon, celeba_small" in refused(capsys)
    assert "(did you mean 'celeba_small'?)" in refused(capsys, "celeba_smal")
    out = tmp_path / "out"
    for name, where in {
        "celeba_small": "mmlab.ie.cuhk.edu.hk",
        "afhq_large_5x": "clovaai/stargan-v2",
        "mscoco_large_5x": "cocodataset.org",
        "pokemon": "lambdalabs",
    }.items():
        message = refused(capsys, name, "--output_dir", out)
        assert "--source is missing" in message
        assert where in message
        assert "icence" in message or "non-commercial" in message
        assert "is not a folder" in refused(capsys, name, "--source", tmp_path / "nowhere", "--output_dir", out)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "img_align_celeba.zip").touch()
    message = refused(capsys, "celeba_gender", "--source", empty, "--output_dir", out)
    assert "3 problems" in message
    assert "img_align_celeba.zip is there: unpack it" in message
    assert "no list_attr_celeba.txt" in message
    assert "no train/wild" in refused(capsys, "afhq_large_5x", "--source", empty, "--output_dir", out)
    assert "captions_train2017.json" in refused(capsys, "mscoco_large_5x", "--source", empty, "--output_dir", out)
    assert not out.exists()


def test_too_few_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = celeba(tmp_path / "faces", 24, women_from=20)
    message = refused(capsys, "celeba_small", "--source", folder, "--output_dir", tmp_path / "out")
    assert "takes 25 people with 8 images or more" in message
    assert "has 24 (24 people, 216 images, 0 listed but missing)" in message
    message = refused(capsys, "celeba_gender", "--source", folder, "--output_dir", tmp_path / "out")
    assert "takes 6 women with 8 images or more" in message
    for image in list((folder / "img_align_celeba").iterdir())[:100]:
        image.unlink()
    message = refused(capsys, "celeba_small", "--source", folder, "--output_dir", tmp_path / "out")
    assert "116 images, 100 listed but missing" in message


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("identity_CelebA.txt", "000001.jpg,2880\n", "identity_CelebA.txt line 1 is not 'FILE PERSON'"),
        ("list_attr_celeba.txt", "1\nYoung Old\n", "list_attr_celeba.txt has no column 'Male'"),
        ("list_attr_celeba.txt", "1\nYoung Male\n000001.jpg 1 0\n", "list_attr_celeba.txt line 3 is not a file name"),
        ("list_attr_celeba.txt", "", "has no column 'Male'"),
    ],
)
def test_damaged_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, message: str) -> None:
    folder = celeba(tmp_path / "faces", 20)
    (folder / file).write_text(text)
    assert message in refused(capsys, "celeba_gender", "--source", folder, "--output_dir", tmp_path / "out")


def test_damaged_pictures_and_foreign_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = celeba(tmp_path / "faces", 25)
    for image in (folder / "img_align_celeba").iterdir():
        image.write_bytes(b"")
    message = refused(capsys, "celeba_small", "--source", folder, "--output_dir", tmp_path / "out")
    assert "200 problems" in message
    assert "empty file" in message
    assert "not empty and holds no dataset.json" in refused(
        capsys, "celeba_small", "--source", folder, "--output_dir", folder
    )
    short = tmp_path / "short"
    short.mkdir()
    Image.new("RGB", (2, 2)).save(short / "one.png")
    assert "has 1 images, Pokemon 833" in refused(
        capsys, "pokemon", "--source", short, "--output_dir", tmp_path / "out"
    )


@pytest.mark.parametrize("name", SUBSETS)
def test_the_shipped_cells_fit(name: str) -> None:
    cells = yaml.safe_load((REPOSITORY / "configs" / "paper" / f"{name}.yaml").read_text())
    test = cells["test_size"]
    assert 2 * cells["aux_size"] + test + cells.get("test_nonmember_size", test) == SUBSETS[name].images
