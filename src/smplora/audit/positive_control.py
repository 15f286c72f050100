"""The positive control: an adapter that learned some aux members by heart must be found out by the audit's attacks.

Otherwise they could not have found a leak either. It needs the base model and images only, so adapters of any origin
can be audited with it. It is trained once for each base model, split and seed, and resumed after a kill.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from smplora.attacks.base import Attack
from smplora.attacks.fitting import out_of_fold
from smplora.attacks.views import out_of_reach
from smplora.audit.signals import ATTACKED, Collector
from smplora.config.audit import AuditConfig
from smplora.config.data import ModelOptions
from smplora.config.train import TrainConfig
from smplora.core.device import choose_device
from smplora.core.parallel import Work
from smplora.core.random_streams import stream_seed
from smplora.data.cell_sizes import SMALLEST_CELL
from smplora.data.folder import write_folder
from smplora.data.pool import Sample
from smplora.data.split import Split, write_split
from smplora.results.audit import Gate, TriedAttack
from smplora.results.estimate import Proportion
from smplora.runs.folder import RunFolder
from smplora.runs.subject import FROM_METADATA, Foreign, Loaded, find_subject, load_adapted
from smplora.statistics.intervals import auc_interval

NAME = "positive_control"
FOLDER = "control"
MOST_MEMBERS = 20  # few images are learned by heart soonest
BATCH, RANK, LEARNING_RATE = 10, 64, 2e-3
AS_TRAINED = ("center_crop", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso", "mixed_precision", "quantize",
              "gradient_checkpointing")  # fmt: skip
REACHED = 0.9  # the AUC that a working attack must exceed


def control_check(
    loaded: Loaded,
    attacks: Mapping[str, Attack],
    config: AuditConfig,
    folder: Path,
    training: Work,
    *,
    progress: bool = True,
) -> Gate:
    """Train the control, unless that was done, and attack it, out of fold, with the audit's own attacks.

    Args:
        folder: of the audit.
        training: trains the control.

    Raises:
        UserError: it cannot be trained.
    """
    split = control_split(loaded.split)
    if split is None:
        small = f"positive control: not tried, as aux cells have fewer than {2 * SMALLEST_CELL} images"
        return Gate(NAME, None, small, None)
    attacks = {name: getattr(attack, "compared", attack) for name, attack in attacks.items()}  # shadows know no control
    control = _trained(loaded, split, config, folder / FOLDER, training, progress)
    collector = Collector(control, config.seed, config.batch_size)
    attacks = {n: attack for n, attack in attacks.items() if attack.info.access not in out_of_reach(control.adapted)}
    signals = collector.signals(attacks, ATTACKED)
    is_member = np.concatenate([np.full(split.sizes[cell], not cell.endswith("nonmember")) for cell in ATTACKED])
    level = 1 - 0.05 / len(attacks)
    areas = {}
    for name, attack in attacks.items():
        whole = np.concatenate([signals[name, cell] for cell in ATTACKED])
        scores = out_of_fold(attack, whole, is_member, stream_seed(config.seed, NAME))
        area = auc_interval(scores, is_member, level)
        areas[name] = area if area.value >= 0.5 else auc_interval(-scores, is_member, level)
    best = max(areas, key=lambda name: areas[name].value)
    area, blind = areas[best], [name for name, one in areas.items() if one.value <= REACHED]
    passed = area.value > REACHED and area.low > 0.5
    learned = f"an adapter that learned {len(split.train)} images by heart ({config.positive_control_steps} steps)"
    sentence = (
        f"{learned} {'is found out' if passed else 'goes unseen, so that this audit could not have found a leak'}: "
        f"'{attacks[best].info.title}' has AUC {area.value:.2f} [{area.low:.2f}, {area.high:.2f}]"
        + f"; at {REACHED} or below: {', '.join(blind)}"
        * bool(passed and blind)
    )
    aucs = {name: Proportion(one.value, one.low, one.high, one.method) for name, one in areas.items()}
    attempts = tuple(TriedAttack(name, auc) for name, auc in aucs.items())
    return Gate(NAME, passed, sentence, replace(aucs[best], level=level), attempts)


def control_sentence(steps: int) -> str:
    """For the plan."""
    return (
        f"positive control: unless it is in the audit's folder, {steps} training steps of {BATCH} "
        f"images, and the attacks on {2 * MOST_MEMBERS} images or fewer"
    )


def control_split(split: Split) -> Split | None:
    """Some aux members, to be learned by heart, and as many aux non-members; None: there are too few.

    Test images stay out: they are private like the others, and nothing more is to be learned from them.
    """
    half = min(MOST_MEMBERS, *(len(split.cells[cell]) for cell in ("aux_member", "aux_nonmember"))) // 2
    if half < SMALLEST_CELL:
        return None
    cells: dict[str, tuple[Sample, ...]] = {"reference": ()}
    for name in ("member", "nonmember"):
        images = split.cells[f"aux_{name}"]
        cells |= {f"aux_{name}": images[:half], f"test_{name}": images[half : 2 * half]}
    return Split("fixed", split.seed, cells)


def control_options(loaded: Loaded, config: AuditConfig) -> dict[str, Any]:
    """How the control is trained: base model and preparation of the audited adapter, plain LoRA on all layers."""
    known = loaded.subject.config
    shared = (*(f.name for f in fields(ModelOptions)), *FROM_METADATA, *AS_TRAINED)
    return {
        **{name: getattr(known, name) for name in shared},
        **({"mixed_precision": config.mixed_precision} if isinstance(loaded.subject, Foreign) else {}),
        "resolution": loaded.resolution,
        "lora_targets": "all",
        "rank": RANK,
        "learning_rate": LEARNING_RATE,
        "lr_warmup_steps": 0,
        "train_batch_size": BATCH,
        "max_train_steps": config.positive_control_steps,
        "checkpointing_steps": max(1, config.positive_control_steps // 4),
        "checkpoints_total_limit": 1,
        "seed": config.seed,
        "device": config.device,
        "cache_dir": config.cache_dir,
        "cache_latents_to_disk": config.cache_latents_to_disk,
        "monitor_steps": 0,
        "validation_steps": 0,
        "run_page": False,
    }


def _trained(loaded: Loaded, split: Split, config: AuditConfig, folder: Path, training: Work, progress: bool) -> Loaded:
    options = control_options(loaded, config)
    decided = [loaded.model.digest, split.seal, {k: v for k, v in options.items() if k not in ("device", "cache_dir")}]
    digest = hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()
    run, images = folder / digest[:16], folder / "images"
    if RunFolder(run).done is None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        manifest = write_split(_copy(loaded, split, images), folder)
        own: dict[str, Any] = {"train_data_dir": str(images), "split_manifest": str(manifest), "output_dir": str(run)}
        training.run(TrainConfig(**options, **own), progress=progress)
    shutil.rmtree(images, ignore_errors=True)
    subject = find_subject(str(run))
    adapted = load_adapted(subject, choose_device(config.device), loaded.model.dtype)
    return replace(loaded, subject=subject, adapted=adapted, split=split, adapter_sha256=subject.adapter_sha256)


def _copy(loaded: Loaded, split: Split, folder: Path) -> Split:
    """The images, which may come from several sources, as one folder for the training; removed when it is through."""
    shutil.rmtree(folder, ignore_errors=True)
    cells = {
        cell: tuple(
            replace(sample, file=f"{cell}-{number:04d}.png", repeats=1) for number, sample in enumerate(samples)
        )
        for cell, samples in split.cells.items()
    }
    write_folder(
        folder,
        (
            (new.file, loaded.source.read(old.file), [new.caption, *new.more_captions])
            for cell, samples in split.cells.items()
            for old, new in zip(samples, cells[cell], strict=True)
        ),
    )
    return replace(split, cells=cells)
