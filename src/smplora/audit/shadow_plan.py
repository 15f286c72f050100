"""Which shadow adapters an audit needs (``smplora audit --shadows N``), how they are trained, and what they will cost.

They come in pairs. Each pair divides the audited images anew at random, whoever is a member of the adapter under
audit: one half is what the first shadow of the pair trains on, the other half what the second does. So every image is
in half of the shadows. Objective and options are the adapter's own, unless ``--shadow_config`` names others; a min-max
objective plays against a proxy of its own, on aux cells of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from smplora.config.audit import AuditConfig
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.data import DataOptions, ModelOptions
from smplora.config.distill import WITH_TEACHERS
from smplora.config.early_stopping import UNSTOPPED
from smplora.config.exactly import exactly
from smplora.config.monitor import UNWATCHED
from smplora.config.properties import PropertiesConfig
from smplora.config.synthetic import BALANCED, SYNTHETIC
from smplora.config.train import TrainConfig, steps_before, steps_of_a_teacher
from smplora.core.console import progress
from smplora.core.errors import ConfigError, SplitError, listing
from smplora.core.files import PRIVATE
from smplora.core.random_streams import stream_seed
from smplora.core.reading import Unreadable
from smplora.core.wording import duration
from smplora.core.yaml_text import read_yaml
from smplora.data.folder import write_folder
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.split import MANIFEST, Split, chooses, read_split, write_split
from smplora.results.audit import ShadowSummary
from smplora.results.curves import seconds_per_step
from smplora.results.manifest import CELLS
from smplora.runs.folder import BUDGET, FREE_OPTIONS, RunFolder
from smplora.runs.subject import FROM_METADATA, Foreign, Loaded, Subject

ATTACKED = CELLS[:4]
PROTOCOL = "shadow"
STEADY = ("constant", "constant_with_warmup")  # schedules that do not depend on when training ends
SHADOWS = "shadows"  # their folder, below that of the audit
SPLITS = "splits"
PLACES = ("train_data_dir", "dataset_name", "canaries_dir", "split_manifest", "cache_dir", "output_dir")
OTHER_SHADOWS = "--shadow_dir '{}' holds shadows of other images, cells or another --seed; give another folder"


@dataclass(frozen=True)
class Shadow:
    """One shadow adapter: how it is trained, on which images, and the folder of the adapter that is asked."""

    options: TrainConfig
    split: Split
    adapter: Path

    @property
    def done(self) -> bool:
        """Whether it is trained."""
        return RunFolder(Path(self.options.output_dir)).done is not None


@dataclass(frozen=True)
class ShadowPlan:
    """All shadows of an audit."""

    folder: Path
    shadows: tuple[Shadow, ...]
    title: str  # of the adapter under audit
    seconds_per_step: float | None
    bytes_each: int
    alike: bool = True  # trained as the adapter was, as far as that is known; False: a run, by --shadow_config
    but: str = ""  # what they do not have of it

    @property
    def steps(self) -> int:
        """Of each."""
        return self.shadows[0].options.max_train_steps or 0

    def summary(self, signal: str) -> ShadowSummary:
        """How the shadows are trained; ``signal`` is what attacks compare."""
        one = self.shadows[0]
        return ShadowSummary(
            number=len(self.shadows),
            signal=signal,
            objective=one.options.objective,
            mi_lambda=one.options.mi_lambda if one.options.objective in WITH_PROXY else None,
            adaptation=one.options.adaptation,
            steps=self.steps,
            images=len(one.split.train),
            alike=self.alike,
        )

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        how = (
            f"as {self.title} was: the same options{self.but}"
            if self.alike
            else f"by --shadow_config (objective {self.shadows[0].options.objective}), not as {self.title} was"
        )
        return [
            f"{len(self.shadows)} shadow adapters were trained {how}, {self.steps:,} steps, "
            f"{len(self.shadows[0].split.train)} images each, half of those audited"
        ]

    def cost(self) -> str:
        """For people, before it is paid."""
        left = [shadow for shadow in self.shadows if not shadow.done]
        there = len(self.shadows) - len(left)
        work = f"{len(left)} x {self.steps:,} steps on {len(self.shadows[0].split.train)} images"
        time = "time unknown (no run to go by)"
        if self.seconds_per_step is not None:
            seconds = self.seconds_per_step * sum(self.steps + steps_before(s.options) for s in left)
            time = f"about {duration(seconds)} one after another, at the run's {self.seconds_per_step:.2g} s a step"
        space = f"about {self.bytes_each * len(left) / 2**20:,.0f} MB in {self.folder}"
        return f"{len(self.shadows)} shadow adapters" + (
            f" ({there} are there already): {work}; {time}; {space}" if left else f": all in {self.folder}"
        )


def divide(digests: Sequence[str], sizes: Mapping[str, int], seed: int, pair: int) -> list[dict[str, list[str]]]:
    """The cells, as digests, of both shadows of a pair: a function of (seed, pair, which images there are and how many
    were trained on), not of which ones.

    Args:
        digests: of all audited images.
        sizes: images of each cell of the adapter under audit.
    """
    ordered = sorted(digests)
    order = np.random.default_rng(stream_seed(seed, "shadows", pair)).permutation(len(ordered))
    middle = len(ordered) // 2
    halves = [[ordered[i] for i in part] for part in (order[:middle], order[middle:])]

    def cells(half: list[str], kind: str) -> dict[str, list[str]]:
        aux, test = sizes[f"aux_{kind}"], sizes[f"test_{kind}"]
        first = round(len(half) * aux / (aux + test))
        return {f"aux_{kind}": half[:first], f"test_{kind}": half[first:]}

    return [
        {**cells(inside, "member"), **cells(outside, "nonmember"), "reference": []}
        for inside, outside in (halves, halves[::-1])
    ]


def plan_shadows(config: AuditConfig, loaded: Loaded, folder: Path) -> ShadowPlan:
    """What is to be trained. Writes the splits, and the images where the adapter was made elsewhere.

    Args:
        folder: of the audit; shadows go to ``--shadow_dir`` or below it.

    Raises:
        UserError: options of ``--shadow_config``, or a folder that holds other shadows.
    """
    where = Path(config.shadow_dir) if config.shadow_dir else folder / SHADOWS
    for path in (folder, where):
        path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    subject, sizes = loaded.subject, loaded.split.sizes
    # earlier versions had one kind of shadows in a folder
    shared = config.shadow_dir is not None and not (where / SPLITS).is_dir()
    if isinstance(subject, Foreign):
        options = _of_elsewhere(config, loaded, where, shared=shared)
    else:
        options = of_run(subject, config.train_data_dir, config.dataset_name)
        options = _told(config, options) if config.shadow_config else options
    half = sum(sample.repeats for cell in ATTACKED for sample in loaded.split.cells[cell]) // 2
    told = subject if isinstance(subject, Subject) and not config.shadow_config else None
    steps, step = lengths(options, told, half, loaded.split.pass_length)
    if told:
        options = _scaled(options, half / loaded.split.pass_length)
    samples = {s.digest: s for s in read_samples(open_source(options))}
    pool = [s.digest for cell in ATTACKED for s in loaded.split.cells[cell]]
    held_out = (*loaded.split.choosers, *loaded.split.cells["reference"])
    choosers = sorted(s.digest for s in held_out if chooses(s))
    if any(digest not in samples for digest in pool):
        raise SplitError(OTHER_SHADOWS.format(where))

    def split_of(number: int) -> Split:
        cells = divide(pool, sizes, config.seed, number // 2)[number % 2]
        if options.drop_nearest == BALANCED:  # the attacker has them too
            cells["reference"] = choosers
        return Split(PROTOCOL, config.seed, {cell: tuple(samples[d] for d in cells[cell]) for cell in CELLS})

    if shared:
        where /= _kind(options, (steps, step), split_of(0).seal)
    shadows = []
    for number in range(config.shadows or 0):
        split = split_of(number)
        name = f"shadow-{number}"
        _check_same(where / SPLITS / name, split, samples.values(), where)
        manifest = write_split(split, where / SPLITS / name)
        seed = stream_seed(config.seed, "shadow", number) % 2**31
        shadows.append(trained_alike(options, split, manifest, where / name, (steps, step), seed, config))
    rate = None if isinstance(subject, Foreign) else seconds_per_step([(0, 0.0), *RunFolder(subject.run).elapsed()])
    title = subject.label if isinstance(subject, Foreign) else subject.title
    alike = isinstance(subject, Foreign) or not config.shadow_config
    return ShadowPlan(where, tuple(shadows), title, rate, bytes_each(loaded), alike, _not_shared(subject))


def trained_alike(
    options: TrainConfig,
    split: Split,
    manifest: Path,
    run: Path,
    length: tuple[int, int | None],
    seed: int,
    machine: AuditConfig | PropertiesConfig,
) -> Shadow:
    """An adapter trained with ``options``, but for its images, its seed and its length.

    Args:
        manifest: of ``split``.
        length: steps, and the checkpoint to ask if that is not the end.
        machine: says where it computes and what it keeps.
    """
    steps, step = length
    one = replace(
        options,
        **UNWATCHED,
        split_manifest=str(manifest),
        output_dir=str(run),
        seed=seed,
        max_train_steps=steps,
        checkpointing_steps=step or min(options.checkpointing_steps, steps),
        checkpoints_total_limit=None if step else 1,
        device=machine.device,
        cache_latents_to_disk=machine.cache_latents_to_disk,
        cache_dir=machine.cache_dir,
    )
    return Shadow(one, split, run / "checkpoints" / f"checkpoint-{step}" if step else run)


def _kind(options: TrainConfig, lengths: tuple[int, int | None], seal: str) -> str:
    """A folder's name for shadows of these options, images and captions (``seal`` is of the first one's split):
    adapters for which they would be the same share them."""
    places = {*FREE_OPTIONS, *PLACES, "seed", "max_train_steps", "checkpointing_steps"}
    decided = {name: value for name, value in asdict(options).items() if name not in places}
    content = json.dumps([decided, lengths, seal], sort_keys=True, default=str)
    return f"{options.objective}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def of_run(subject: Subject, train_data_dir: str | None, dataset_name: str | None) -> TrainConfig:
    """The run's own options; images where they are now. Without canaries, which are asked on their own, and without a
    budget, which would end each at another step: with what it had been steered to."""
    options = replace(subject.config, canaries_dir=None, num_canaries=None, privacy_budget=None, budget_steps=None)
    options = replace(options, **UNSTOPPED)
    if subject.config.measured_budget:  # what it had been steered to
        rows = RunFolder(subject.run).metrics(BUDGET)  # each says what was in use up to its step
        row = next((r for r in rows if r["step"] >= subject.step), rows[-1] if rows else {})
        if "mi_lambda" in row:
            options = replace(options, mi_lambda=row["mi_lambda"])
        if "images" in row:
            options = replace(options, num_synthetic_images=row["images"])
    if options.objective in WITH_TEACHERS:  # which by default depend on how long the run is
        options = replace(options, teacher_steps=steps_of_a_teacher(options))
    if not (train_data_dir or dataset_name):
        return options
    return replace(options, train_data_dir=train_data_dir, dataset_name=dataset_name)


def _scaled(options: TrainConfig, share: float) -> TrainConfig:
    """Teachers that see each image as often as the adapter's did, and as many drawn images for each."""
    if options.objective in WITH_TEACHERS:
        options = replace(options, teacher_steps=max(1, round((options.teacher_steps or 0) * share)))
    if options.objective == SYNTHETIC:
        options = replace(options, num_synthetic_images=max(2, round((options.num_synthetic_images or 0) * share)))
    return options


