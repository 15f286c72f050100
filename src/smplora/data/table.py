"""Data sets of the ``datasets`` library: saved to disk, parquet files, or a hub id that is in the local cache."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from smplora.config.data import DataOptions
from smplora.core import offline
from smplora.core.errors import ConfigError, DataError
from smplora.core.surroundings import expanded
from smplora.data.pictures import UnreadableImage, read_image
from smplora.data.source import Reading, default_caption, one_and_more

TRAIN = "train"  # the split that is used unless another one is asked for


class ImageTable:
    """Rows with an image and a caption. Pictures are decoded by smplora, so that the same picture has the same digest
    in a folder and in a data set; nothing is written to any cache."""

    def __init__(self, options: DataOptions) -> None:
        """``options.dataset_name`` names the data set.

        Raises:
            ConfigError: the datasets library is missing, or the data set has no such split or column.
            DataError: no such data set.
        """
        if find_spec("datasets") is None:
            raise ConfigError("--dataset_name needs the datasets library: pip install smplora[datasets]")
        import datasets

        self.options = options
        self.reading = Reading()
        self.title = f"--dataset_name '{options.dataset_name}'"
        self.rows = _one_split(_load(options), options).with_format(None)  # as saved, values may come as tensors
        try:
            self.rows.data.table.validate(full=True)  # lengths and offsets in a damaged file lead outside of it
        except (ValueError, OSError) as error:
            raise DataError(f"{self.title} is damaged: {str(error).splitlines()[0]}") from error
        columns = ", ".join(self.rows.column_names)
        self.where_captions_come_from = (
            f"the column '{options.caption_column}' (there are {columns}) or --default_caption"
        )
        if options.image_column not in self.rows.column_names:
            raise ConfigError(f"--image_column got '{options.image_column}'; {self.title} has the columns {columns}")
        try:
            self.rows = self.rows.cast_column(options.image_column, datasets.Image(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ConfigError(f"--image_column got '{options.image_column}', which does not hold images") from error
        if not len(self.rows):
            raise DataError(f"{self.title} has no rows")

    def captions(self, problems: list[str]) -> dict[str, str | None]:
        """See ImageSource."""
        column = self.options.caption_column
        words = self._words(column) if column in self.rows.column_names else [(None, ())] * len(self.rows)
        classes = self._words(name) if (name := self._class_column()) else [(None, ())] * len(self.rows)
        names = [f"row-{i:05d}" for i in range(len(self.rows))]
        more = {name: more for name, (_, more) in zip(names, words, strict=True) if more}
        own = sum(caption is not None for caption, _ in words)
        captions = {
            name: caption or default_caption(self.options.default_caption, class_name)
            for name, (caption, _), (class_name, _) in zip(names, words, classes, strict=True)
        }
        default = sum(text is not None for text in captions.values()) - own
        self.reading = Reading(more, Counter({f"the column '{column}'": own, "--default_caption": default}))
        return captions

    def read(self, name: str) -> Image.Image:
        """See ImageSource."""
        value = self.rows[int(name.removeprefix("row-"))][self.options.image_column]
        if value is None:
            raise UnreadableImage("no image")
        return read_image(value["bytes"] if value["bytes"] is not None else Path(value["path"]))

    def _words(self, column: str) -> list[tuple[str | None, tuple[str, ...]]]:
        """A column as text, names of classes for their numbers; and what follows the first of a list."""
        feature, values = self.rows.features[column], self.rows[column]
        if hasattr(feature, "int2str"):
            return [(feature.int2str(v) if v is not None and v >= 0 else None, ()) for v in values]
        return [one_and_more(value) for value in values]

    def _class_column(self) -> str | None:
        """The column of class names: "label", or the only one of its kind."""
        columns = [name for name, feature in self.rows.features.items() if hasattr(feature, "int2str")]
        return "label" if "label" in columns else columns[0] if len(columns) == 1 else None


def _load(options: DataOptions) -> Any:
    """A Dataset, or a mapping of them by split."""
    import datasets

    name = options.dataset_name or ""
    path = expanded(name)
    try:
        if path.is_file() or any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")):
            return _parquet(path)
        if path.is_dir():
            return datasets.load_from_disk(str(path))
        fetching = getattr(options, "allow_download", False)
        with offline.hub(fetching), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return datasets.load_dataset(name, options.dataset_config_name)
    except FileNotFoundError as error:
        text = "which is neither parquet nor a data set written by save_to_disk" if path.exists() else _NOT_THERE
        raise DataError(f"--dataset_name got '{name}', {text}") from error
    except ConnectionError as error:
        raise DataError(f"--dataset_name got '{name}', {_NOT_THERE}") from error
    except Exception as error:  # the library reads files that may be damaged, and ends in anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"--dataset_name got '{name}', which cannot be read: {reason}") from error


_NOT_THERE = (
    "which is neither a file or folder here nor a data set in the local cache; --allow_download fetches data sets of "
    "the hub"
)


def _parquet(path: Path) -> dict[str, Any]:
    """Parquet files by split: ``train-00000-of-00002.parquet`` is of the split "train", as on the hub; any other name
    too. Read as they are: load_dataset would first copy the images into a cache of its own."""
    import datasets
    import pyarrow.parquet

    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    shards: dict[str, list[Any]] = {}
    for file in files:
        match = re.fullmatch(r"(\w+?)-\d+-of-\d+(-\w+)?", file.stem)
        shards.setdefault(match[1] if match else TRAIN, []).append(
            datasets.Dataset(pyarrow.parquet.read_table(file, memory_map=True))
        )
    return {split: datasets.concatenate_datasets(parts) for split, parts in shards.items()}


def _one_split(loaded: Any, options: DataOptions) -> Any:
    split = options.dataset_split
    if not isinstance(loaded, dict):  # save_to_disk of a single split, which may know its name
        name = str(loaded.split or TRAIN)
        loaded = {name: loaded, TRAIN: loaded} if split == TRAIN else {name: loaded}
    if split not in loaded:
        raise ConfigError(
            f"--dataset_split got '{split}'; --dataset_name '{options.dataset_name}' has {', '.join(map(str, loaded))}"
        )
    return loaded[split]
