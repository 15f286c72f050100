"""Class folders, tables of captions, data sets: every source gives the same samples for the same pictures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from smplora.config.data import DataOptions
from smplora.core.errors import ConfigError, DataError
from smplora.data.pool import Sample, open_source, read_samples

CAPTIONS = ["red, cat", "blue dog", "green bird", "pink fish"]
PICTURES = [Image.new("RGB", (9, 8 + k), (40 * k, 0, 9)) for k in range(4)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def samples_of(**options: str) -> list[Sample]:
    return read_samples(open_source(DataOptions(**options)))


def dataset(**columns: object) -> datasets.Dataset:
    features = {"image": datasets.Image(), "text": datasets.Value("string")}
    if "label" in columns:
        features["label"] = datasets.ClassLabel(names=["tabby_cat", "dog"])
    if isinstance(columns.get("text", [""])[0], list):
        features["text"] = datasets.List(datasets.Value("string"))
    content = {"image": PICTURES, "text": CAPTIONS, **columns}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two class folders."""
    for k, picture in enumerate(PICTURES):
        place = tmp_path / "pets" / ("tabby_cat" if k < 2 else "dog") / f"{k}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
    return tmp_path / "pets"


def test_class_folders(folder: Path) -> None:
    samples = samples_of(train_data_dir=str(folder), default_caption="a photo of a {class}")
    assert [(s.file, s.caption) for s in samples] == [
        ("dog/2.png", "a photo of a dog"),
        ("dog/3.png", "a photo of a dog"),
        ("tabby_cat/0.png", "a photo of a tabby cat"),
        ("tabby_cat/1.png", "a photo of a tabby cat"),
    ]


def test_an_image_outside_of_class_folders_has_no_class(folder: Path) -> None:
    Image.new("RGB", (5, 5)).save(folder / "x.png")
    with pytest.raises(DataError, match=r"x\.png: no caption"):
        samples_of(train_data_dir=str(folder), default_caption="a photo of a {class}")


def test_tables_in_csv_and_in_subfolders(folder: Path) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "text"], ["tabby_cat/0.png", CAPTIONS[0]], ["tabby_cat/1.png", "x"]])
    rows = [{"file_name": "2.png", "text": "third"}, {"file_name": "./3.png", "text": "fourth"}]
    (folder / "dog" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [s.caption for s in samples_of(train_data_dir=str(folder))] == ["third", "fourth", CAPTIONS[0], "x"]


def test_caption_files_of_kohya(folder: Path) -> None:
    (folder / "dog" / "2.caption").write_text("by its .caption file")
    (folder / "dog" / "3.caption").write_text("second")
    (folder / "dog" / "3.txt").write_text("first")
    captions = [s.caption for s in samples_of(train_data_dir=str(folder), default_caption="x")]
    assert captions == ["by its .caption file", "first", "x", "x"]


def test_a_wrong_caption_column_names_the_ones_there_are(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "dog/2.png", "blip": "x"}))
    with pytest.raises(DataError, match="--caption_column got 'text'; the tables have blip"):
        samples_of(train_data_dir=str(folder))


def bare_parquet(path: Path) -> None:
    """Without the library's own schema: encoded pictures as bytes."""
    contents = []
    for picture in PICTURES:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        contents.append(buffer.getvalue())
    pyarrow.parquet.write_table(pyarrow.table({"image": contents, "text": CAPTIONS}), path)


