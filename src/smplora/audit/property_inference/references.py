"""Reference adapters: trained as the one that is asked about, on images that it was not trained on, with known answers.

The attacker holds the non-members and the reference images of the run's split. Which of them a reference adapter is
trained on is a function of (seed, question, its number, which images there are).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smplora.audit.shadow_adapters import train_each
from smplora.audit.shadow_plan import Shadow, bytes_each, lengths, of_run, trained_alike
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.properties import FEWEST_IMAGES, PropertiesConfig
from smplora.config.train import TrainConfig, steps_before
from smplora.core.errors import SplitError
from smplora.core.files import PRIVATE
from smplora.core.parallel import Work
from smplora.core.random_streams import stream_seed
from smplora.core.wording import duration
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.split import MANIFEST, Split, write_split
from smplora.results.curves import seconds_per_step
from smplora.results.manifest import CELLS, Manifest
from smplora.results.record import parse
from smplora.runs.folder import RunFolder
from smplora.runs.subject import Loaded, Subject

REFERENCES = "references"  # their folder, below that of the result
HELD = ("aux_nonmember", "test_nonmember", "reference")  # the attacker's cells
PROTOCOL = "references"
SIZES, SPAN = 6, 32  # numbers of images, and how much larger the last is than the first
LEAST_SHARE, MOST_SHARE, SHARES = 0.1, 0.9, 4
ASKED_PART, MOST_ASKED = 4, 50  # of the images with a value, and of those without: one in so many is asked, at most
OTHERS = "--reference_dir '{}' holds adapters of other images or another --seed; give another folder"


@dataclass(frozen=True)
class Pool:
    """The attacker's images, in an order that tells nothing."""

    samples: tuple[Sample, ...]
    nonmembers_per_member: float  # that training needs besides, for its proxy
    aux_share: float  # of the members that its proxy knows

    @property
    def most(self) -> int:
        """Images that an adapter can be trained on."""
        return int(len(self.samples) / (1 + self.nonmembers_per_member))


@dataclass(frozen=True)
class Reference:
    """An adapter and the answer that is known of it."""

    shadow: Shadow
    label: float


@dataclass(frozen=True)
class Sides:
    """Images with a value and without, those that are asked and those that are trained on."""

    asked: tuple[tuple[Sample, ...], tuple[Sample, ...]]
    trained: tuple[tuple[Sample, ...], tuple[Sample, ...]]


def pool_of(split: Split, options: TrainConfig) -> Pool:
    """What the attacker holds, as it is on disk.

    Raises:
        SplitError: images that changed.
    """
    known = {s.digest: s for s in read_samples(open_source(options))}
    digests = sorted(s.digest for cell in HELD for s in split.cells[cell])
    samples = tuple(known[digest] for digest in digests)
    if options.objective_on_images not in WITH_PROXY:
        return Pool(samples, 0.0, 0.5)
    sizes = split.sizes
    members = len(split.train)
    return Pool(samples, sizes["aux_nonmember"] / members, sizes["aux_member"] / members)


def size_grid(config: PropertiesConfig, pool: Pool) -> list[int]:
    """``--sizes``, or a geometric grid up to what the attacker can train on.

    Raises:
        SplitError: more than the attacker holds, or too few for any grid.
    """
    most = pool.most
    if config.sizes:
        if max(config.sizes) > most:
            raise SplitError(f"--sizes got {max(config.sizes)}, but {_holds(pool)}; allowed: {most} at most")
        return config.sizes
    least = max(FEWEST_IMAGES, round(most / SPAN))
    if most < 2 * least:
        raise SplitError(
            f"{_holds(pool)}, too few to train adapters of different sizes; allowed: {2 * FEWEST_IMAGES} or more. "
            "Train with more images in --reference_size"
        )
    return [round(x) for x in np.geomspace(least, most, SIZES)]


