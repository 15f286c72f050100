"""The cells: training set = aux + test members; aux and test non-members; held-out reference. Sealed in a manifest.

Canaries have cells of their own: a fair coin puts each into the training set or not.

The proxy and every attack learn on the aux cells; the test cells are read once; no cell touches the reference set,
which only measures quality (paper, section 2 and Table 4; the reference set is ours).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smplora.config.data import FEWEST_CANARIES, SplitConfig, SplitOptions
from smplora.config.dreambooth import CAPTION
from smplora.core.console import say, say_once
from smplora.core.errors import SplitError
from smplora.core.output import output_folder
from smplora.core.ownership import refuse_to_replace
from smplora.core.random_streams import stream_seed
from smplora.data.cell_sizes import SMALLEST_CELL, coin, fixed
from smplora.data.pool import CANARIES, Sample, open_source, read_samples
from smplora.results.manifest import CELLS, Manifest, SealedImage
from smplora.results.record import parse, write

MANIFEST = "split.json"
POOLS = "pools"  # the protocol of ``split_pools``
KINDS = ("_member", "_nonmember")  # ends of the names of cells
AUX_CANARIES = 0.25  # of them, to choose an attack by


def chooses(sample: Sample | SealedImage) -> bool:
    """Whether ``without_choosers`` sets a reference image aside: the same for every run that has it."""
    return stream_seed(0, "chooser", sample.digest) % 2 == 0


@dataclass(frozen=True)
class Split:
    """Samples by cell."""

    protocol: str
    seed: int
    cells: dict[str, tuple[Sample, ...]]
    sealed: str | None = None  # the seal of the split that this one was made of
    canaries: Split | None = None  # has no reference
    aside: tuple[Sample, ...] = ()  # trained on, and in no cell any more: see ``without_aside``
    aside_nonmembers: tuple[Sample, ...] = ()
    choosers: tuple[Sample, ...] = ()  # in no cell any more: see ``without_choosers``

    def worded(self, wording: str) -> Split:
        """The same images, with ``wording`` for captions, in which {caption} stands for each one's own. It keeps its
        seal: images and captions on disk are what they were."""
        cells = {cell: tuple(_worded(s, wording) for s in samples) for cell, samples in self.cells.items()}
        canaries = self.canaries and self.canaries.worded(wording)
        aside, others = (tuple(_worded(s, wording) for s in part) for part in (self.aside, self.aside_nonmembers))
        return replace(self, cells=cells, sealed=self.seal, canaries=canaries, aside=aside, aside_nonmembers=others)

    def without_aside(self, trained: Split | None = None) -> Split:
        """The last halves of the aux cells, whose order is random, set aside: a training with ``--privacy_budget``
        looks at them and chooses by them, so that no audit may. It keeps its seal.

        Args:
            trained: the split of the training, where this is another one of the same images.
        """
        cells = (trained or self).cells
        members, others = (cells[cell][-(-len(cells[cell]) // 2) :] for cell in ("aux_member", "aux_nonmember"))
        gone = {s.digest for s in members + others}
        left = {cell: tuple(s for s in samples if s.digest not in gone) for cell, samples in self.cells.items()}
        return replace(self, cells=left, sealed=self.seal, aside=members, aside_nonmembers=others)

    def whole(self) -> Split:
        """The inverse of ``without_aside``."""
        cells = dict(self.cells)
        cells["aux_member"] += self.aside
        cells["aux_nonmember"] += self.aside_nonmembers
        return replace(self, cells=cells, aside=(), aside_nonmembers=())

    def without_choosers(self, trained: Split | None = None) -> Split:
        """Half of the reference images, by their digests, set aside, in whatever cell they are: ``--drop_nearest
        balanced`` chooses drawn images by them, so that nothing is measured on them. It keeps its seal.

        Args:
            trained: the split of the training, where this is another one of the same images.
        """
        choosers = tuple(s for s in (trained or self).cells["reference"] if chooses(s))
        gone = {s.digest for s in choosers}
        left = {cell: tuple(s for s in samples if s.digest not in gone) for cell, samples in self.cells.items()}
        return replace(self, cells=left, sealed=self.seal, choosers=choosers)

    def aside_as_test(self) -> Split:
        """What is set aside in the test cells, where no proxy sees it."""
        cells = dict(self.cells)
        cells["test_member"] += self.aside
        cells["test_nonmember"] += self.aside_nonmembers
        return replace(self, cells=cells, sealed=None, aside=(), aside_nonmembers=())

    def only(self, keep: Callable[[Sample], bool], protocol: str, seed: int) -> Split:
        """A split of some of the images."""
        cells = {cell: tuple(s for s in samples if keep(s)) for cell, samples in self.cells.items()}
        return Split(protocol, seed, cells, canaries=self.canaries and self.canaries.only(keep, "coin", seed))

    @property
    def members(self) -> tuple[Sample, ...]:
        """Aux members + test members: the images that training is for."""
        return self.cells["aux_member"] + self.cells["test_member"]

    @property
    def train(self) -> tuple[Sample, ...]:
        """D_tr = ``members``, behind them those that are set aside, and the canaries that the coin put in."""
        return self.members + self.aside + (self.canaries.members if self.canaries else ())

    @property
    def pass_length(self) -> int:
        """Images that training takes in a pass, each as often as it is repeated."""
        return sum(sample.repeats for sample in self.train)

    @property
    def held_out(self) -> str:
        """The cell that quality is measured on: images that nothing has learned from, and that no attack was judged by
        where there are such. The paper's cells leave none: then it is the test non-members."""
        return "reference" if self.cells["reference"] else "test_nonmember"

    @property
    def sizes(self) -> dict[str, int]:
        """Images per cell."""
        return {cell: len(self.cells[cell]) for cell in CELLS}

    @property
    def divided(self) -> str:
        """For people: who is trained on."""
        trained, every = len(self.train), sum(self.sizes.values()) + len(self.aside + self.aside_nonmembers)
        every += sum(self.canaries.sizes.values()) if self.canaries else 0
        return f"{trained:,} of {every:,} images are trained on; {every - trained:,} are kept for audits and quality"

    @property
    def tossed(self) -> str:
        """Of a split by coins, for people."""
        inside, outside = (sum(n for cell, n in self.sizes.items() if cell.endswith(kind)) for kind in KINDS)
        return f"{inside + outside} canaries, of which a fair coin put {inside} into the training set"

    def manifest(self) -> Manifest:
        """What split.json holds."""
        canaries = self.canaries._sealed_cells() if self.canaries else None
        return Manifest("smplora.split/1", self.protocol, self.seed, self.seal, self._sealed_cells(), canaries)

    @property
    def seal(self) -> str:
        """SHA-256 that names this division of these images and captions; files may be renamed or moved."""
        canaries = self.canaries._sealed_cells() if self.canaries else None
        return self.sealed or _seal(self.protocol, self.seed, self._sealed_cells(), canaries)

    def _sealed_cells(self) -> dict[str, tuple[SealedImage, ...]]:
        return {cell: tuple(_sealed(s) for s in self.cells[cell]) for cell in CELLS}