@pytest.mark.parametrize("form", ["saved", "saved splits", "parquet file", "parquet folder", "shards", "bare parquet"])
def test_every_form_gives_the_folders_samples(form: str, tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "set"
    if form == "saved":
        dataset().save_to_disk(place)
    elif form == "saved splits":
        datasets.DatasetDict({"train": dataset(), "test": dataset().select([0])}).save_to_disk(place)
    elif form == "shards":
        (place / "data").mkdir(parents=True)
        dataset().select([0, 1]).to_parquet(place / "data" / "train-00000-of-00002.parquet")
        dataset().select([2, 3]).to_parquet(place / "data" / "train-00001-of-00002-a1b2.parquet")
        dataset().select([0]).to_parquet(place / "data" / "test-00000-of-00001.parquet")
    else:
        place = tmp_path / "pictures.parquet"
        bare_parquet(place) if form == "bare parquet" else dataset().to_parquet(place)
        place = place if form == "parquet file" else place.parent
    samples = samples_of(dataset_name=str(place))
    assert [s.file for s in samples] == [f"row-{k:05d}" for k in range(4)]
    assert [s.caption for s in samples] == CAPTIONS
    digests = {s.file: s.digest for s in samples_of(train_data_dir=str(folder), default_caption="x")}
    assert {s.digest for s in samples} == set(digests.values())


def test_reading_a_dataset_copies_it_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    dataset().to_parquet(tmp_path / "x.parquet")
    samples_of(dataset_name=str(tmp_path / "x.parquet"))
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def test_splits_and_columns(tmp_path: Path) -> None:
    place = str(tmp_path / "set")
    pictures = dataset(label=[0, 1, 1, 0]).rename_columns({"image": "picture", "text": "blip"})
    datasets.DatasetDict({"test": pictures}).save_to_disk(place)
    options = {"dataset_name": place, "dataset_split": "test", "image_column": "picture", "caption_column": "blip"}
    assert [s.caption for s in samples_of(**options)] == CAPTIONS
    by_label = samples_of(**{**options, "caption_column": "label"})
    assert [s.caption for s in by_label] == ["tabby_cat", "dog", "dog", "tabby_cat"]
    by_class = samples_of(**{**options, "caption_column": "text"}, default_caption="my {class}")
    assert [s.caption for s in by_class] == ["my tabby cat", "my dog", "my dog", "my tabby cat"]
    with pytest.raises(ConfigError, match=r"--dataset_split got 'train'; .* has test"):
        samples_of(**{**options, "dataset_split": "train"})
    with pytest.raises(ConfigError, match=r"--image_column got 'image'; .* has the columns picture, blip, label"):
        samples_of(**{**options, "image_column": "image"})
    pictures.save_to_disk(tmp_path / "single")
    with pytest.raises(ConfigError, match=r"--dataset_split got 'test'; .* has train"):
        samples_of(**{**options, "dataset_name": str(tmp_path / "single")})
    with pytest.raises(ConfigError, match="--image_column got 'label', which does not hold images"):
        samples_of(**{**options, "image_column": "label"})
    with pytest.raises(DataError, match=r"the column 'text' \(there are picture, blip, label\)"):
        samples_of(**{**options, "caption_column": "text"})


def test_lists_of_captions_and_gaps(tmp_path: Path) -> None:
    dataset(text=[["one", "other"], ["two"], [], None]).save_to_disk(tmp_path / "set")
    samples = samples_of(dataset_name=str(tmp_path / "set"), default_caption="none")
    assert [s.caption for s in samples] == ["one", "two", "none", "none"]
    assert [s.more_captions for s in samples] == [("other",), (), (), ()]


def test_lists_of_captions_in_a_table(folder: Path) -> None:
    row = {"file_name": "tabby_cat/0.png", "text": ["one", "", "other ", "one", 3]}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    samples = {s.file: s for s in samples_of(train_data_dir=str(folder), default_caption="none")}
    assert [s.file for s in samples.values() if s.more_captions] == ["tabby_cat/0.png"]
    assert (samples["tabby_cat/0.png"].caption, samples["tabby_cat/0.png"].more_captions) == ("one", ("other",))


def test_further_captions_are_sealed_with_the_split(folder: Path) -> None:
    sample = samples_of(train_data_dir=str(folder), default_caption="none")[0]
    assert replace(sample, more_captions=("b",)).words != sample.words == "none"


def test_unreadable_rows_are_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(
        pyarrow.table({"image": [b"no picture", b"", None], "text": ["a", "b", "c"]}), tmp_path / "x.parquet"
    )
    with pytest.raises(DataError) as error:
        samples_of(dataset_name=str(tmp_path / "x.parquet"))
    for part in ("row-00000: not a readable image", "row-00001: empty file", "row-00002: no image"):
        assert part in str(error.value)


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither parquet nor a data set written by save_to_disk"):
        samples_of(dataset_name=str(tmp_path))
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="which cannot be read"):
        samples_of(dataset_name=str(tmp_path / "x.parquet"))


def test_a_hub_id_is_looked_up_in_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """conftest.py forbids every connection; here the library believes that there is a network."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match="neither a file or folder here nor a data set in the local cache"):
        samples_of(dataset_name="somebody/pictures")
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_hub_id_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    (tmp_path / "pets").mkdir()
    dataset().to_parquet(tmp_path / "pets" / "train.parquet")
    datasets.load_dataset(str(tmp_path / "pets"))
    next(p for p in cache.iterdir() if p.is_dir()).rename(cache / "somebody___pets")
    assert [s.caption for s in samples_of(dataset_name="somebody/pets")] == CAPTIONS


def test_sixteen_bit_and_cmyk_pictures_in_a_dataset(tmp_path: Path) -> None:
    """The library decodes 16 bit otherwise than smplora: digests must be those of the same files in a folder."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(ramp).save(tmp_path / "pictures" / "a.png")
    PICTURES[1].convert("CMYK").save(tmp_path / "pictures" / "b.jpg")
    files = sorted(str(p) for p in (tmp_path / "pictures").iterdir())
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": files, "text": ["a", "b"]}, features=features)
    rows.save_to_disk(tmp_path / "set")
    both = (
        samples_of(dataset_name=str(tmp_path / "set")),
        samples_of(train_data_dir=str(tmp_path / "pictures"), default_caption="x"),
    )
    assert [s.digest for s in both[0]] == [s.digest for s in both[1]]