def sides_of(pool: Pool, values: Mapping[str, str], value: str, seed: int) -> Sides:
    """The attacker's images whose value is known, with and without ``value``. A quarter of each side, at most
    ``MOST_ASKED``, is asked and never trained on.

    Raises:
        SplitError: too few of either.
    """
    asked, trained = [], []
    for wanted in (True, False):
        side = [s for s in pool.samples if s.file in values and (values[s.file] == value) == wanted]
        if len(side) < 2 * FEWEST_IMAGES:
            raise SplitError(
                f"--attribute_value '{value}': the attacker holds {len(side)} images {'with' if wanted else 'without'} "
                f"it; allowed: {2 * FEWEST_IMAGES} or more of each. Choose another value, or train with more images in "
                "--reference_size"
            )
        mixed = _mixed(side, seed, "asked", str(wanted))
        first = max(2, min(MOST_ASKED, len(side) // ASKED_PART))
        asked.append(tuple(mixed[:first]))
        trained.append(tuple(mixed[first:]))
    return Sides((asked[0], asked[1]), (trained[0], trained[1]))


def share_grid(config: PropertiesConfig) -> list[float]:
    """``--shares``, or an even grid."""
    return config.shares or [round(x, 3) for x in np.linspace(LEAST_SHARE, MOST_SHARE, SHARES)]


def share_size(shares: Sequence[float], sides: Sides, pool: Pool, trained: int) -> int:
    """Images of each reference adapter: as many as the adapter was trained on, where the attacker has enough for every
    share.

    Raises:
        SplitError: too few.
    """
    limits = [trained, int((len(pool.samples) - sum(map(len, sides.asked))) / (1 + pool.nonmembers_per_member))]
    for images, most in zip(sides.trained, (max(shares), 1 - min(shares)), strict=True):
        limits += [int(len(images) / most + 1e-9)] if most > 0 else []
    if min(limits) < FEWEST_IMAGES:
        raise SplitError(
            f"the attacker holds too few images for --shares {list(shares)}; take shares nearer to the middle, or "
            "train with more images in --reference_size"
        )
    return min(limits)


@dataclass(frozen=True)
class Trainer:
    """What makes reference adapters of chosen images."""

    config: PropertiesConfig
    subject: Subject
    options: TrainConfig
    pool: Pool
    where: Path
    pass_length: int
    choosers: tuple[Sample, ...] = ()  # of --drop_nearest balanced

    def of_sizes(self, grid: Sequence[int]) -> list[Reference]:
        """``--references`` adapters, the sizes in turn."""
        made = []
        for number in range(self.config.references):
            size, again = grid[number % len(grid)], number // len(grid)
            mixed = _mixed(self.pool.samples, self.config.seed, "size", str(size), again)
            shadow = self._reference(f"size-{size}-{again}", mixed[:size], mixed[size:])
            made.append(Reference(shadow, float(size)))
        return made

    def of_shares(self, grid: Sequence[float], size: int, sides: Sides, named: str) -> list[Reference]:
        """``--references`` adapters of ``size`` images, the shares in turn.

        Args:
            named: column and value, which tell the folders of different questions apart.
        """
        digest = hashlib.sha256(named.encode()).hexdigest()[:8]
        made = []
        for number in range(self.config.references):
            share, again = grid[number % len(grid)], number // len(grid)
            names = ("share", digest, str(share), again)
            ordered = [_mixed(side, self.config.seed, *names, str(k)) for k, side in enumerate(sides.trained)]
            counts = (round(share * size), size - round(share * size))
            members = [s for side, n in zip(ordered, counts, strict=True) for s in side[:n]]
            others = [s for side, n in zip(ordered, counts, strict=True) for s in side[n:]]
            members, others = (_mixed(part, self.config.seed, *names, "order") for part in (members, others))
            shadow = self._reference(f"share-{digest}-{share:g}-of-{size}-{again}", members, others)
            made.append(Reference(shadow, counts[0] / size))
        return made

    def _reference(self, name: str, members: Sequence[Sample], others: Sequence[Sample]) -> Shadow:
        first = max(1, min(len(members) - 1, round(len(members) * self.pool.aux_share)))
        beside = max(1, round(len(members) * self.pool.nonmembers_per_member)) if self.pool.nonmembers_per_member else 0
        cells = {"aux_member": members[:first], "test_member": members[first:], "aux_nonmember": others[:beside]}
        cells["reference"] = self.choosers
        split = Split(PROTOCOL, self.config.seed, {cell: tuple(cells.get(cell, ())) for cell in CELLS})
        manifest = self.where / "splits" / name / MANIFEST
        length = lengths(self.options, self.subject, self.pass_length, self.pass_length)
        seed = stream_seed(self.config.seed, PROTOCOL, name) % 2**31
        return trained_alike(self.options, split, manifest, self.where / name, length, seed, self.config)

    def cost(self, references: Sequence[Reference], loaded: Loaded) -> str:
        """For people, before it is paid."""
        left = [r.shadow for r in references if not r.shadow.done]
        there = len(references) - len(left)
        if not left:
            return f"{len(references)} reference adapters: all in {self.where}"
        steps = left[0].options.max_train_steps or 0
        rate = seconds_per_step([(0, 0.0), *RunFolder(self.subject.run).elapsed()])
        time = "time unknown (no run to go by)"
        if rate is not None:
            seconds = rate * sum(steps + steps_before(shadow.options) for shadow in left)
            time = f"about {duration(seconds)} one after another, at the run's {rate:.2g} s a step"
        sizes = sorted({len(shadow.split.train) for shadow in left})
        images = f"{sizes[0]} images" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} images"
        space = f"about {bytes_each(loaded) * len(left) / 2**20:,.0f} MB in {self.where}"
        ready = f" ({there} are there already)" if there else ""
        return (
            f"{len(references)} reference adapters{ready}: {len(left)} x {steps:,} steps on {images}; {time}; {space}"
        )

    def check(self, references: Sequence[Reference]) -> None:
        """See whether those that are there are these.

        Raises:
            SplitError: the folder holds others.
        """
        for reference in references:
            manifest = Path(reference.shadow.options.split_manifest or "")
            if manifest.exists() and sealed(manifest) != reference.shadow.split.seal:
                raise SplitError(OTHERS.format(self.where))

    def train(self, references: Sequence[Reference], training: Work) -> None:
        """Train those that are not there, in worker processes.

        Raises:
            TrainingError: one or more could not be trained; what was trained stays.
        """
        self.where.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        for reference in references:
            write_split(reference.shadow.split, Path(reference.shadow.options.split_manifest or "").parent)
        shadows = [reference.shadow for reference in references]
        train_each(shadows, "reference adapters", "reference_dir", training, self.config.workers)


def trainer(config: PropertiesConfig, loaded: Loaded, folder: Path) -> Trainer:
    """What makes the reference adapters of a question about a run.

    Args:
        folder: of the result; reference adapters go to ``--reference_dir`` or below it.
    """
    assert isinstance(loaded.subject, Subject), "files are refused before"
    options = of_run(loaded.subject, config.train_data_dir, config.dataset_name)
    where = Path(config.reference_dir) if config.reference_dir else folder / REFERENCES
    pool = pool_of(loaded.split, options)
    return Trainer(config, loaded.subject, options, pool, where, loaded.split.pass_length, loaded.split.choosers)


def sealed(manifest: Path) -> str | None:
    """The seal of a split that is there; None where it cannot be read."""
    try:
        return parse(manifest, Manifest).seal
    except ValueError:
        return None


def _mixed(samples: Sequence[Sample], *names: int | str) -> list[Sample]:
    """In random order, a function of the names and of which images they are."""
    ordered = sorted(samples, key=lambda s: s.digest)
    order = np.random.default_rng(stream_seed(names[0], PROTOCOL, *names[1:])).permutation(len(ordered))
    return [ordered[i] for i in order]


def _holds(pool: Pool) -> str:
    held = f"the attacker holds {len(pool.samples)} images"
    if not pool.nonmembers_per_member:
        return held
    return f"{held}, of which {pool.most} can be trained on beside the non-members that the objective needs"
