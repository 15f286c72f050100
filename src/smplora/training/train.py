"""Adapting a base model: checked first, then written down, then trained. Resuming is exact.

Every random number is a function of (seed, name, step): a killed and resumed run draws what it would have drawn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from smplora.config.catalogue.adaptations import ADAPTATIONS
from smplora.config.distill import WITH_TEACHERS
from smplora.config.dreambooth import CAPTION
from smplora.config.game import unused
from smplora.config.synthetic import SYNTHETIC
from smplora.config.train import TrainConfig, steps_of_a_teacher
from smplora.core.console import say, say_first
from smplora.core.device import check_type, choose_device
from smplora.core.registry import build
from smplora.data.prepare import preparation
from smplora.data.split import MANIFEST, Split, write_split
from smplora.models.diffusion import LatentDiffusion
from smplora.models.text import configured
from smplora.results.record import as_json
from smplora.runs.base_model import DTYPES, fetch_model, load_base
from smplora.runs.folder import RunFolder, check_place, check_settings
from smplora.runs.rehearsal import what_is_kept_out
from smplora.runs.subject import Subject, find_subject
from smplora.training.budget import BudgetKeeper, check_resolvable
from smplora.training.differential_privacy import check_private
from smplora.training.distributed import make_accelerator
from smplora.training.early_stopping import BestKeeper, check_images
from smplora.training.loop import optimise
from smplora.training.memory import explaining
from smplora.training.monitor import Monitor
from smplora.training.opening import how_long, toy_warning, what_can_be_found, what_is_done
from smplora.training.optimizers import check_installed
from smplora.training.precision import fastest, frozen_type
from smplora.training.resolve import load_split, resolved
from smplora.training.setup import prepare, restore
from smplora.training.synthesis import captions_to_draw, check_choosers, draw_images, drawn_captions
from smplora.training.teachers import PROTOCOL as FOLD
from smplora.training.teachers import check_teachers, teacher_runs
from smplora.training.trackers import PROJECT, chosen_trackers, init_options, nameless_host, tracker_options


@dataclass(frozen=True)
class Ready:
    """A run that was checked and can start; nothing is written yet."""

    config: TrainConfig  # every default filled in
    folder: RunFolder
    split: Split
    accelerator: Accelerator
    trackers: list[str]
    progress: bool  # whether this process shows any


def train(
    config: TrainConfig,
    *,
    progress: bool = True,
    refresh: Callable[[Path], None] | None = None,
    describe: Callable[[Subject], None] | None = None,
) -> Path:
    """Adapt the base model to the members of the split; returns the run folder.

    Args:
        refresh: writes the run's page anew, with ``--run_page``; called now and then, and at the end.
        describe: writes the card of what was trained; called before the run is marked as complete.

    Raises:
        UserError: anything that the user can mend, before the first step where possible.
        OSError: the run folder cannot be written.
    """
    ready, model = check(config, progress)
    folder, accelerator = ready.folder, ready.accelerator
    with folder.locked() if accelerator.is_main_process else nullcontext():
        write_settings(ready, model)
        if folder.done is None:
            if ready.config.objective in WITH_TEACHERS:
                device = model.device
                del model  # a teacher has its own
                train_teachers(ready)
                if ready.config.objective == SYNTHETIC:
                    draw_images(ready.config, ready.split, accelerator, ready.progress)
                model = frozen_base(ready.config, device)
            train_adapter(ready, model, refresh, describe)
        else:
            find_subject(str(folder.path)).check_files()
            if ready.progress:
                say(f"{folder.path} is complete")
    if config.json and accelerator.is_main_process:
        print(json.dumps({"run": str(folder.path), **(as_json(folder.done) if folder.done else {})}))
    return folder.path


def frozen_base(config: TrainConfig, device: torch.device) -> LatentDiffusion:
    """The base model, kept in as few bits as the options say where nothing changes it."""
    return load_base(config, device, frozen_type(config.mixed_precision, config.adaptation), config.quantize)


def check(config: TrainConfig, progress: bool) -> tuple[Ready, LatentDiffusion]:
    """The run and its base model, after everything that can be wrong was looked for.

    Raises:
        UserError: as ``train``.
    """
    if progress and (toy := toy_warning(config.pretrained_model_name_or_path)):
        say_first(toy)
    check_installed("optimizer", config.optimizer)
    check_installed("quantize", config.quantize)
    trackers = chosen_trackers(config.report_to)
    if CAPTION not in config.wording and not config.default_caption:  # no image needs a caption of its own
        config = replace(config, default_caption=config.wording)
    folder = RunFolder(Path(config.output_dir))
    check_place(folder.path)
    folder.check_resume(config.resume_from_checkpoint)
    device = choose_device(config.device)
    asked = config.mixed_precision
    config = replace(config, mixed_precision=fastest(device) if asked == "auto" else asked)
    check_type(device, DTYPES[config.mixed_precision], f"--mixed_precision {config.mixed_precision}")
    split = load_split(config, folder.path / MANIFEST)
    accelerator = make_accelerator(device, **tracker_options(trackers, folder.path))
    progress = progress and accelerator.is_main_process
    if progress:
        say_other_precision(config.mixed_precision)
        if asked != config.mixed_precision:
            say(f"--mixed_precision {asked}: '{config.mixed_precision}' on this {device.type.upper()}")
        if split.canaries:
            say(split.canaries.tossed)
    folder.check_processes(accelerator.num_processes)
    with accelerator.main_process_first():
        fetch_model(config)
    model = frozen_base(config, device)
    config = resolved(config, model, split, accelerator.num_processes)
    build(ADAPTATIONS, config.adaptation, "adaptation", config).check(model)
    preparation(config, config.resolution or model.resolution)
    configured(model.text, config.clip_skip, config.max_token_length)
    if config.objective_on_images == "dp_lora":
        batch_size, steps = config.train_batch_size * config.gradient_accumulation_steps, config.max_train_steps or 0
        steps = steps_of_a_teacher(config) if config.objective == SYNTHETIC else steps
        often = max(s.repeats for s in split.train)
        check_private(config, batch_size, len(split.train), steps, accelerator.num_processes, progress, often)
    if config.objective in WITH_TEACHERS:
        check_teachers(config, split)
    if config.measured_budget:
        aside = split.without_aside()
        check_resolvable(config.measured_budget, len(aside.aside), len(aside.aside_nonmembers))
    if config.objective == SYNTHETIC:
        captions_to_draw(config, split)
        check_choosers(config, split)
    check_images(config, split)
    check_settings(folder.path, config)
    return Ready(config, folder, split, accelerator, trackers, progress), model


def write_settings(ready: Ready, model: LatentDiffusion) -> None:
    """The folder with its options, base model and split; checkpoints after the one to resume from are deleted."""
    if ready.accelerator.is_main_process:
        ready.folder.open(ready.config, model)
        write_split(ready.split, ready.folder.path)
        ready.folder.rewind(ready.config.resume_from_checkpoint)
    ready.accelerator.wait_for_everyone()


def train_teachers(ready: Ready) -> None:
    """The runs that the adapter learns from; those that are complete are kept."""
    with ready.accelerator.main_process_first():
        teachers = teacher_runs(ready.config, ready.split)
    for number, options in enumerate(teachers, 1):
        if ready.progress:
            say(f"teacher {number} of {len(teachers)}: {options.output_dir}")
        train(options, progress=ready.progress)


def train_adapter(
    ready: Ready,
    model: LatentDiffusion,
    refresh: Callable[[Path], None] | None,
    describe: Callable[[Subject], None] | None,
) -> None:
    """From the latest checkpoint, or from the start, to the end; see ``train``."""
    config, folder, accelerator = ready.config, ready.folder, ready.accelerator
    split = ready.split.worded(config.wording)
    split = split.without_aside() if config.measured_budget else split
    split = split.without_choosers() if config.chooses_by_reference else split  # not looked at while training
    checkpoint = folder.latest()
    start = checkpoint.step if checkpoint else 0
    if ready.trackers and accelerator.is_main_process:
        with nameless_host():
            accelerator.init_trackers(PROJECT, init_kwargs=init_options(ready.trackers, folder.path))
    setup = prepare(config, model, split, accelerator, ready.progress)
    if ready.progress:
        say_who_is_trained_on(ready)
        if left := unused(config, config.objective_on_images):
            say(f"not used, since {config.objective_on_images} has no proxy: {', '.join(left)}")
    setup.keeper = BestKeeper.make(config, setup, split, folder)
    if budget := BudgetKeeper.make(config, setup, folder):
        setup.keeper = budget
    if budget and ready.progress:
        say(
            f"{len(split.aside)} aux members and {len(split.aside_nonmembers)} aux non-members are set aside, to "
            f"measure --privacy_budget {config.privacy_budget} every {budget.steps} steps; audits leave them out"
        )
    captions = [s.caption for s in split.train] if config.objective != SYNTHETIC else drawn_captions(folder.path)
    cut = model.text.cut(captions)
    if cut and ready.progress:
        say(f"{cut} of {len(captions)} captions are longer than --max_token_length; their ends are cut off")
    if checkpoint:
        restore(setup, checkpoint, folder)
        if ready.progress:
            say(f"resuming {folder.path} at step {start}")
    if ready.progress:
        say(what_is_done(config, model, accelerator.num_processes))
    with explaining(config, setup):
        expected = how_long(config, setup, start)
    if expected and ready.progress:
        say(expected)
    with explaining(config, setup):
        monitor = Monitor(config, setup, split, folder, start, refresh)
        if not model.text_is_trained:  # every caption but those of validation images is embedded
            model.rest_text()
        optimise(config, setup, folder, monitor, start, ready.progress, describe)


def say_who_is_trained_on(ready: Ready) -> None:
    """How many images, what the others are for, and what so many can tell."""
    config, split = ready.config, ready.split
    if config.final:
        kept = what_is_kept_out(config)
        say(f"{len(split.train):,} images are trained on{f'; kept out: {kept}' if kept else ', all of the rehearsal'}")
    elif split.protocol == FOLD:  # a teacher's
        say(f"{len(split.train):,} images are trained on")
    else:
        which = "--split_manifest says which" if config.split_manifest else "--aux_size, --test_size change that"
        say(f"{split.divided}: {which}; 'train --final' takes all")
        audited = split.without_aside() if config.measured_budget else split
        if small := what_can_be_found(audited.sizes):
            say(small)


def say_other_precision(own: str) -> None:
    """Say that accelerate's precision is not used: ``accelerate config`` and ``accelerate launch`` ask for one too,
    which diffusers' scripts would take."""
    of_accelerate = os.environ.get("ACCELERATE_MIXED_PRECISION", own)
    if of_accelerate != own:
        say(f"accelerate is set to {of_accelerate}, which is not used: --mixed_precision is '{own}'")