def _not_shared(subject: Subject | Foreign) -> str:
    """What a budget did for the adapter, which shadows have as it was when the adapter was taken."""
    if not isinstance(subject, Foreign) and subject.config.stop_when:
        return ", but without --stop_when, as many steps as were published"
    if isinstance(subject, Foreign) or not subject.config.measured_budget:
        return ""
    if subject.config.objective in WITH_PROXY:
        return f", but lambda as it was at step {subject.step:,} from the start, where --privacy_budget steered it"
    if subject.config.objective == SYNTHETIC:
        filtered = ", and filtered from that number (--drop_nearest)" if subject.config.drop_nearest else ""
        return f", but all drawn images in use from the start, where --privacy_budget took more and more{filtered}"
    return ", but without --privacy_budget, as many steps"


def _told(config: AuditConfig, own: TrainConfig) -> TrainConfig:
    """Those of ``--shadow_config``, with what is known for sure of the run."""
    images = {f.name: getattr(own, f.name) for f in fields(DataOptions)}
    return read_training(Path(config.shadow_config or ""), {**_recorded(own), **images})


def _recorded(options: TrainConfig) -> dict[str, Any]:
    """Base model and preparation, which are known for sure."""
    buckets = ("bucket_reso_steps", "min_bucket_reso", "max_bucket_reso")
    names = (*FROM_METADATA, *buckets, *(f.name for f in fields(ModelOptions)))
    return {name: getattr(options, name) for name in names}


