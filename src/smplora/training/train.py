"""The training loop (paper, Algorithms 1 and 2), top to bottom, on accelerate. Resuming is exact.

Every random number is a function of (seed, name, step): a killed and resumed run draws what it would have drawn.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from smplora.config.catalogue.adaptations import ADAPTATIONS
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.distill import DISTILLED
from smplora.config.dreambooth import CAPTION
from smplora.config.train import TrainConfig
from smplora.core.console import bar, say
from smplora.core.device import choose_device
from smplora.core.errors import ConfigError, SplitError, TrainingError
from smplora.core.files import files_sha256
from smplora.core.random_streams import stream_seed
from smplora.core.registry import build
from smplora.data.pool import open_source, read_samples
from smplora.data.prepare import preparation
from smplora.data.split import MANIFEST, Split, make_split, read_split, write_split
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.models.proxy import at_size
from smplora.models.text import configured
from smplora.results.record import as_json
from smplora.runs.base_model import fetch_model, load_base
from smplora.runs.folder import RunFolder, check_place, check_settings
from smplora.training.batches import members_first
from smplora.training.differential_privacy import check_private
from smplora.training.distillation import check_teachers, teacher_runs
from smplora.training.distributed import average_gradients, gather, make_accelerator, mean
from smplora.training.memory import explaining
from smplora.training.monitor import Monitor, with_intervals
from smplora.training.optimizers import check_installed, limit_gradients, set_learning_rates
from smplora.training.setup import Setup, prepare, publish, restore
from smplora.training.theory.record import Theory
from smplora.training.trackers import PROJECT, chosen_trackers, init_options, tracker_options


def train(config: TrainConfig, *, progress: bool = True, refresh: Callable[[Path], None] | None = None) -> Path:
    """Adapt the base model to the members of the split; returns the run folder.

    Args:
        refresh: writes the run's page anew, with ``--run_page``; called now and then, and at the end.

    Raises:
        UserError: anything that the user can mend, before the first step where possible.
        OSError: the run folder cannot be written.
    """
    check_installed(config.optimizer)
    tracked = chosen_trackers(config.report_to)
    if CAPTION not in config.wording and not config.default_caption:  # no image needs a caption of its own
        config = replace(config, default_caption=config.wording)
    folder = RunFolder(Path(config.output_dir))
    check_place(folder.path)
    folder.check_resume(config.resume_from_checkpoint)
    device = choose_device(config.device)
    split = load_split(config, folder.path / MANIFEST)
    accelerator = make_accelerator(device, **tracker_options(tracked, folder.path))
    first = accelerator.is_main_process
    progress = progress and first
    say_whose_precision(config.mixed_precision, progress)
    folder.check_processes(accelerator.num_processes)
    with accelerator.main_process_first():
        fetch_model(config)
    model = load_base(config, device)
    config = resolved(config, model, split, accelerator.num_processes)
    # what follows says what is wrong before anything is written
    build(ADAPTATIONS, config.adaptation, "adaptation", config).check(model)
    preparation(config, config.resolution or model.resolution)
    configured(model.text, config.clip_skip, config.max_token_length)
    if config.objective == "dp_lora":
        check_private(config, len(split.train), accelerator.num_processes, progress)
    if config.objective == DISTILLED:
        check_teachers(config, split)
    check_settings(folder.path, config)
    with folder.locked() if first else nullcontext():  # from here on files are written
        if first:
            folder.open(config, model.digest)
            write_split(split, folder.path)
            folder.rewind(config.resume_from_checkpoint)
        accelerator.wait_for_everyone()
        if config.objective == DISTILLED and folder.done is None:
            del model  # a teacher has its own
            with accelerator.main_process_first():
                teachers = teacher_runs(config, split)
            for number, options in enumerate(teachers, 1):
                if progress:
                    say(f"teacher {number} of {len(teachers)}: {options.output_dir}")
                train(options, progress=progress)
            model = load_base(config, device)
        split = split.worded(config.wording)
        if folder.done is None:
            checkpoint = folder.latest()
            if tracked and first:
                accelerator.init_trackers(PROJECT, init_kwargs=init_options(tracked, folder.path))
            setup = prepare(config, model, split, accelerator, progress)
            cut = model.text.cut([s.caption for s in split.train])
            if cut and progress:
                say(f"{cut} of {len(split.train)} captions are longer than --max_token_length; their ends are cut off")
            if checkpoint:
                restore(setup, checkpoint, folder)
                if progress:
                    say(f"resuming {folder.path} at step {checkpoint.step}")
            start = checkpoint.step if checkpoint else 0
            with explaining(config, setup):
                monitor = Monitor(config, setup, split, folder, start, refresh)
                optimise(config, setup, folder, monitor, start, progress)
        elif progress:
            say(f"{folder.path} is complete")
    if config.json and first:
        print(json.dumps({"run": str(folder.path), **(as_json(folder.done) if folder.done else {})}))
    return folder.path


def load_split(config: TrainConfig, sealed: Path) -> Split:
    """The split that the run was started with, if it was; else that of ``--split_manifest``, or a new one.

    Raises:
        SplitError: images or captions changed since, or the manifest is another one.
    """
    samples = read_samples(open_source(config))
    given = read_split(Path(config.split_manifest), samples) if config.split_manifest else None
    if not sealed.exists():
        return given or make_split(samples, config)
    started = read_split(sealed, samples)
    if given and given.seal != started.seal:
        raise SplitError(
            f"--split_manifest '{config.split_manifest}' is not the split that '{sealed.parent}' was started with"
        )
    return started


def resolved(config: TrainConfig, model: LatentDiffusion, split: Split, processes: int = 1) -> TrainConfig:
    """``config`` with every default that depends on model or data filled in, as the run folder records it.

    Raises:
        ConfigError: a resolution that the VAE cannot halve down to whole latents.
    """
    if config.resolution and config.resolution % model.downsampling:
        below = max(1, config.resolution // model.downsampling) * model.downsampling
        raise ConfigError(
            f"--resolution got {config.resolution}; allowed: multiples of {model.downsampling} with this base model, "
            f"such as {below}"
        )
    batch = config.train_batch_size * config.gradient_accumulation_steps * processes
    steps = -(-config.num_train_epochs * len(split.train) // batch)
    sizes: dict[str, Any] = {}
    if not config.split_manifest:
        cells = {"reference_size": "reference"}
        if config.split_protocol == "fixed":
            cells |= {"aux_size": "aux_member", "test_size": "test_member", "test_nonmember_size": "test_nonmember"}
        given = {option: getattr(config, option) for option in cells}
        sizes = {option: split.sizes[cells[option]] if size is None else size for option, size in given.items()}
    config = replace(
        config,
        lora_alpha=config.lora_alpha or (float(config.rank) if config.adaptation == "lora" else None),
        learning_rate=config.rate,
        resolution=config.resolution or model.resolution,
        max_train_steps=config.max_train_steps or steps,
        **sizes,
    )
    return with_intervals(config, split)


def optimise(
    config: TrainConfig, setup: Setup, folder: RunFolder, monitor: Monitor, start: int, progress: bool
) -> None:
    """The loop. Per step: the proxy climbs the gain on a fresh draw of aux members and non-members, then the adapter
    descends its objective on a fresh batch of the training set."""
    model, game, accelerator = setup.model, setup.game, setup.accelerator
    scaler, optimizer = setup.scaler, setup.optimizer
    log, began, process = MeanLog(scaler.is_enabled()), time.perf_counter(), accelerator.process_index
    theory = Theory(config, setup, folder, progress)
    limits = replace(config, max_grad_norm=0.0) if setup.private else config  # private gradients are clipped already
    setup.adaptation.train(model, True)
    with bar(setup.steps, f"{objective_title(config)}", initial=start, show=progress) as display:
        for step in range(start, setup.steps):
            # 1. the proxy: one step (or more) up the gain; no gradient reaches the adapter
            for k in range(config.proxy_steps if game.uses_proxy else 0):
                turn = step * config.proxy_steps + k
                pair = setup.feed.proxy(turn)
                with torch.no_grad(), setup.autocast():
                    share = torch.cat([at_size(model.error_maps(*part), game.proxy.size) for part in pair.parts])
                error_maps = members_first(gather(accelerator, share), accelerator.num_processes)
                torch.manual_seed(stream_seed(config.seed, "dropout", turn))
                seen = game.ascend(error_maps, pair.timesteps, pair.is_member)
                log.add(mi_gain=seen.mi_gain, proxy_accuracy=seen.accuracy)

            # 2. the adapter: one step down its objective
            torch.manual_seed(stream_seed(config.seed, "adapter dropout", step, process))
            if setup.private:
                log.add(**setup.private.make(step, setup.autocast))
            batches = zip(setup.feed.adapter(step), setup.feed.class_images(step), strict=True)
            for (batch, draw), of_class in batches if not setup.private else ():
                with setup.autocast():
                    told = setup.teachers.answers(batch, draw) if setup.teachers else None
                    error_maps = model.error_maps(batch, draw, told)
                weights = model.loss_weights(draw.timesteps, config.snr_gamma)
                terms = game.terms(error_maps, draw.timesteps, weights)
                theory.see_loss(step, *terms)
                loss = game.objective(*terms).mean()
                if of_class:  # prior preservation: these images are nobody's, so the plain loss
                    with setup.autocast():
                        prior = adaptation_loss(model.error_maps(*of_class)).mean()
                    loss = loss + config.prior_loss_weight * prior
                scaler.scale(loss / config.gradient_accumulation_steps).backward()
                log.add(loss=loss, adaptation_loss=adaptation_loss(error_maps.detach()).mean())
            average_gradients(accelerator, setup.parameters)
            scaler.unscale_(optimizer)
            theory.see_gradients(step)
            grad_norm = limit_gradients(limits, setup.parameters)
            learning_rate = set_learning_rates(optimizer, setup.learning_rate_factor(step))
            scaler.step(optimizer)
            scaler.update_after(grad_norm)
            optimizer.zero_grad(set_to_none=True)
            if setup.ema:
                setup.ema.step(setup.parameters)
            log.add(grad_norm=grad_norm)
            display.update()

            # 3. the only places where the host waits for the device
            done = step + 1
            theory.after_step(done)
            seen_aside = monitor.after_step(done)
            saving = done % config.checkpointing_steps == 0 or done == setup.steps
            if saving or done % config.logging_steps == 0:
                row = log.row(done, learning_rate, time.perf_counter() - began, accelerator)
                theory.write()
                if scaler.is_enabled():
                    row["loss_scale"] = scaler.get_scale()
                if blew_up(row, setup, saving):
                    raise not_a_number(folder, done, config)
                accelerator.log({k: v for k, v in row.items() if v is not None}, step=done)
                display.set_postfix(postfix(row) | seen_aside, refresh=False)
                if accelerator.is_main_process:
                    folder.log(row)
            if saving and accelerator.is_main_process:
                write = partial(publish, config, setup, step=done, complete=False)
                folder.save(setup.checkpoint(done), write, config.checkpoints_total_limit)
    if accelerator.is_main_process:
        for missing in folder.publish(partial(publish, config, setup, step=setup.steps, complete=True)):
            say(missing)
        theory.finish()
        folder.finish(setup.steps, files_sha256(setup.adaptation.weights(folder.path)))
        monitor.finish()
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:  # end_training would also leave the process group: nobody could train twice
        tracker.finish()


class MeanLog:
    """Means of scalars since the last line, summed on the device; with ``only_finite`` of those that are finite."""

    NAMES = ("loss", "adaptation_loss", "mi_gain", "proxy_accuracy", "grad_norm")

    def __init__(self, only_finite: bool) -> None:
        self.only_finite = only_finite
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, **values: Tensor) -> None:
        """Remember a value of each name; no transfer to the host."""
        for name, value in values.items():
            zero = torch.zeros_like(value)
            total, count = self.sums.get(name, (zero, zero))
            counted = value.isfinite() | (not self.only_finite)
            self.sums[name] = total + torch.where(counted, value.detach(), zero), count + counted

    def row(self, step: int, learning_rate: float, elapsed_s: float, accelerator: Accelerator) -> dict[str, Any]:
        """One line of metrics.jsonl, over all processes; the sums start anew. What is not a finite number is None."""
        totals, counts = mean(accelerator, torch.stack([torch.stack(pair) for pair in self.sums.values()], 1))
        means = dict(zip(self.sums, (totals / counts).tolist(), strict=True))
        self.sums = {}
        finite = {
            name: means[name] if name in means and abs(means[name]) < float("inf") else None
            for name in dict.fromkeys((*self.NAMES, *means))
        }
        return {"step": step, **finite, "learning_rate": learning_rate, "elapsed_s": round(elapsed_s, 2)}


def say_whose_precision(own: str, progress: bool) -> None:
    """``accelerate config`` and ``accelerate launch`` ask for a precision too, which diffusers' scripts would take."""
    theirs = os.environ.get("ACCELERATE_MIXED_PRECISION", own)
    if theirs != own and progress:
        say(f"accelerate is set to {theirs}, which is not used: --mixed_precision is '{own}'")


