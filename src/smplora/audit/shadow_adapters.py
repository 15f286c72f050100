"""Shadow adapters (``smplora audit --shadows N``): planned, trained in worker processes, and asked.

They come in pairs. Each pair divides the audited images anew at random, whoever is a member of the adapter under
audit: one half is what the first shadow of the pair trains on, the other half what the second does. So every image is
in half of the shadows. Objective and options are the adapter's own; a min-max objective plays against a proxy of its
own, on aux cells of its own.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smplora.attacks.base import Attack
from smplora.attacks.shadow_comparison import ShadowAttack, Shadows, near_normal
from smplora.config.audit import AuditConfig
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.data import ModelOptions
from smplora.config.exactly import exactly
from smplora.config.monitor import UNWATCHED
from smplora.config.properties import PropertiesConfig
from smplora.config.train import TrainConfig, steps_of_teachers
from smplora.core.arrays import Floats
from smplora.core.cache import open_cache
from smplora.core.console import progress
from smplora.core.errors import ConfigError, SplitError, TrainingError, listing
from smplora.core.files import PRIVATE
from smplora.core.parallel import Task, Work, run_tasks
from smplora.core.random_streams import stream_seed
from smplora.core.reading import Unreadable
from smplora.core.wording import duration
from smplora.core.yaml_text import read_yaml
from smplora.data.folder import write_folder
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.split import MANIFEST, Split, read_split, write_split
from smplora.results.audit import ShadowSummary
from smplora.results.curves import seconds_per_step
from smplora.results.manifest import CELLS
from smplora.runs.folder import RunFolder
from smplora.runs.subject import FROM_METADATA, Foreign, Loaded, Subject, load_subject

ATTACKED = CELLS[:4]
PROTOCOL = "shadow"
STEADY = ("constant", "constant_with_warmup")  # schedules that do not depend on when training ends
NO_MORE: dict[str, tuple[Sample, ...]] = {"reference": ()}
SHADOWS = "shadows"  # their folder, below that of the audit
OTHER_SHADOWS = "--shadow_dir '{}' holds shadows of other images, cells or another --seed; give another folder"
MeasureSignals = Callable[[Loaded, Mapping[str, Attack], str], Mapping[tuple[str, str], Floats]]


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
        )

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        return [
            f"{len(self.shadows)} shadow adapters were trained as {self.title} was: the same options, {self.steps:,} "
            f"steps, {len(self.shadows[0].split.train)} images each, half of those audited"
        ]

    def cost(self) -> str:
        """For people, before it is paid."""
        left = [shadow for shadow in self.shadows if not shadow.done]
        there = len(self.shadows) - len(left)
        work = f"{len(left)} x {self.steps:,} steps on {len(self.shadows[0].split.train)} images"
        time = "time unknown (no run to go by)"
        if self.seconds_per_step is not None:
            seconds = self.seconds_per_step * sum(self.steps + steps_of_teachers(s.options) for s in left)
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
    options = _of_elsewhere(config, loaded, where) if isinstance(subject, Foreign) else of_run(config, subject)
    half = sum(sample.repeats for cell in ATTACKED for sample in loaded.split.cells[cell]) // 2
    steps, step = lengths(options, subject, half, loaded.split.pass_length)
    samples = {s.digest: s for s in read_samples(open_source(options))}
    pool = [s.digest for cell in ATTACKED for s in loaded.split.cells[cell]]
    if any(digest not in samples for digest in pool):
        raise SplitError(OTHER_SHADOWS.format(where))
    shadows = []
    for number in range(config.shadows or 0):
        cells = divide(pool, sizes, config.seed, number // 2)[number % 2]
        split = Split(PROTOCOL, config.seed, {cell: tuple(samples[d] for d in cells[cell]) for cell in CELLS})
        name = f"shadow-{number}"
        _check_same(where / "splits" / name, split, samples.values(), where)
        manifest = write_split(split, where / "splits" / name)
        seed = stream_seed(config.seed, "shadow", number) % 2**31
        shadows.append(trained_alike(options, split, manifest, where / name, (steps, step), seed, config))
    rate = None if isinstance(subject, Foreign) else seconds_per_step([(0, 0.0), *RunFolder(subject.run).elapsed()])
    title = subject.label if isinstance(subject, Foreign) else subject.title
    return ShadowPlan(where, tuple(shadows), title, rate, bytes_each(loaded))


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


def with_shadows(
    attacks: Mapping[str, Attack],
    plan: ShadowPlan,
    target: Split,
    training: Work,
    measure: MeasureSignals,
    workers: int | None = None,
) -> dict[str, Attack]:
    """The attacks, those that need shadows with trained and asked ones.

    Args:
        target: the split of the adapter under audit.
        training: trains one shadow.
        measure: see ``measure_shadows``.

    Raises:
        TrainingError: one or more could not be trained.
    """
    train_shadows(plan, training, workers)
    (first, *_) = (attack for attack in attacks.values() if isinstance(attack, ShadowAttack))
    shadows = measure_shadows(plan, target, first, measure)
    return {name: a.among(shadows) if isinstance(a, ShadowAttack) else a for name, a in attacks.items()}


def train_shadows(plan: ShadowPlan, training: Work, workers: int | None = None) -> None:
    """Train those that are not there, in worker processes.

    Raises:
        TrainingError: one or more could not be trained; what was trained stays.
    """
    train_each(plan.shadows, "shadow adapters", "shadow_dir", training, workers)


def train_each(shadows: Sequence[Shadow], title: str, option: str, training: Work, workers: int | None) -> None:
    """As ``train_shadows``.

    Args:
        title: what messages call them.
        option: that says where they go.
    """
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()  # what this process keeps, workers cannot have
    tasks = [Task(Path(shadow.options.output_dir).name, shadow.options, training) for shadow in shadows]
    problems = run_tasks(tasks, title, workers=workers, device=shadows[0].options.device)
    failed = {name: problem for name, problem in problems.items() if problem}
    if failed:
        name, problem = next(iter(failed.items()))
        problem = problem.replace("--output_dir", f"--{option}")
        raise TrainingError(f"{len(failed)} of {len(tasks)} {title} were not trained; {name}: {problem}")


def measure_shadows(plan: ShadowPlan, target: Split, attack: ShadowAttack, measure: MeasureSignals) -> Shadows:
    """The signal of every shadow for every audited image.

    Args:
        target: the split of the adapter under audit; its captions are not used.
        measure: computes signals of every cell of a subject, as an audit does; its last argument is a title for people.
    """
    measured = []
    for number, shadow in enumerate(plan.shadows):
        options = shadow.options
        cache = open_cache(options.cache_dir, options.cache_latents_to_disk)
        loaded = load_subject(str(shadow.adapter), None, options.device, cache=cache)
        known = {s.digest: s for cell in ATTACKED for s in loaded.split.cells[cell]}
        split = replace(target, cells={c: tuple(known[s.digest] for s in target.cells[c]) for c in ATTACKED} | NO_MORE)
        title = f"ask shadow {number + 1} of {len(plan.shadows)}"
        signals = measure(replace(loaded, split=split), {attack.shadow_signal: attack.compared}, title)
        measured.append(
            np.concatenate([near_normal(attack.shadow_signal, signals[attack.shadow_signal, c]) for c in ATTACKED])
        )
    stacked = np.stack(measured, 1)  # [n, N, k]
    digests = [s.digest for cell in ATTACKED for s in target.cells[cell]]
    trained_on = [{s.digest for s in shadow.split.train} for shadow in plan.shadows]
    is_in = {digest: np.array([digest in images for images in trained_on]) for digest in digests}
    return Shadows(dict(zip(digests, stacked, strict=True)), is_in)


def of_run(config: AuditConfig | PropertiesConfig, subject: Subject) -> TrainConfig:
    """The run's own options; images where they are now."""
    if not (config.train_data_dir or config.dataset_name):
        return subject.config
    return replace(subject.config, train_data_dir=config.train_data_dir, dataset_name=config.dataset_name)