def _of_elsewhere(config: AuditConfig, loaded: Loaded, where: Path, *, shared: bool) -> TrainConfig:
    """Those of ``--shadow_config``, with what is known for sure: base model, preparation, images. These are copied into
    a folder of ``where``, which they name if other audits keep images there too (``shared``)."""
    known = loaded.subject.config
    told = read_training(Path(config.shadow_config or ""), {**_recorded(known), "train_data_dir": str(where)})
    if told.drop_nearest == BALANCED:
        raise ConfigError(
            f"--shadow_config has drop_nearest: {BALANCED}, but held-out images are not at hand for the shadows of an "
            "adapter made elsewhere; give a share, such as 0.1"
        )
    samples = sorted((s for c in ATTACKED for s in loaded.split.cells[c]), key=lambda s: s.digest)  # tells no members
    pictures = (
        (
            f"{_repeated(sample)}{number:05d}.png",
            loaded.source.read(sample.file),
            [sample.caption, *sample.more_captions],
        )
        for number, sample in enumerate(progress(samples, "copy images", "image"))
    )
    content = "\x1e".join(f"{sample.digest}\x1f{sample.words}" for sample in samples)
    name = f"images-{hashlib.sha256(content.encode()).hexdigest()[:12]}" if shared else "images"
    images = write_folder(where / name, pictures)
    return replace(told, train_data_dir=str(images))


