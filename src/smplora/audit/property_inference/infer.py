"""``smplora properties``: measure the adapter, train reference adapters and measure them alike, judge."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smplora.attacks.methods.calibrated_loss import CalibratedLossAttack
from smplora.audit.property_inference import wording
from smplora.audit.property_inference.judge import IMAGES, SHARES, Scale, judge
from smplora.audit.property_inference.predictors import Dsire, LossRegression, Predictor, SpectrumRegression, stacked
from smplora.audit.property_inference.references import (
    PROTOCOL,
    REFERENCES,
    Reference,
    Sides,
    Trainer,
    share_grid,
    share_size,
    sides_of,
    size_grid,
    trainer,
)
from smplora.audit.signals import Collector
from smplora.config.properties import PropertiesConfig
from smplora.core.arrays import Floats
from smplora.core.cache import open_cache
from smplora.core.console import progress as with_bar
from smplora.core.console import say
from smplora.core.device import choose_device
from smplora.core.environment import environment
from smplora.core.errors import ConfigError, DataError, nearest
from smplora.core.output import output_folder
from smplora.core.parallel import Work
from smplora.data.attributes import attribute_values
from smplora.data.pool import Sample
from smplora.data.split import Split
from smplora.models.spectra import spectra
from smplora.results.manifest import CELLS
from smplora.results.properties import FORMAT, Answer, Attribute, Properties, Question
from smplora.results.record import write
from smplora.runs.base_model import DTYPES
from smplora.runs.subject import RESULT_FILES, Loaded, find_subject, load_adapted, load_subject, result_folder

NOISE_PAIRS = 1
WITH, WITHOUT = "aux_nonmember", "test_nonmember"  # cells that hold the images that are asked
Measured = tuple[Mapping[tuple[str, str], Floats], float]  # of an adapter: spectra, difference of losses
MATRIXLESS = (
    "--adapter: '{}' trained no matrix of the networks (textual inversion learns tokens only), so that its weights "
    "tell neither; ask about a LoRA or a whole fine-tuned model"
)


@dataclass(frozen=True)
class ShareQuestion:
    """Which share, and the images to ask with."""

    attribute: Attribute
    sides: Sides
    references: tuple[Reference, ...]
    truth: float


@dataclass
class Prepared:
    """Everything that the user can mend was said while it was made."""

    folder: Path
    loaded: Loaded
    trainer: Trainer
    sizes: tuple[Reference, ...]
    share: ShareQuestion | None
    notes: list[str]

    @property
    def references(self) -> list[Reference]:
        """Of both questions."""
        return [*self.sizes, *(self.share.references if self.share else ())]


def prepare(config: PropertiesConfig) -> Prepared:
    """Load the adapter and its images, and plan the reference adapters; nothing is written.

    Raises:
        UserError: anything that the user can mend.
    """
    adapter = config.adapter or ""
    if find_subject(adapter).config.adaptation == "textual_inversion":
        raise ConfigError(MATRIXLESS.format(adapter))
    folder = result_folder(adapter, config.output_dir, "properties")
    cache = open_cache(config.cache_dir, config.cache_latents_to_disk)
    moved = {"train_data_dir": config.train_data_dir, "dataset_name": config.dataset_name}
    loaded = load_subject(adapter, moved, config.device, cache=cache, dtype=DTYPES[config.mixed_precision])
    making = trainer(config, loaded, folder)
    sizes = tuple(making.of_sizes(size_grid(config, making.pool))) if config.count else ()
    notes: list[str] = []
    share = share_question(config, loaded, making, notes) if config.attribute else None
    ready = Prepared(folder, loaded, making, sizes, share, notes)
    making.check(ready.references)
    return ready


def share_question(config: PropertiesConfig, loaded: Loaded, making: Trainer, notes: list[str]) -> ShareQuestion:
    """Which of the training images have the value, and adapters with known shares.

    Raises:
        UserError: no such column or value, or too few images.
    """
    column = config.attribute or ""
    values = attribute_values(loaded.source, column)
    held = Counter(values[s.file] for s in making.pool.samples if s.file in values)
    if not held:
        raise DataError(f"--attribute '{column}': none of the attacker's {len(making.pool.samples)} images has a value")
    value = config.attribute_value or min(held, key=lambda v: (-held[v], v))
    if value not in held:
        there = ", ".join(f"'{v}'" for v, _ in held.most_common(20))
        raise DataError(
            f"--attribute_value got '{value}', which none of the attacker's images has{nearest(value, held)}; allowed: "
            f"{there}"
        )
    trained = loaded.split.train  # canaries of another folder have no value
    known = [values[s.file] for s in trained if s.file in values]
    if not known:
        raise DataError(f"--attribute '{column}': none of the {len(trained)} training images has a value")
    unknown = len(trained) - len(known)
    left_out = len(making.pool.samples) - sum(held.values())
    if unknown or left_out:
        notes.append(
            f"Without a value in '{column}', and left out: {unknown} of {len(trained)} training images, "
            f"{left_out} of the attacker's {len(making.pool.samples)}."
        )
    sides = sides_of(making.pool, values, value, config.seed)
    grid = share_grid(config)
    size = share_size(grid, sides, making.pool, len(trained))
    if size < len(trained):
        notes.append(
            f"Adapters with known shares are trained on {size} images where this one was on {len(trained)}: "
            "the attacker holds no more with and without the value."
        )
    counts = known.count(value)
    attribute = Attribute(column, value, counts, len(known) - counts, unknown, *map(len, sides.asked))
    references = making.of_shares(grid, size, sides, f"{column}\x1f{value}")
    return ShareQuestion(attribute, sides, tuple(references), counts / len(known))


def plan(config: PropertiesConfig) -> list[str]:
    """``--plan``: what would be trained, how long it would take and how much space; nothing is written.

    Raises:
        UserError: as ``prepare``.
    """
    ready = prepare(config)
    return [*_labels(ready), ready.trainer.cost(ready.references, ready.loaded), *ready.notes]


def _labels(ready: Prepared) -> list[str]:
    lines = [f"the attacker holds {len(ready.trainer.pool.samples)} images"]
    if ready.sizes:
        sizes = ", ".join(str(int(x)) for x in sorted({r.label for r in ready.sizes}))
        lines.append(f"how many images was it trained on: {len(ready.sizes)} adapters on {sizes} of them")
    if ready.share:
        shares = ", ".join(f"{x:.2g}" for x in sorted({r.label for r in ready.share.references}))
        about, number = ready.share.attribute, len(ready.share.references)
        images = len(ready.share.references[0].shadow.split.train)
        lines.append(
            f"which share of '{about.value}' in '{about.column}': {number} adapters on {images} images, shares {shares}"
        )
    return lines


def infer(config: PropertiesConfig, training: Work, *, progress: bool = True) -> Properties:
    """Write properties.json; returns its content.

    Args:
        training: trains one reference adapter.

    Raises:
        UserError: anything that the user can mend.
    """
    began, ready = time.perf_counter(), prepare(config)
    for line in (*_labels(ready), ready.trainer.cost(ready.references, ready.loaded)) if progress else ():
        say(line)
    with output_folder(ready.folder, (*RESULT_FILES["properties"], REFERENCES)):
        subject = ready.loaded.subject.summary(ready.loaded.adapter_sha256, ready.loaded.model)
        measured = [measure(ready.loaded, ready.share, config)]
        bare = replace(ready.loaded, adapted=None)  # type: ignore[arg-type]
        del ready.loaded  # its memory is needed to train
        ready.trainer.train(ready.references, training)
        for number, reference in enumerate(with_bar(ready.references, "measure reference adapters", "adapter")):
            share = ready.share if number >= len(ready.sizes) else None
            measured.append(measure(_loaded(reference, bare, config), share, config))
        result = Properties(
            format=FORMAT,
            subject=subject,
            seal=bare.split.seal,
            held=len(ready.trainer.pool.samples),
            steps=ready.references[0].shadow.options.max_train_steps or 0,
            settings=settings(config),
            size=_size(ready, bare.split, measured, config.seed) if ready.sizes else None,
            share=_share(ready.share, measured, len(ready.sizes), config.seed) if ready.share else None,
            attribute=ready.share.attribute if ready.share else None,
            notes=(*wording.assumptions(ready.trainer.options.objective), *ready.notes),
            environment=environment(),
            elapsed_s=round(time.perf_counter() - began, 1),
        )
        write(ready.folder / "properties.json", result)
    return result


def settings(config: PropertiesConfig) -> dict[str, Any]:
    """The options that decide the numbers."""
    names = ("count", "attribute", "attribute_value", "references", "sizes", "shares", "seed", "mixed_precision")
    return {name: getattr(config, name) for name in names}


def _loaded(reference: Reference, like: Loaded, config: PropertiesConfig) -> Loaded:
    """A reference adapter beside the source and cache of the one that is asked about."""
    subject = find_subject(str(reference.shadow.adapter))
    adapted = load_adapted(subject, choose_device(config.device), DTYPES[config.mixed_precision])
    return replace(like, subject=subject, adapted=adapted, adapter_sha256=subject.adapter_sha256)


def measure(loaded: Loaded, share: ShareQuestion | None, config: PropertiesConfig) -> Measured:
    """Spectra of an adapter and, where a share is asked for, how much easier it made images with the value than images
    without: mean over images and timesteps of log l_base - log l_adapted.

    Raises:
        ConfigError: it trained no matrix.
    """
    found = {name: values.numpy() for name, values in spectra(loaded.adapted).items()}
    if not found:
        raise ConfigError(MATRIXLESS.format(loaded.subject.label))
    if share is None:
        return found, 0.0
    sides: dict[str, tuple[Sample, ...]] = {WITH: share.sides.asked[0], WITHOUT: share.sides.asked[1]}
    split = Split(PROTOCOL, 0, {cell: sides.get(cell, ()) for cell in CELLS}).worded(loaded.subject.config.wording)
    collector = Collector(replace(loaded, split=split), config.seed, config.batch_size)
    signals = collector.signals({"calibrated_loss": CalibratedLossAttack(noise_pairs=NOISE_PAIRS)}, (WITH, WITHOUT))
    means = [float(np.mean(signals["calibrated_loss", cell])) for cell in (WITH, WITHOUT)]
    return found, means[0] - means[1]


def _size(ready: Prepared, split: Split, measured: Sequence[Measured], seed: int) -> Question:
    asked, references = measured[0], measured[1 : 1 + len(ready.sizes)]
    table = stacked([spectra for spectra, _ in (*references, asked)])
    predictors: list[Predictor] = [SpectrumRegression(table), Dsire(table)]
    text = "How many images was it trained on?"
    return _question(text, predictors, ready.sizes, float(len(split.train)), IMAGES, seed)


def _share(share: ShareQuestion, measured: Sequence[Measured], sizes: int, seed: int) -> Question:
    table = stacked([spectra for spectra, _ in (*measured[1 + sizes :], measured[0])])
    differences = np.array([difference for _, difference in (*measured[1 + sizes :], measured[0])])
    predictors: list[Predictor] = [LossRegression(differences), SpectrumRegression(table), Dsire(table)]
    about = share.attribute
    text = f"Which share of the training images has '{about.value}' in '{about.column}'?"
    return _question(text, predictors, share.references, share.truth, SHARES, seed)


def _question(
    text: str,
    predictors: Sequence[Predictor],
    references: Sequence[Reference],
    truth: float,
    scale: Scale,
    seed: int,
) -> Question:
    labels = [reference.label for reference in references]
    said, without, p = judge(predictors, labels, truth, scale, seed)
    counts = scale is IMAGES
    answers = tuple(
        Answer(
            name=how.name,
            title=how.title,
            reference=how.reference,
            bibtex=how.bibtex,
            **vars(one),
            sentence=wording.answer(how.name, one, truth, without, counts=counts),
        )
        for how, one in zip(predictors, said, strict=True)
    )
    return Question(
        text=text,
        truth=truth,
        references=tuple(labels),
        images=tuple(len(reference.shadow.split.train) for reference in references),
        error_without=without,
        answers=answers,
        p=p,
        sentence=wording.conclusion(said, truth, max(labels), p, counts=counts),
    )