def _of_elsewhere(config: AuditConfig, loaded: Loaded, where: Path) -> TrainConfig:
    """Those of ``--shadow_config``, with what is known for sure: base model, preparation, images."""
    known = loaded.subject.config
    samples = sorted((s for c in ATTACKED for s in loaded.split.cells[c]), key=lambda s: s.digest)  # tells no members
    pictures = (
        (
            f"{_repeated(sample)}{number:05d}.png",
            loaded.source.read(sample.file),
            [sample.caption, *sample.more_captions],
        )
        for number, sample in enumerate(progress(samples, "copy images", "image"))
    )
    images = write_folder(where / "images", pictures)
    recorded = (
        *FROM_METADATA,
        "bucket_reso_steps",
        "min_bucket_reso",
        "max_bucket_reso",
        *(f.name for f in fields(ModelOptions)),
    )
    return read_training(
        Path(config.shadow_config or ""),
        {**{name: getattr(known, name) for name in recorded}, "train_data_dir": str(images)},
    )


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
    config = replace(
        config, dataset_name=None, default_caption=None, caption_column="text", split_manifest=None, **known
    )
    problems = config.problems()
    if problems:
        raise ConfigError(listing(f"{name} cannot be used", problems))
    return config


def _repeated(sample: Sample) -> str:
    """The folder that says how often an image is trained on."""
    return f"{sample.repeats}_images/" if sample.repeats > 1 else ""


def lengths(options: TrainConfig, subject: Subject | Foreign, half: int, trained: int) -> tuple[int, int | None]:
    """Steps of a shadow, and its checkpoint to ask if that is not the end. ``half`` and ``trained`` are what a pass of
    a shadow and of the adapter takes. Shadows see each image as often as the
    adapter did: where halves are larger than its training set, they train longer."""
    share = half / trained
    if isinstance(subject, Foreign):
        batch = options.train_batch_size * options.gradient_accumulation_steps
        steps = options.max_train_steps or math.ceil(options.num_train_epochs * trained / batch)
        return max(1, round(steps * share)), None
    stop, end = max(1, round(subject.step * share)), max(1, round(subject.max_train_steps * share))
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
    return sum(_size(path) for path in (*newest, *published))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
