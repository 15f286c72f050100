"""Encoded cells: images of one or several shapes, each in one or several variants, captions in one or several wordings.

Audits look at every image's first variant and first wording. Training chooses anew for every batch, as a function of
(seed, name of the walk, number of the batch, digest of the image).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from smplora.core.random_streams import generator, stream_seed
from smplora.models.batch import Batch


@dataclass(frozen=True)
class ShapeGroup:
    """Images of one shape."""

    mean: Tensor  # [r, c, h, w], all variants of all images
    std: Tensor  # likewise
    conditioning: Mapping[str, Tensor]  # [r, ...], what the denoiser is told of a variant's size and crop
    variants: tuple[tuple[int, ...], ...]  # of each image, rows of the above; the first is centred and not mirrored
    wordings: tuple[tuple[int, ...], ...]  # of each image, rows of the cell's texts; the first is as written
    digests: tuple[str, ...]  # n
    places: tuple[int, ...]  # n, the images' places in the cell

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def shape(self) -> str:
        """ "64x64", of the latents."""
        return "x".join(str(n) for n in self.mean.shape[2:])


@dataclass(frozen=True)
class Cell:
    """The images of a cell. Rows of its groups are shared with other parts of what was encoded together."""

    groups: tuple[ShapeGroup, ...]
    texts: Mapping[str, Tensor]  # [t, ...], one row per distinct wording
    empty: int = 0  # the row of the empty caption
    dropout: float = 0.0  # how often training takes it

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __getitem__(self, places: slice) -> Cell:
        """The images at the given places."""
        new = {place: i for i, place in enumerate(range(len(self))[places])}
        groups = []
        for group in self.groups:
            rows = [row for row, place in enumerate(group.places) if place in new]
            if rows:
                groups.append(
                    replace(
                        group,
                        variants=tuple(group.variants[row] for row in rows),
                        wordings=tuple(group.wordings[row] for row in rows),
                        digests=tuple(group.digests[row] for row in rows),
                        places=tuple(new[group.places[row]] for row in rows),
                    )
                )
        return replace(self, groups=tuple(groups))

    def repeated(self, often: Sequence[int]) -> Cell:
        """Each image as often as ``often`` says at its place: what a pass of training goes through."""
        if all(times == 1 for times in often):
            return self
        starts = list(accumulate(often, initial=0))
        groups = []
        for group in self.groups:
            rows = [(row, k) for row in range(len(group)) for k in range(often[group.places[row]])]
            groups.append(
                replace(
                    group,
                    variants=tuple(group.variants[row] for row, _ in rows),
                    wordings=tuple(group.wordings[row] for row, _ in rows),
                    digests=tuple(group.digests[row] for row, _ in rows),
                    places=tuple(starts[group.places[row]] + k for row, k in rows),
                )
            )
        return replace(self, groups=tuple(groups))

    def split(self, size: int) -> Iterator[Batch]:
        """Batches of at most ``size`` images and of one shape each, first variants and wordings, shape after shape."""
        for group in self.groups:
            for start in range(0, len(group), size):
                yield self.batch(group, range(start, min(start + size, len(group))))

    @property
    def order(self) -> list[int]:
        """The places of the images in the order of ``split``."""
        return [place for group in self.groups for place in group.places]

    def whole(self) -> Batch:
        """All images as one batch.

        Raises:
            ValueError: they have several shapes.
        """
        (batch,) = self.split(len(self))
        return batch

    def batch(self, group: ShapeGroup, rows: Sequence[int], choose: VariantChoice | None = None) -> Batch:
        """The given rows of a group, with the variants and wordings that ``choose`` takes: by default the first."""
        device = group.mean.device
        images = [group.variants[row][0] for row in rows]
        texts = [group.wordings[row][0] for row in rows]
        if choose:
            images = [choose.pick(group.variants[row], group.digests[row], "variant") for row in rows]
            texts = [choose.pick(group.wordings[row], group.digests[row], "wording") for row in rows]
        if choose and self.dropout:
            dropped = [choose.uniform(group.digests[row], "dropout") < self.dropout for row in rows]
            texts = [self.empty if gone else text for gone, text in zip(dropped, texts, strict=True)]
        image_rows, text_rows = (torch.tensor(x).to(device, non_blocking=True) for x in (images, texts))
        return Batch(
            mean=group.mean[image_rows],
            std=group.std[image_rows],
            conditioning={
                **{name: table[text_rows] for name, table in self.texts.items()},
                **{name: table[image_rows] for name, table in group.conditioning.items()},
            },
            digests=tuple(group.digests[row] for row in rows),
        )


@dataclass(frozen=True)
class VariantChoice:
    """Choices for each image of a batch: functions of (seed, name of the walk, number of the batch, digest)."""

    names: tuple[int | str, ...]

    def pick(self, options: Sequence[int], digest: str, purpose: str) -> int:
        """One of ``options``, each equally likely."""
        return options[stream_seed(*self.names, digest, purpose) % len(options)] if len(options) > 1 else options[0]

    def uniform(self, digest: str, purpose: str) -> float:
        """Uniform in [0, 1)."""
        return stream_seed(*self.names, digest, purpose) / 2.0**63


def take(cell: Cell, size: int, turn: int, seed: int, name: str) -> Batch:
    """Batch number ``turn`` of an endless walk through ``cell``, all of one shape and always of ``size`` images.

    Each shape has a walk of its own that visits every image once per pass, in a new order each time; a batch may reach
    into the next pass. Which shape's turn it is goes by a walk too: of N batches in a row, N the number of images, each
    shape has as many as it has images. So every image comes up equally often, and no incomplete batch is left over or
    dropped. All of it is a function of (seed, name).
    """
    group, rows = rows_of(cell, size, turn, seed, name)
    return cell.batch(group, rows, VariantChoice((seed, name, turn)))


def rows_of(cell: Cell, size: int, turn: int, seed: int, name: str) -> tuple[ShapeGroup, list[int]]:
    """Which images ``take`` takes, before anything of them is read."""
    lap, place = divmod(turn, len(cell))
    which, earlier = _shapes(tuple(len(group) for group in cell.groups), lap, seed, name)[place]
    group = cell.groups[which]
    stream = name if len(cell.groups) == 1 else f"{name} {group.shape}"
    return group, list(walk(len(group), (lap * len(group) + earlier) * size, size, seed, stream))


@lru_cache(maxsize=16)
def _shapes(sizes: tuple[int, ...], lap: int, seed: int, name: str) -> list[tuple[int, int]]:
    """A permutation of every shape as often as it has images: (shape, how many of it came before in this lap)."""
    if len(sizes) == 1:
        return [(0, k) for k in range(sizes[0])]
    each = [which for which, size in enumerate(sizes) for _ in range(size)]
    before = [0] * len(sizes)
    order = []
    for k in torch.randperm(len(each), generator=generator(seed, name, "shapes", lap)).tolist():
        order.append((each[k], before[each[k]]))
        before[each[k]] += 1
    return order


def walk(length: int, start: int, count: int, seed: int, name: str) -> Iterator[int]:
    """Places ``start`` to ``start + count`` of the walk."""
    place, end = start, start + count
    while place < end:
        lap, offset = divmod(place, length)
        part = _order(length, lap, seed, name)[offset : offset + end - place].tolist()
        yield from part
        place += len(part)


@lru_cache(maxsize=16)
def _order(length: int, lap: int, seed: int, name: str) -> Tensor:
    """The order of a pass. Kept: to make one of 100,000 places takes longer than a batch of them."""
    return torch.randperm(length, generator=generator(seed, name, "order", lap))