def read_training(path: Path, known: Mapping[str, Any]) -> TrainConfig:
    """The options of 'smplora train' in a YAML file; ``known`` ones win.

    Raises:
        ConfigError: lists what is wrong with them.
    """
    name = f"--shadow_config '{path}'"
    try:
        content = read_yaml(path)
    except (OSError, Unreadable) as error:
        raise ConfigError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    config, problems = exactly(TrainConfig, content)
    if config is None:
        raise ConfigError(listing(f"{name} cannot be used", problems))
    nowhere = {"dataset_name": None, "default_caption": None, "caption_column": "text", "split_manifest": None}
    config = replace(config, **{**nowhere, "canaries_dir": None, "num_canaries": None, **known})
    problems = config.problems()
    if problems:
        raise ConfigError(listing(f"{name} cannot be used", problems))
    return config


def _repeated(sample: Sample) -> str:
    """The folder that says how often an image is trained on."""
    return f"{sample.repeats}_images/" if sample.repeats > 1 else ""


def lengths(options: TrainConfig, run: Subject | None, half: int, trained: int) -> tuple[int, int | None]:
    """Steps of a shadow, and its checkpoint to ask if that is not the end. ``run`` is None where the options say how
    long; ``half`` and ``trained`` are what a pass of a shadow and of the adapter takes. Shadows see each image as often
    as the adapter did: where halves are larger than its training set, they train longer."""
    share = half / trained
    if run is None:
        batch = options.train_batch_size * options.gradient_accumulation_steps
        steps = options.max_train_steps or math.ceil(options.num_train_epochs * trained / batch)
        return max(1, round(steps * share)), None
    stop, end = max(1, round(run.step * share)), max(1, round(run.max_train_steps * share))
    return (stop, None) if stop == end or options.lr_scheduler in STEADY else (end, stop)


def _check_same(folder: Path, split: Split, samples: Sequence[Sample] | Any, where: Path) -> None:
    """Raises SplitError where a shadow was already divided otherwise."""
    if (folder / MANIFEST).exists() and read_split(folder / MANIFEST, list(samples)).seal != split.seal:
        raise SplitError(OTHER_SHADOWS.format(where))


def bytes_each(loaded: Loaded) -> int:
    """Disk space of a shadow: what the adapter's run takes without all but one checkpoint; of a file made elsewhere,
    two adapter files and the optimizer's two moments beside the weights."""
    subject = loaded.subject
    if isinstance(subject, Foreign):
        return 6 * (subject.path.stat().st_size if subject.path.is_file() else _size(subject.path))
    newest = [subject.run / "checkpoints" / f"checkpoint-{s}" for s in RunFolder(subject.run).steps()[-1:]]
    published = [subject.run / name for name in subject.adaptation.published(subject.run)]
    before = [path for name in ("teachers", "synthetic_images") if (path := subject.run / name).is_dir()]
    return sum(_size(path) for path in (*newest, *published, *before))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
