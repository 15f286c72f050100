"""``--final RUN``: a run that was audited is a rehearsal; its options train what is published, on all of its images.

An audit needs images that were not trained on, so the audited adapter never saw all of them. What the audit says of the
final one is a forecast: the same options, and as many passes over each image.
"""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.early_stopping import UNSTOPPED
from smplora.config.synthetic import BALANCED
from smplora.config.train import TrainConfig
from smplora.core.errors import CheckpointError, ConfigError, listing
from smplora.results.audit import AuditSubject
from smplora.results.manifest import CELLS, Manifest
from smplora.results.record import read
from smplora.runs.folder import CONFIG, FREE_OPTIONS, RunFolder, read_config

FOLDER = "rehearsal"  # in the final run's folder: what the card shows
KEPT_RESULTS = {"audit": ("audit.json",), "quality": ("quality.json", "samples.png", "real.png")}
MANIFEST = "split.json"
TRAINED = ("aux_member", "test_member")
OWN_OPTIONS = FREE_OPTIONS | {"final", "train_data_dir", "max_train_steps", "checkpointing_steps", "logging_steps"}


def with_options_of_rehearsal(config: TrainConfig) -> TrainConfig:
    """The options of ``--final``: the rehearsal's, with what may differ taken from ``config``; steps, a teacher's steps
    and drawn images grow with the number of images. A run that was begun keeps the options that it was begun with.

    Raises:
        CheckpointError: the rehearsal is no finished run.
        ConfigError: options that are not the rehearsal's, or of a rehearsal that has no final.
    """
    run = Path(config.final or "")
    plain = TrainConfig()
    default = config.output_dir == plain.output_dir
    output = f"{run}-final" if default else config.output_dir
    if (Path(output) / CONFIG).exists():
        before = read_config(Path(output), TrainConfig)
        if before.final != config.final:
            raise ConfigError(
                f"--output_dir '{output}' holds a run that is not the final of '{run}'; give a new folder"
            )
    else:
        before = _planned(run)
    own = {f.name: getattr(config, f.name) for f in fields(config)}
    own = {name: value for name, value in own.items() if value != getattr(plain, name)}
    wrong = [name for name, value in own.items() if name not in OWN_OPTIONS and value != getattr(before, name)]
    if wrong:
        title = f"--final {run} takes the options of that run; leave these out, or rehearse with them"
        raise ConfigError(listing(title, [f"--{n} was {getattr(before, n)!r}, now {own[n]!r}" for n in wrong]))
    free = {name: value for name, value in own.items() if name in OWN_OPTIONS}
    return replace(before, **{**free, "output_dir": output, "final": config.final})


def _planned(run: Path) -> TrainConfig:
    if not (run / CONFIG).exists():
        raise CheckpointError(f"--final got '{run}', which is not a run folder: it has no {CONFIG}")
    before, done = read_config(run, TrainConfig), RunFolder(run).done
    if done is None:
        raise CheckpointError(
            f"--final got '{run}', which is not finished; 'smplora train --config {run / CONFIG}' resumes it"
        )
    if before.final:
        raise ConfigError(
            f"--final got '{run}', which is the final of '{before.final}' itself: it is what can be published"
        )
    if before.canaries_dir:
        raise ConfigError(f"--final got '{run}', which has canaries of --canaries_dir; rehearse without them")
    if before.measured_budget and before.objective in WITH_PROXY:
        raise ConfigError(
            f"--final got '{run}', whose lambda followed --privacy_budget, and nothing of a final can be measured; "
            "rehearse with a fixed --mi_lambda"
        )
    manifest = read(run / MANIFEST, Manifest, "restore it")
    was, will = _images(manifest, TRAINED), _images(manifest, _cells_to_train_on(before))

    def grown(number: int | None) -> int | None:
        return number and max(1, round(number * will / was))

    changed: dict[str, Any] = {"max_train_steps": grown(done.step), "teacher_steps": grown(before.teacher_steps)}
    changed |= {"num_synthetic_images": grown(before.num_synthetic_images), "num_canaries": None}
    changed |= {"split_manifest": None, "monitor_steps": 0, "resume_from_checkpoint": "latest", "json": False}
    changed |= UNSTOPPED  # the steps say it already
    if before.measured_budget:  # kept by stopping, likewise
        changed |= {"privacy_budget": None, "budget_steps": None}
    return replace(before, **changed)


def _cells_to_train_on(config: TrainConfig) -> tuple[str, ...]:
    return tuple(cell for cell in CELLS if cell not in kept_out(config))


def kept_out(config: TrainConfig) -> tuple[str, ...]:
    """The cells that a final training does not train on either: what its objective needs to have not seen."""
    proxy = ("aux_nonmember",) if config.objective_on_images in WITH_PROXY else ()
    return (*proxy, *(("reference",) if config.drop_nearest == BALANCED else ()))


def _images(manifest: Manifest, cells: tuple[str, ...]) -> int:
    """In a pass of training, the canaries of these cells among them."""
    every = [manifest.cells, *([manifest.canaries] if manifest.canaries else [])]
    return sum(image.repeats or 1 for part in every for cell in cells for image in part[cell])


def keep_rehearsal(config: TrainConfig) -> bool:
    """Copy the rehearsal's audit and quality into the final run's folder, for its card; whether there is an audit of
    the adapter that the rehearsal ended with."""
    rehearsal, folder = Path(config.final or ""), Path(config.output_dir) / FOLDER
    done = RunFolder(rehearsal).done
    audit = rehearsal / "audit" / "audit.json"
    if done is None or not audit.is_file():
        return folder.exists()
    if read(audit, AuditSubject, "audit it again").subject.adapter_sha256 != done.adapter_sha256:
        return False
    for name, files in KEPT_RESULTS.items():
        for file in files:
            if (rehearsal / name / file).is_file():
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copyfile(rehearsal / name / file, folder / name / file)
    return True
