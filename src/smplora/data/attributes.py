"""What else is told of images than their captions: another column of their tables, or the folder that they lie in."""

from __future__ import annotations

from pathlib import PurePosixPath

from smplora.core.errors import DataError, nearest
from smplora.core.reading import shortened
from smplora.data.caption_tables import FILE_NAME, rows
from smplora.data.folder import ImageFolder
from smplora.data.source import ImageSource, JoinedSources
from smplora.data.table import ImageTable

FOLDER = "folder"  # the name of an image's folder, unless a table has a column of that name


def attribute_values(source: ImageSource, column: str) -> dict[str, str]:
    """The value of every image that has one, by the image's name, as text.

    Raises:
        DataError: no such column; the message lists those that there are.
    """
    if isinstance(source, JoinedSources):  # of canaries nobody asks
        return attribute_values(source.sources[""], column)
    if isinstance(source, ImageTable):
        return _of_table(source, column)
    assert isinstance(source, ImageFolder), "runs of 'smplora train' have no other source"
    found, columns, names = {}, set[str](), {file.as_posix() for file in source.files}
    for table in source.listing.tables:
        for row in rows(source.folder, table, []):  # what is wrong with other rows was said when captions were read
            columns |= set(row.values)
            name, text = (table.parent / row.file_name).as_posix(), _text(row.values.get(column))
            if text is not None and name in names:
                found[name] = text
    if column not in columns and column == FOLDER:
        return {name: folder for name in names if (folder := PurePosixPath(name).parent.name)}
    if column not in columns:
        raise _no_column(source, column, {*columns, FOLDER} - {FILE_NAME})
    return found


def _of_table(source: ImageTable, column: str) -> dict[str, str]:
    names = [name for name in source.rows.column_names if name != source.options.image_column]
    if column not in names:
        raise _no_column(source, column, set(names))
    feature = source.rows.features[column]
    named = getattr(feature, "int2str", None)
    texts = (_text(named(v) if named and v is not None and v >= 0 else v) for v in source.rows[column])
    return {f"row-{i:05d}": text for i, text in enumerate(texts) if text is not None}


def _text(value: object) -> str | None:
    """A single value as text; None where there is none, or several."""
    if value is None or isinstance(value, (list, tuple, dict)):
        return None
    return str(value).strip() or None


def _no_column(source: ImageSource, column: str, there: set[str]) -> DataError:
    listed = ", ".join(shortened(name) for name in sorted(there)[:20])
    hint = nearest(column, there)
    return DataError(f"--attribute got '{column}', which {source.title} does not have{hint}; allowed: {listed}")