def objective_title(config: TrainConfig) -> str:
    """ "smp_lora, lambda 0.05", "full, smp_lora, lambda 0.05"."""
    weight = f", lambda {config.mi_lambda:g}" if config.objective in WITH_PROXY else ""
    title = f"{config.objective}{weight}"
    if config.adaptation == "lora":
        return title
    return config.adaptation if config.objective == "lora" else f"{config.adaptation}, {title}"


def postfix(row: dict[str, Any]) -> dict[str, str]:
    """What the progress bar shows."""
    shown = {"loss": "adaptation_loss", "MI gain": "mi_gain", "proxy acc": "proxy_accuracy"}
    return {title: f"{row[name]:.3f}" for title, name in shown.items() if row[name] is not None}


def blew_up(row: dict[str, Any], setup: Setup, saving: bool) -> bool:
    """Whether to stop: a loss or gradient that is not finite. fp16 skips such steps, so there it takes steps skipped
    without end, or a checkpoint to be written after a line without any finite loss."""
    if setup.scaler.is_enabled():
        return setup.scaler.hopeless(setup.steps) or (saving and row["loss"] is None)
    return row["loss"] is None or row["grad_norm"] is None


def not_a_number(folder: RunFolder, step: int, config: TrainConfig) -> TrainingError:
    """The error of a run that blew up."""
    last = folder.steps()
    kept = f"checkpoint-{last[-1]} is the last good one" if last else "no checkpoint was written"
    return TrainingError(
        f"the loss is not a number by step {step}; {kept}. Lower --learning_rate or --mi_lambda"
        f"{', or take --mixed_precision bf16' * (config.mixed_precision == 'fp16')} in a new --output_dir"
    )