def _worded(sample: Sample, wording: str) -> Sample:
    first, *more = (wording.replace(CAPTION, text) for text in (sample.caption, *sample.more_captions))
    return replace(sample, caption=first, more_captions=tuple(more))


def _sealed(sample: Sample) -> SealedImage:
    return SealedImage(
        sample.file, sample.digest, _digest(sample.words), sample.repeats if sample.repeats != 1 else None
    )


def _identity(image: SealedImage) -> tuple[str | int, ...]:
    """What of an image is sealed; images that are taken once are sealed as before there were others."""
    return (image.digest, image.caption_digest, *([image.repeats] if image.repeats else []))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seal(
    protocol: str,
    seed: int,
    cells: Mapping[str, Sequence[SealedImage]],
    canaries: Mapping[str, Sequence[SealedImage]] | None,
) -> str:
    """Splits without canaries are sealed as before there were any."""
    parts = [{cell: [_identity(i) for i in images] for cell, images in c.items()} for c in (cells, canaries) if c]
    return _digest(json.dumps([protocol, seed, *parts], sort_keys=True))


def make_split(samples: Sequence[Sample], options: SplitOptions) -> Split:
    """Divide the pool at random, a function of (split_seed, the images' digests): file names and order do not matter.

    Raises:
        SplitError: the pool is too small; the message says how many images are needed.
    """
    candidates, samples = _candidates(samples, options)
    canaries = draw_canaries(candidates, options.split_seed)
    ordered = sorted(samples, key=lambda s: s.digest)
    rng = np.random.default_rng(stream_seed(options.split_seed, "split"))
    shuffled = [ordered[i] for i in rng.permutation(len(ordered))]
    names = fixed(len(shuffled), options) if options.split_protocol == "fixed" else coin(len(shuffled), options, rng)
    cells = {cell: tuple(s for s, name in zip(shuffled, names, strict=True) if name == cell) for cell in CELLS}
    small = [f"{cell} ({len(cells[cell])})" for cell in CELLS[:4] if len(cells[cell]) < SMALLEST_CELL]
    if small:
        raise SplitError(
            f"the pool of {len(samples)} images leaves fewer than {SMALLEST_CELL} for {', '.join(small)}; add images"
        )
    return Split(options.split_protocol, options.split_seed, cells, canaries=canaries)


