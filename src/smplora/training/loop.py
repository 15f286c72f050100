"""The training loop (paper, Algorithms 1 and 2), top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.train import TrainConfig
from smplora.core.console import bar, say
from smplora.core.errors import Lines, TrainingError
from smplora.core.random_streams import stream_seed
from smplora.core.stopping import wish_to_stop
from smplora.models.diffusion import adaptation_loss
from smplora.runs.folder import RunFolder
from smplora.runs.subject import Subject
from smplora.training.distributed import average_gradients
from smplora.training.metrics import MeanLog
from smplora.training.monitor import Monitor
from smplora.training.optimizers import limit_gradients, set_learning_rates
from smplora.training.proxy_turns import ProxyTurns
from smplora.training.setup import Setup, publish
from smplora.training.theory.record import Theory


def optimise(
    config: TrainConfig,
    setup: Setup,
    folder: RunFolder,
    monitor: Monitor,
    start: int,
    progress: bool,
    describe: Callable[[Subject], None] | None = None,
) -> None:
    """The loop. Per step: the proxy climbs the gain on a fresh draw of aux members and non-members (or on the adapter's
    own batch, see ``ProxyTurns``), then the adapter descends its objective on a fresh batch of the training set.

    Args:
        describe: called with what was trained before the run is marked as complete.
    """
    model, game, accelerator, keeper = setup.model, setup.game, setup.accelerator, setup.keeper
    scaler, optimizer = setup.scaler, setup.optimizer
    log, began, process = MeanLog(scaler.is_enabled()), time.perf_counter(), accelerator.process_index
    theory = Theory(config, setup, folder, progress)
    proxy = ProxyTurns(config, config.seed, model, game, setup.feed, accelerator, setup.autocast)
    limits = replace(config, max_grad_norm=0.0) if setup.private else config  # private gradients are clipped already
    setup.adaptation.train(model, True)
    title = objective_title(config.objective, config.adaptation, config.mi_lambda)
    alone = accelerator.num_processes == 1  # several processes would hear of an end at different steps
    with wish_to_stop(alone) as wish, bar(setup.steps, title, initial=start, show=progress) as display:
        for step in range(start, setup.steps if not (keeper and keeper.over) else start):
            # 1. the proxy: one step (or more) up the gain; no gradient reaches the adapter
            for gain in proxy.before(step):
                log.add(mi_gain=gain.mi_gain, proxy_accuracy=gain.accuracy)

            # 2. the adapter: one step down its objective
            torch.manual_seed(stream_seed(config.seed, "adapter dropout", step, process))
            if setup.private:
                log.add(**setup.private.make(step, setup.autocast))
            batches = zip(setup.feed.adapter(step), setup.feed.class_images(step), strict=True)
            for k, ((batch, draw), of_class) in enumerate(batches if not setup.private else ()):
                with setup.autocast():
                    target = setup.teachers.predictions(batch, draw) if setup.teachers else None
                    error_maps = model.error_maps(batch, draw, target)
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
                for gain in proxy.after(step, error_maps, draw.timesteps) if k == 0 else ():
                    log.add(mi_gain=gain.mi_gain, proxy_accuracy=gain.accuracy)
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
            seen_aside = monitor.after_step(done) | (keeper.after_step(done) if keeper else {})
            stopping = wish.number is not None  # read once: a signal may come at any time
            over = done == setup.steps or bool(keeper and keeper.over)
            saving = done % config.checkpointing_steps == 0 or over or stopping
            if saving or done % config.logging_steps == 0:
                row = log.row(done, learning_rate, time.perf_counter() - began, accelerator)
                theory.write()
                if scaler.is_enabled():
                    row["loss_scale"] = scaler.get_scale()
                if blew_up(row, setup, saving):
                    raise not_a_number(folder, done, config.mixed_precision)
                accelerator.log({k: v for k, v in row.items() if v is not None}, step=done)
                display.set_postfix(postfix(row) | seen_aside, refresh=False)
                if accelerator.is_main_process:
                    folder.log(row)
            if saving and accelerator.is_main_process:
                write = partial(publish, config, setup, step=done, complete=False)
                folder.save(setup.checkpoint(done), write, config.checkpoints_total_limit)
            if over:
                break
            if stopping:
                if progress:
                    say(Lines(f"\nstopped after step {done:,}, which is checkpoint-{done}"))
                wish.grant()
    last = keeper.finish() if keeper else setup.steps
    if keeper and progress:
        say(f"{keeper.title}: what is published is the adapter after step {last:,}")
    _finish(config, setup, folder, monitor, theory, describe, last)


def _finish(
    config: TrainConfig,
    setup: Setup,
    folder: RunFolder,
    monitor: Monitor,
    theory: Theory,
    describe: Callable[[Subject], None] | None,
    last: int,
) -> None:
    """Hand out what was trained after step ``last``, and mark the run as complete."""
    accelerator = setup.accelerator
    if accelerator.is_main_process:
        for missing in folder.publish(partial(publish, config, setup, step=last, complete=True)):
            say(missing)
        subject = Subject(folder.path, folder.path, config, last, last)
        if describe:
            describe(subject)
        theory.finish()
        folder.finish(last, subject.adapter_sha256)
        monitor.finish()
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:  # end_training would also leave the process group: nobody could train twice
        tracker.finish()


def objective_title(objective: str, adaptation: str, mi_lambda: float) -> str:
    """ "smp_lora, lambda 0.05", "full, smp_lora, lambda 0.05"."""
    title = f"{objective}, lambda {mi_lambda:g}" if objective in WITH_PROXY else objective
    if adaptation == "lora":
        return title
    return adaptation if objective == "lora" else f"{adaptation}, {title}"


def postfix(row: dict[str, Any]) -> dict[str, str]:
    """What the progress bar shows."""
    shown = {"loss": "adaptation_loss", "MI gain": "mi_gain", "proxy acc": "proxy_accuracy"}
    return {title: f"{row[name]:.3f}" for title, name in shown.items() if row[name] is not None}


def blew_up(row: dict[str, Any], setup: Setup, saving: bool) -> bool:
    """Whether to stop: a loss or gradient that is not finite. fp16 skips such steps, so there it takes steps skipped
    without end, or a checkpoint to be written after a line without any finite loss."""
    if setup.scaler.is_enabled():
        return setup.scaler.always_skips(setup.steps) or (saving and row["loss"] is None)
    return row["loss"] is None or row["grad_norm"] is None


def not_a_number(folder: RunFolder, step: int, mixed_precision: str) -> TrainingError:
    """The error of a run that blew up."""
    last = folder.steps()
    last_good = f"checkpoint-{last[-1]} is the last good one" if last else "no checkpoint was written"
    return TrainingError(
        f"the loss is not a number by step {step}; {last_good}. Lower --learning_rate or --mi_lambda"
        f"{', or take --mixed_precision bf16' * (mixed_precision == 'fp16')} in a new --output_dir"
    )
