"""Images and captions as the model takes them: encoded once, or taken from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby, islice
from typing import TypeVar

import torch
from torch import Tensor

from smplora.core.cache import Cache
from smplora.core.console import in_threads, progress
from smplora.data.cells import Cell, ShapeGroup
from smplora.data.pictures import Framing, frame
from smplora.data.pool import Sample
from smplora.data.prepare import Preparation, Size, size_numbers
from smplora.data.source import ImageSource
from smplora.models.diffusion import LatentDiffusion
from smplora.models.text import TIME_IDS

PIXELS_AT_ONCE, MOST_IMAGES, CAPTIONS_AT_ONCE = 2**18, 16, 8
Tensors = dict[str, Tensor]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Encoder:
    """Latents and embeddings by content.

    Every forward pass has the same number of rows, filled up where there are fewer: floating point sums depend on it,
    and what an image gives must not depend on which other ones were in the cache.
    """

    model: LatentDiffusion
    source: ImageSource
    cache: Cache | None = None

    def latents(self, framed: Sequence[tuple[Sample, Framing]]) -> tuple[Tensor, Tensor]:
        """Scaled posterior (mean, std) of each framed picture, both [n, c, h, w] on the model's device, so that
        training still samples the posterior. All framings have one size."""
        at_once = max(1, min(MOST_IMAGES, PIXELS_AT_ONCE // (framed[0][1].height * framed[0][1].width)))

        def look(rows: list[int]) -> list[tuple[int, Tensor]]:
            picture = self.source.read(framed[rows[0]][0].file)
            return [(i, frame(picture, framed[i][1])) for i in rows]

        def compute(missing: list[int]) -> Iterator[tuple[int, Tensors]]:
            by_picture = [list(rows) for _, rows in groupby(missing, lambda i: framed[i][0].digest)]
            encoded = in_threads(look, by_picture, "encode images", "image")
            for part in _parts((part_of_one for several in encoded for part_of_one in several), at_once):
                mean, std = self.model.encode_images(torch.stack(_filled([x for _, x in part], at_once)))
                yield from ((i, {"mean": mean[k], "std": std[k]}) for k, (i, _) in enumerate(part))

        kind = ("latents", self.model.digest, str(self.model.vae.dtype), self.model.device.type)
        rows = self._rows([(*kind, sample.digest, repr(framing)) for sample, framing in framed], compute)
        return rows["mean"], rows["std"]

    def texts(self, captions: Sequence[str], resolution: int) -> Tensors:
        """What the denoiser is told, one row per caption, on the model's device: embeddings, or token ids where the
        text encoder is adapted, which cost nothing and are not cached."""
        if self.model.text_is_trained:
            return self.model.encode_captions(captions, resolution)

        def compute(missing: list[int]) -> Iterator[tuple[int, Tensors]]:
            starts = range(0, len(missing), CAPTIONS_AT_ONCE)
            for start in progress(starts, "encode captions", "batch"):
                part = missing[start : start + CAPTIONS_AT_ONCE]
                embedded = self.model.encode_captions(
                    _filled([captions[i] for i in part], CAPTIONS_AT_ONCE), resolution
                )
                yield from ((i, {name: rows[k] for name, rows in embedded.items()}) for k, i in enumerate(part))

        text = self.model.text
        encoder = next(iter(text.encoders.values()))
        kind = (
            "text",
            self.model.digest,
            str(encoder.dtype),
            encoder.device.type,
            str(text.clip_skip),
            str(text.chunks),
        )
        return self._rows([(*kind, str(resolution), caption) for caption in captions], compute)

    def empty(self, resolution: int) -> Tensors:
        """The unconditional side, one row, in the form of ``texts``."""
        if self.model.text_is_trained:
            return self.model.encode_captions([""], resolution)
        with torch.no_grad():
            return self.model.unconditional(1, resolution)

    def _rows(
        self,
        keys: Sequence[tuple[str, ...]],
        compute: Callable[[list[int]], Iterable[tuple[int, Tensors]]],
    ) -> Tensors:
        """One row per key, from the cache or from ``compute`` of the places of those that are not there."""
        known: dict[int, Tensors] = {}
        for i, key in enumerate(keys if self.cache else ()):
            if self.cache and (entry := self.cache.load(*key)):
                known[i] = entry
        for i, tensors in compute([i for i in range(len(keys)) if i not in known]):
            known[i] = {name: row.cpu() for name, row in tensors.items()}
            if self.cache:
                self.cache.save(known[i], *keys[i])
        rows = [known[i] for i in range(len(keys))]
        return {name: torch.stack([row[name] for row in rows]).to(self.model.device) for name in rows[0]}


def encode(
    model: LatentDiffusion,
    source: ImageSource,
    samples: Sequence[Sample],
    preparation: Preparation,
    cache: Cache | None = None,
) -> Cell:
    """Latents of every image's variants and the embeddings of every distinct wording, on the model's device."""
    encoder = Encoder(model, source, cache)
    wordings = [preparation.words(s) for s in samples]
    distinct = {text: row for row, text in enumerate(dict.fromkeys(w for several in wordings for w in several))}
    texts = encoder.texts(list(distinct), preparation.resolution)
    sized = texts.pop(TIME_IDS, None) is not None
    if preparation.dropout:
        nothing = encoder.empty(preparation.resolution)
        texts = {name: torch.cat([table, nothing[name]]) for name, table in texts.items()}
    by_size: dict[Size, list[int]] = {}
    for place, sample in enumerate(samples):
        by_size.setdefault(preparation.size(sample), []).append(place)
    groups = []
    for _, places in sorted(by_size.items()):
        framings = [preparation.framings(samples[place]) for place in places]
        framed = [(samples[place], f) for place, several in zip(places, framings, strict=True) for f in several]
        mean, std = encoder.latents(framed)
        numbers = torch.tensor([size_numbers(*one) for one in framed], device=model.device).float()
        groups.append(
            ShapeGroup(
                mean,
                std,
                conditioning={TIME_IDS: numbers} if sized else {},
                variants=_counted(framings),
                wordings=tuple(tuple(distinct[w] for w in wordings[place]) for place in places),
                digests=tuple(samples[place].digest for place in places),
                places=tuple(places),
            )
        )
    return Cell(tuple(groups), texts, empty=len(distinct), dropout=preparation.dropout)


def _counted(several: Sequence[Sequence[object]]) -> tuple[tuple[int, ...], ...]:
    """Consecutive numbers in place of the items."""
    numbers = count()
    return tuple(tuple(next(numbers) for _ in items) for items in several)


def _parts(items: Iterator[tuple[int, Tensor]], size: int) -> Iterator[list[tuple[int, Tensor]]]:
    while part := list(islice(items, size)):
        yield part


def _filled(items: list[Item], size: int) -> list[Item]:
    """``items`` with repetitions of the first up to ``size``."""
    return items + items[:1] * (size - len(items))