def _candidates(samples: Sequence[Sample], options: SplitOptions) -> tuple[list[Sample], list[Sample]]:
    """Canaries, those of ``--canaries_dir`` or ``--num_canaries`` drawn at random, and the other images."""
    ordered = sorted((s for s in samples if not s.is_canary), key=lambda s: s.digest)
    count = options.num_canaries or 0
    if count > len(ordered):
        raise SplitError(f"--num_canaries got {count}; allowed: fewer than there are images, which is {len(ordered)}")
    order = np.random.default_rng(stream_seed(options.split_seed, "canaries", "chosen")).permutation(len(ordered))
    mixed = [ordered[i] for i in order]
    return [s for s in samples if s.is_canary] + mixed[:count], mixed[count:]


def draw_canaries(samples: Sequence[Sample], seed: int) -> Split | None:
    """Toss a fair coin for each canary, and choose a quarter of them to choose an attack by: a function of (seed, the
    images' digests). None where there are no canaries.

    Raises:
        SplitError: there are too few.
    """
    if not samples:
        return None
    if len(samples) < FEWEST_CANARIES:
        raise SplitError(
            f"there are {len(samples)} canaries; allowed: {FEWEST_CANARIES} or more, in --canaries_dir or by "
            "--num_canaries, and 400 prove more"
        )
    rng, ordered = np.random.default_rng(stream_seed(seed, "canaries")), sorted(samples, key=lambda s: s.digest)
    member, aux = rng.random(len(ordered)) < 0.5, rng.random(len(ordered)) < AUX_CANARIES
    cells: dict[str, list[Sample]] = {cell: [] for cell in CELLS}
    for sample, inside, chooses in zip(ordered, member, aux, strict=True):
        cells[f"{'aux' if chooses else 'test'}_{'member' if inside else 'nonmember'}"].append(sample)
    return Split("coin", seed, {cell: tuple(drawn) for cell, drawn in cells.items()})


def split_pools(members: Sequence[Sample], nonmembers: Sequence[Sample], seed: int) -> Split:
    """Divide each of two pools at random into an aux and a test half, a function of (seed, the images' digests).

    Raises:
        SplitError: pools that overlap, or of fewer than four images.
    """
    digests = {s.digest: s for s in members}
    both = [s for s in nonmembers if s.digest in digests]
    if both:
        raise SplitError(
            f"--members and --nonmembers share {len(both)} pictures, {both[0].file} and {digests[both[0].digest].file} "
            "among them; a picture is either trained on or not"
        )
    cells: dict[str, tuple[Sample, ...]] = {"reference": ()}
    for name, pool in (("member", members), ("nonmember", nonmembers)):
        if len(pool) < 2 * SMALLEST_CELL:
            raise SplitError(
                f"--{name}s has {len(pool)} image{'s' * (len(pool) != 1)}; allowed: {2 * SMALLEST_CELL} or more (half "
                "are aux, half are test), and 200 or more for an audit that can say much"
            )
        ordered = sorted(pool, key=lambda s: s.digest)
        order = np.random.default_rng(stream_seed(seed, POOLS, name)).permutation(len(pool))
        aux = len(pool) // 2
        cells[f"aux_{name}"] = tuple(ordered[i] for i in order[:aux])
        cells[f"test_{name}"] = tuple(ordered[i] for i in order[aux:])
    return Split(POOLS, seed, cells)


