"""Pictures in rows and grids of equal squares, as PNG without metadata: how results keep what they show."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

TILE = 128  # pixels of a square in a gallery
LARGEST_TILE = 256  # pixels: a page of photographs should still travel by mail


def png(picture: Image.Image) -> bytes:
    """A PNG file of the picture, without metadata."""
    plain = picture.convert("RGB")
    plain.info = {}
    buffer = io.BytesIO()
    plain.save(buffer, "PNG")
    return buffer.getvalue()


def grid(rows: Sequence[Sequence[Image.Image]], tile: int = TILE) -> bytes:
    """Rows of equally many pictures as one PNG file; each is cut and scaled to a square of ``tile`` pixels, small ones
    without smoothing."""
    sheet = Image.new("RGB", (tile * len(rows[0]) if rows else 0, tile * len(rows)))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            scaling = Image.Resampling.NEAREST if picture.height < tile else Image.Resampling.LANCZOS
            sheet.paste(ImageOps.fit(picture, (tile, tile), scaling), (tile * x, tile * y))
    return png(sheet)


def cut(path: Path, rows: int, columns: int) -> list[list[Image.Image]]:
    """The squares of a grid: [rows][columns].

    Raises:
        OSError: no such file, or no picture.
        ValueError: it is not a grid of so many squares.
    """
    with Image.open(path) as file:
        sheet = file.convert("RGB")
    side = sheet.height // max(rows, 1)
    if (sheet.width, sheet.height) != (side * columns, side * rows):
        raise ValueError(f"{path.name} is {sheet.width} x {sheet.height} pixels, not {rows} x {columns} squares")
    return [
        [sheet.crop((side * x, side * y, side * (x + 1), side * (y + 1))) for x in range(columns)] for y in range(rows)
    ]


def tiles(path: Path, count: int) -> tuple[bytes, ...]:
    """The squares of a row as PNG files, small enough for a page; () where there is no row.

    Raises:
        ValueError: it is not a row of so many squares.
    """
    if not path.is_file() or not count:
        return ()
    return tuple(thumbnail(picture) for picture in cut(path, 1, count)[0])


def thumbnail(picture: Image.Image) -> bytes:
    """A PNG file of the picture, made small enough for a page."""
    small = picture.convert("RGB")
    small.thumbnail((LARGEST_TILE, LARGEST_TILE))
    small.info = {}
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
