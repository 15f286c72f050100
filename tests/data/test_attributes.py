"""What else is told of images than their captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smplora.config.data import DataOptions
from smplora.core.errors import DataError
from smplora.data.attributes import attribute_values
from smplora.data.pool import open_source


def pictures(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)


def test_columns_of_tables_in_several_folders(tmp_path: Path) -> None:
    pictures(tmp_path, ["a.png", "b.png", "more/c.png", "more/d.png", "more/e.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text,label\na.png,x, five \nb.png,x,\nc.png,x,six\n")
    rows: list[dict[str, Any]] = [{"file_name": "c.png", "label": 5}, {"file_name": "d.png", "label": ["five"]}]
    (tmp_path / "more" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, {"label": 1}]))
    source = open_source(DataOptions(train_data_dir=str(tmp_path)))
    assert attribute_values(source, "label") == {"a.png": "five", "more/c.png": "5"}
    assert attribute_values(source, "folder") == dict.fromkeys(("more/c.png", "more/d.png", "more/e.png"), "more")
    with pytest.raises(DataError, match=r"'lable'.*did you mean 'label'.*allowed: 'folder', 'label', 'text'"):
        attribute_values(source, "lable")


def test_columns_of_a_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pictures(tmp_path, ["0.png", "1.png", "2.png"])
    images = [{"bytes": (tmp_path / f"{k}.png").read_bytes(), "path": None} for k in range(3)]
    features = datasets.Features(
        {
            "image": datasets.Image(decode=False),
            "label": datasets.ClassLabel(names=["five", "six"]),
            "n": datasets.Value("int64"),
        }
    )
    rows = {"image": images, "label": [1, None, 0], "n": [3, 4, None]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set.parquet")
    source = open_source(DataOptions(dataset_name=str(tmp_path / "set.parquet")))
    assert attribute_values(source, "label") == {"row-00000": "six", "row-00002": "five"}
    assert attribute_values(source, "n") == {"row-00000": "3", "row-00001": "4"}
    with pytest.raises(DataError, match="allowed: 'label', 'n'"):
        attribute_values(source, "image")