def write_split(split: Split, folder: Path) -> Path:
    """Write split.json, readable by its owner alone (temporary files are created so)."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / MANIFEST, split.manifest())
    return folder / MANIFEST


def read_split(path: Path, samples: Sequence[Sample]) -> Split:
    """The split of a manifest, filled with ``samples``.

    Raises:
        SplitError: damaged or changed manifest, an image in two cells, images or captions other than the sealed ones.
    """
    try:
        manifest = parse(path, Manifest)
    except ValueError as error:
        raise SplitError(
            f"'{path}' is not a split manifest of smplora ({error}); write one with 'smplora split'"
        ) from error
    cell_of: dict[str, str] = {}
    every = [image for cells in (manifest.cells, manifest.canaries or {}) for cell in cells.values() for image in cell]
    for cell, images in [*manifest.cells.items(), *(manifest.canaries or {}).items()]:
        for image in images:
            if before := cell_of.get(image.digest):
                raise SplitError(
                    f"'{path}' has the image {image.file} twice, in {before} and in {cell}; write a new split"
                )
            cell_of[image.digest] = cell
    if manifest.seal != _seal(manifest.protocol, manifest.seed, manifest.cells, manifest.canaries):
        raise SplitError(f"'{path}' was changed after it was sealed; write a new split")
    by_digest = {s.digest: s for s in samples}
    lost = [image.file for image in every if image.digest not in by_digest]
    if lost:
        raise SplitError(
            f"{len(lost)} images of '{path}' are gone or changed, {lost[0]} among them; restore them or split anew"
            + "; names that begin with 'canaries://' are in the folder of --canaries_dir"
            * any(name.startswith(CANARIES) for name in lost)
        )
    recaptioned = [image.file for image in every if _digest(by_digest[image.digest].words) != image.caption_digest]
    if recaptioned:
        raise SplitError(
            f"{len(recaptioned)} captions differ from '{path}', that of {recaptioned[0]}; restore them or split anew"
        )
    reweighted = [image.file for image in every if by_digest[image.digest].repeats != (image.repeats or 1)]
    if reweighted:
        raise SplitError(
            f"{len(reweighted)} images are to be trained on more or less often than in '{path}', {reweighted[0]} among "
            "them (folder names such as '10_dog' say how often, unless --folder_repeats false); restore the names or "
            "split anew"
        )
    more = [s.file for s in samples if s.digest not in cell_of and not s.is_canary]  # of those the caller knows
    if more:
        say_once(
            f"{len(more)} of the {len(samples)} images are in no cell of '{path}': they are neither trained on nor "
            f"audited, {more[0]} among them"
        )

    def filled(cells: Mapping[str, Sequence[SealedImage]]) -> dict[str, tuple[Sample, ...]]:
        return {cell: tuple(by_digest[image.digest] for image in cells[cell]) for cell in CELLS}

    canaries = Split("coin", manifest.seed, filled(manifest.canaries)) if manifest.canaries else None
    return Split(manifest.protocol, manifest.seed, filled(manifest.cells), canaries=canaries)


def split(config: SplitConfig) -> Split:
    """``smplora split``: write the manifest and say what is in it."""
    refuse_to_replace(Path(config.output_dir), [MANIFEST], "output_dir")
    result = make_split(read_samples(open_source(config)), config)
    with output_folder(Path(config.output_dir), [MANIFEST]):
        path = write_split(result, Path(config.output_dir))
    canaries = result.canaries.sizes if result.canaries else None
    tossed = f"; {result.canaries.tossed}" if result.canaries else ""
    say(f"{path}: " + ", ".join(f"{cell} {size}" for cell, size in result.sizes.items()) + tossed)
    option = "train_data_dir" if config.train_data_dir else "dataset_name"
    say(f"next: smplora train --split_manifest {path} --{option} {getattr(config, option)}, with a base model")
    if config.json:
        content = {"manifest": str(path), "seal": result.seal, "cells": result.sizes}
        print(json.dumps({**content, "canaries": canaries} if canaries else content))
    return result
