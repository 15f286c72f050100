"""What happens beside the training loop: measurements, validation images, the run's page. None of it changes the run.

``Monitor.after_step`` is called after every step and mostly returns at once. Files: docs/formats.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.distill import DISTILLED
from smplora.config.game import proxy_images
from smplora.config.train import TrainConfig
from smplora.core.cache import open_cache
from smplora.core.files import write_atomically
from smplora.core.random_streams import stream_seed
from smplora.data.encode import encode
from smplora.data.pictures import strip
from smplora.data.pool import open_source
from smplora.data.prepare import preparation
from smplora.data.split import Split
from smplora.models.load import usual_guidance
from smplora.results.record import write
from smplora.results.run import Prompts
from smplora.runs.folder import MONITOR, RunFolder
from smplora.training.running_attack import TIMESTEPS, RunningAttack
from smplora.training.setup import Setup

VALIDATION, PROMPTS = "validation", "prompts.json"
SHOWN_CAPTIONS = 4
BACKWARD = 2  # a step's backward pass, in forward passes
DECODER = 5  # of the VAE, likewise; a guess that errs on the side of fewer images
PAGE_SHARE = 50  # the page is written again when this many times its own cost has passed


def with_intervals(config: TrainConfig, split: Split) -> TrainConfig:
    """``config`` with the intervals filled in, so that the measurements take about 3 % of the training's forward
    passes and the images about 2 %."""
    images = sum(min(config.monitor_images, split.sizes[c]) for c in ("aux_member", "aux_nonmember", "reference"))
    passes = 1 + BACKWARD + (config.objective == DISTILLED)
    per_step: float = config.train_batch_size * config.gradient_accumulation_steps * passes
    if config.objective in WITH_PROXY:
        per_step += proxy_images(config)
    guidance = config.validation_guidance_scale
    if guidance is None:
        guidance = usual_guidance(config.pretrained_model_name_or_path, config.revision)
    drawn = (len(config.validation_prompts) or SHOWN_CAPTIONS) * config.num_validation_images
    per_image = config.validation_inference_steps * (2 if guidance != 1 else 1) + DECODER
    available = (config.max_train_steps or 0) * per_step
    steps = config.max_train_steps or 0
    chosen = {
        "monitor_steps": interval(steps, int(0.03 * available / (images * TIMESTEPS)), most=50),
        "validation_steps": interval(steps, int(0.02 * available / (drawn * per_image)), most=20),
    }
    set_options = {name: getattr(config, name) for name in chosen if getattr(config, name) is not None}
    return replace(config, validation_guidance_scale=guidance, **{**chosen, **set_options})


def interval(steps: int, affordable: int, most: int) -> int:
    """Steps between ``affordable`` looks, but at most ``most``, in ``steps``: rounded up to 1, 2 or 5 times a power of
    ten; 0 (never) where not even one is affordable."""
    looks = min(affordable, most)
    if looks < 1:
        return 0
    exact = -(-steps // looks)
    power = int(10 ** (len(str(exact)) - 1))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= exact)


@dataclass(frozen=True)
class Validation:
    """What is drawn: captions, times images for each."""

    captions: tuple[str, ...]
    repeats: int

    @property
    def rows(self) -> list[tuple[int, int]]:
        """(number of the caption, number of the image) of every picture."""
        return [(c, k) for c in range(len(self.captions)) for k in range(self.repeats)]


class Monitor:
    """Looks at a run from the side. All processes look, since a sharded model runs on all of them or not at all; the
    main one alone writes."""

    def __init__(
        self,
        config: TrainConfig,
        setup: Setup,
        split: Split,
        folder: RunFolder,
        start: int,
        refresh: Callable[[Path], None] | None = None,
    ) -> None:
        self.config, self.setup, self.folder = config, setup, folder
        self.refresh = refresh if config.run_page else None  # writes the page
        self.writes = bool(setup.accelerator.is_main_process)
        self.page_written, self.page_cost = 0.0, 0.0
        self.postfix: dict[str, str] = {}
        self.running_attack: RunningAttack | None = None
        self.validation = Validation((), 0)
        self._conditioning: dict[str, Any] | None = None
        if config.monitor_steps:
            self.running_attack = make_running_attack(config, setup, split)
            base = self.running_attack.of_base_model().row()
            if self.writes and not folder.metrics(MONITOR):
                self._log(0, base)
        if config.validation_steps:
            captions = config.validation_prompts or held_out_captions(split)
            self.validation = Validation(tuple(captions), config.num_validation_images)
            self._open_gallery(start)
        self._page(force=True)

    def after_step(self, done: int) -> dict[str, str]:
        """Measure, draw and write what is due after ``done`` steps; returns the latest numbers for the progress bar."""
        last = done == self.setup.steps
        due = [
            steps and (last or done % steps == 0) for steps in (self.config.monitor_steps, self.config.validation_steps)
        ]
        measuring, drawing = due
        if measuring and self.running_attack is not None:
            with self.setup.as_published():
                result = self.running_attack.measure()
            self._log(done, result.row())
            self.postfix = {"held-out": f"{result.held_out_loss:.3f}"}
            if result.auc:
                self.postfix["AUC"] = f"{result.auc.value:.2f}"
        if drawing:
            with self.setup.as_published():
                self._draw(done)
        self._page(force=False)
        return self.postfix

    def finish(self) -> None:
        """Write the page as it stays."""
        self._page(force=True)

    def _log(self, step: int, row: dict[str, Any]) -> None:
        if self.writes:
            self.folder.log({"step": step, **row}, MONITOR)
        self.setup.accelerator.log(flat_numbers(row), step=step)

    def _page(self, force: bool) -> None:
        now = time.perf_counter()
        due = force or now - self.page_written > max(2.0, PAGE_SHARE * self.page_cost)
        if self.writes and self.refresh and due:
            self.refresh(self.folder.path)
            self.page_written = time.perf_counter()
            self.page_cost = self.page_written - now

    def _open_gallery(self, start: int) -> None:
        if not self.writes:
            return
        gallery = self.folder.path / VALIDATION
        gallery.mkdir(mode=0o700, exist_ok=True)
        for picture in gallery.glob("step-*.png"):
            if int(picture.stem.split("-")[1]) > start:
                picture.unlink()
        write(gallery / PROMPTS, Prompts(tuple(self.validation.captions), self.validation.repeats))

    def _draw(self, done: int) -> None:
        """One picture per caption and repetition, always from the same noise."""
        pictures = self._generate()
        if not self.writes:
            return
        for (caption, k), picture in zip(self.validation.rows, pictures, strict=True):
            path = self.folder.path / VALIDATION / f"step-{done}-{caption}-{k}.png"
            write_atomically(path, strip(picture[None]))
        if self.config.log_images:
            stacked = np.stack([p.permute(1, 2, 0).numpy() for p in pictures])
            for tracker in self.setup.accelerator.trackers:
                if hasattr(tracker, "log_images"):
                    extra = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                    tracker.log_images({"validation": stacked}, step=done, **extra)

    @torch.no_grad()
    def _generate(self) -> Tensor:
        """[captions * repeats, 3, H, W] in [0, 1] on the CPU, from the model as it is: nothing is loaded, and the
        captions are encoded once, unless their encoder is trained too."""
        model, config = self.setup.model, self.config
        resolution, scale = config.resolution or model.resolution, config.validation_guidance_scale or 1.0
        with self.setup.adapted.evaluating():
            if self._conditioning is None or model.text_is_trained:
                with self.setup.autocast():
                    self._conditioning = model.embedded(self.validation.captions, resolution)
                    self._empty = model.unconditional(1, resolution) if scale != 1 else None
            rows = self.validation.rows
            pictures = []
            for number, (caption, _) in enumerate(rows):
                seed = stream_seed(config.seed, "validation", number)
                with self.setup.autocast():
                    latents = model.sample(
                        {name: value[caption : caption + 1] for name, value in self._conditioning.items()},
                        self._empty,
                        [seed],
                        resolution=resolution,
                        num_inference_steps=config.validation_inference_steps,
                        guidance_scale=scale,
                    )
                pictures.append(model.decode(latents))
        return torch.cat(pictures)


def make_running_attack(config: TrainConfig, setup: Setup, split: Split) -> RunningAttack:
    """On the first images of the aux cells and of the reference set, whose order is random."""
    count = config.monitor_images
    reference = split.cells["reference"][:count]
    prepared = preparation(config, config.resolution or setup.model.resolution).plain()
    source, cache = open_source(config), open_cache(config.cache_dir, config.cache_latents_to_disk)
    return RunningAttack(
        setup.adapted,
        setup.feed.aux_member[:count],
        setup.feed.aux_nonmember[:count],
        encode(setup.model, source, reference, prepared, cache) if reference else None,
        seed=stream_seed(config.seed, "monitor"),
        batch_size=2 * config.train_batch_size,
        proxy=setup.game.proxy if setup.game.uses_proxy else None,
        autocast=setup.autocast,
    )


def held_out_captions(split: Split) -> Sequence[str]:
    """A few distinct captions of images that are not trained on, where there are such."""
    held_out = split.cells["reference"] or split.cells["aux_nonmember"] or split.cells["aux_member"]  # of a final: none
    return list(dict.fromkeys(s.caption for s in held_out))[:SHOWN_CAPTIONS]


def flat_numbers(row: dict[str, Any]) -> dict[str, float]:
    """For trackers: ``{"auc": {"value": 0.6, "low": 0.5}}`` as ``{"auc": 0.6, "auc_low": 0.5}``; nulls left out."""
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {name if end == "value" else f"{name}_{end}": number for end, number in value.items()}
        elif value is not None:
            flat[name] = value
    return flat
