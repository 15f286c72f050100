"""``--final RUN``: a run that was audited is a rehearsal; its options train what is published, on all of its images.

An audit needs images that were not trained on, so the audited adapter never saw all of them. What the audit says of the
final one is a forecast: the same options, and as many passes over each image.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.early_stopping import UNSTOPPED
from smplora.config.synthetic import BALANCED
from smplora.config.train import TrainConfig
from smplora.core.errors import CheckpointError, ConfigError, listing
from smplora.core.surroundings import real
from smplora.data.split import chooses
from smplora.results.audit import AuditSubject
from smplora.results.manifest import Manifest
from smplora.results.record import read
from smplora.runs.checkpoints import read_state
from smplora.runs.folder import CONFIG, FREE_OPTIONS, RunFolder, read_config

FOLDER = "rehearsal"  # in the final run's folder: what the card shows
KEPT_RESULTS = {"audit": ("audit.json",), "quality": ("quality.json", "samples.png", "real.png")}
MANIFEST = "split.json"
STEADY = ("constant", "constant_with_warmup")  # schedules that do not depend on how many steps there are
TRAINED = ("aux_member", "test_member")
OWN_OPTIONS = FREE_OPTIONS | {"final", "train_data_dir", "max_train_steps", "checkpointing_steps", "logging_steps"}


def with_options_of_rehearsal(config: TrainConfig, given: Collection[str] = ()) -> TrainConfig:
    """The options of ``--final``: the rehearsal's, with what may differ taken from ``config``; steps, a teacher's steps
    and drawn images grow with the number of images. A run that was begun keeps the options that it was begun with.

    Args:
        given: names of options that were given, whatever their value; others count where they are not at their default.

    Raises:
        CheckpointError: the rehearsal is no finished run.
        ConfigError: options that are not the rehearsal's, or of a rehearsal that has no final.
    """
    run = Path(config.final or "")
    final, default = str(run), config.output_dir == TrainConfig.output_dir
    output = f"{run}-final" if default else config.output_dir
    if (Path(output) / CONFIG).exists():
        before = read_config(Path(output), TrainConfig)
        if not before.final or real(before.final) != real(run):
            raise ConfigError(
                f"--output_dir '{output}' holds a run that is not the final of '{run}'; give a new folder"
            )
    else:
        before = _planned(run)
    plain = TrainConfig()
    changed = [f.name for f in fields(config) if getattr(config, f.name) != getattr(plain, f.name)]
    wrong = [name for name in {*changed, *given} - OWN_OPTIONS if getattr(config, name) != getattr(before, name)]
    if wrong:
        title = f"--final {run} takes the options of that run; leave these out, or rehearse with them"
        said = [f"--{n} was {getattr(before, n)!r}, now {getattr(config, n)!r}" for n in sorted(wrong)]
        raise ConfigError(listing(title, said))
    free = {name: getattr(config, name) for name in OWN_OPTIONS & {*changed, *given}}
    return replace(before, **{**free, "output_dir": output, "final": before.final or final})


def _planned(run: Path) -> TrainConfig:
    if not (run / CONFIG).exists():
        raise CheckpointError(f"--final got '{run}', which is not a run folder: it has no {CONFIG}")
    before, done = read_config(run, TrainConfig), RunFolder(run).done
    if done is None:
        raise CheckpointError(
            f"--final got '{run}', which is not finished; 'smplora train --config {run / CONFIG}' resumes it"
        )
    if why := why_no_final(before):
        raise ConfigError(f"--final got '{run}', {why}")
    if before.lr_scheduler not in STEADY and done.step < (before.max_train_steps or 0):
        raise ConfigError(
            f"--final got '{run}', of which step {done.step:,} of {before.max_train_steps:,} was published, in the "
            f"middle of --lr_scheduler {before.lr_scheduler}: a final would go through all of it; rehearse with a "
            "constant rate"
        )
    manifest = read(run / MANIFEST, Manifest, "restore it")
    was, will = _trained(manifest), _to_train_on(manifest, kept_out(before))

    processes = _processes(run) / int(os.environ.get("WORLD_SIZE", "1"))  # a step of two takes two batches

    def grown(number: int | None, share: float = 1.0) -> int | None:
        return number and max(1, round(number * share * will / was))

    changed: dict[str, Any] = {
        "max_train_steps": grown(done.step, processes),
        "teacher_steps": grown(before.teacher_steps, processes),
        "lr_warmup_steps": grown(before.lr_warmup_steps, processes),
    }
    changed |= {"num_synthetic_images": grown(before.num_synthetic_images), "num_canaries": None}
    changed |= {"split_manifest": None, "monitor_steps": 0, "resume_from_checkpoint": "latest", "json": False}
    changed |= UNSTOPPED  # the steps say it already
    if before.measured_budget:  # kept by stopping, likewise
        changed |= {"privacy_budget": None, "budget_steps": None}
    return replace(before, **changed)


def why_no_final(config: TrainConfig) -> str:
    """Why a run has none; "" where it has one."""
    if config.final:
        return f"which is the final of '{config.final}' itself"
    if config.canaries_dir:
        return "which has canaries of --canaries_dir; rehearse without them"
    if config.measured_budget and config.objective in WITH_PROXY:
        return (
            "whose lambda followed --privacy_budget, and nothing of a final can be measured; rehearse with a fixed "
            "--mi_lambda"
        )
    return ""


def was_audited(rehearsal: Path) -> bool:
    """Whether there is an audit of the adapter that a run ended with, in its folder."""
    done, audit = RunFolder(rehearsal).done, rehearsal / "audit" / "audit.json"
    return (
        done is not None
        and audit.is_file()
        and read(audit, AuditSubject, "audit it again").subject.adapter_sha256 == done.adapter_sha256
    )


def _processes(run: Path) -> int:
    """That trained it."""
    steps = RunFolder(run).steps()
    return read_state(RunFolder(run).folder_of(steps[-1])).num_processes if steps else 1


def what_is_kept_out(config: TrainConfig) -> str:
    """For people, of a final; "" where nothing is."""
    cells = kept_out(config)
    said = {"aux_nonmember": "what the proxy knows as unseen", "reference": "what chooses among drawn images"}
    return " and ".join(said[cell] for cell in cells)


def kept_out(config: TrainConfig) -> tuple[str, ...]:
    """The cells that a final training does not train on either: what its objective needs to have not seen."""
    proxy = ("aux_nonmember",) if config.objective_on_images in WITH_PROXY else ()
    return (*proxy, *(("reference",) if config.drop_nearest == BALANCED else ()))


def _trained(manifest: Manifest) -> int:
    """Images in a pass of the rehearsal."""
    parts = [manifest.cells, *([manifest.canaries] if manifest.canaries else [])]
    return sum(image.repeats or 1 for part in parts for cell in TRAINED for image in part[cell])


def _to_train_on(manifest: Manifest, held: tuple[str, ...]) -> int:
    """Images in a pass of the final: see ``data.final.final_split``."""
    images = [
        image
        for cell, of_cell in manifest.cells.items()
        for image in of_cell
        if cell not in held or (cell == "reference" and not chooses(image))
    ]
    images += [image for of_cell in (manifest.canaries or {}).values() for image in of_cell]
    return sum(image.repeats or 1 for image in images)


def keep_rehearsal(config: TrainConfig) -> None:
    """Copy the rehearsal's audit, and the quality of the same adapter, into the final run's folder, for its card."""
    rehearsal, folder = Path(config.final or ""), Path(config.output_dir) / FOLDER
    if not was_audited(rehearsal):
        return
    audited = read(rehearsal / "audit" / "audit.json", AuditSubject, "audit it again").subject.adapter_sha256
    quality = rehearsal / "quality" / "quality.json"
    same = quality.is_file() and read(quality, AuditSubject, "evaluate again").subject.adapter_sha256 == audited
    for name in ("audit", *(["quality"] if same else [])):
        for file in KEPT_RESULTS[name]:
            if (rehearsal / name / file).is_file():
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copyfile(rehearsal / name / file, folder / name / file)
