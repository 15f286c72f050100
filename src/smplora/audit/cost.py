"""What an audit will do and how long it will take, before it starts: denoiser passes, counted by running every attack
on one image against a model that predicts nothing, times one timed pass of the real one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smplora.attacks.base import Access, Attack
from smplora.attacks.views import LOSSES, VIEWS, Memory, WhiteBox
from smplora.audit.signals import ATTACKED, Collector, Piece
from smplora.core.wording import duration
from smplora.models.adapted import Adapted
from smplora.models.sample_gradients import Gradients

BACKWARD = 2  # passes that a backward pass takes as long as
QUICK_S = 20.0  # a first pass below this may have been mostly warming up: time another


@dataclass(frozen=True)
class Step:
    """An attack, on the adapted or on the base model."""

    name: str
    passes: int  # of the denoiser per image; work shared with steps before is counted there
    images: int
    cached: int  # images whose signals are in the cache
    base: bool

    @property
    def left(self) -> int:
        """Passes to be made."""
        return self.passes * (self.images - self.cached)


@dataclass(frozen=True)
class CostPlan:
    """The steps that look at the model, in their order."""

    title: str
    steps: tuple[Step, ...]
    seconds_per_pass: float  # and image
    device: str
    more: tuple[str, ...] = ()  # further steps, one sentence each

    @property
    def left(self) -> int:
        """Passes to be made."""
        return sum(step.left for step in self.steps)

    def lines(self) -> list[str]:
        """For people: one short table."""
        width = max(len(_called(step)) for step in self.steps)
        return [
            f"plan of the audit of {self.title}, in this order:",
            *(
                f"  {_called(step):<{width}}  {step.images} images, {step.passes:>4} denoiser passes each"
                + (f", {step.cached} in the cache" if step.cached else "")
                for step in self.steps
            ),
            *(f"  {sentence}" for sentence in self.more),
            f"  in all {self.sentence}; fitting classifiers comes on top",
        ]

    @property
    def sentence(self) -> str:
        """In all."""
        milliseconds = 1000 * self.seconds_per_pass
        took = f"{milliseconds:,.{1 if milliseconds < 10 else 0}f} ms a pass on {self.device}"
        return f"{self.left:,} denoiser passes, about {duration(self.left * self.seconds_per_pass)} ({took})"

    def as_dict(self) -> dict[str, Any]:
        """What ``--plan --json`` prints."""
        return {
            "steps": [
                {"name": s.name, "base_model": s.base, "passes": s.passes, "images": s.images, "cached": s.cached}
                for s in self.steps
            ],
            "more": list(self.more),
            "passes": self.left,
            "seconds_per_pass": self.seconds_per_pass,
            "seconds": self.left * self.seconds_per_pass,
            "device": self.device,
        }


def _called(step: Step) -> str:
    return (
        f"base model: {step.name}" if step.base and step.name != "base_model" else step.name.replace("_model", " model")
    )


def estimate_cost(
    collector: Collector, base: Mapping[str, Attack], attacks: Mapping[str, Attack], more: Sequence[str] = ()
) -> CostPlan:
    """Count the passes, see what is in the cache, and time the model.

    Args:
        base: the attacks on the base model, which come first.
        attacks: those on the adapted one.
        more: sentences on what else will be done.
    """
    pieces = [piece for cell in ATTACKED for piece in collector.cell(cell)[0]]
    images = sum(len(piece.batch) for piece in pieces)
    steps: list[Step] = []
    # numbers of the base model that are known, and need not be asked for again
    small: Memory = {key: value[:1] for key, value in pieces[0].base_losses.items()}
    for on_base, named in ((True, base), (False, attacks)):
        memory: Memory = dict(small)
        for name, attack in named.items():
            cached = sum(len(p.batch) for p in pieces if collector.cached(name, attack, p, base=on_base))
            known = dict(memory)
            compared = getattr(attack, "compared", attack)  # of attacks with shadows, which may not be there yet
            passes = count_passes(collector, compared, pieces[0], known, base=on_base)
            if cached < images:  # what is in the cache is not computed for those that come after
                memory = known
            steps.append(Step(name, passes, images, cached, on_base))
        small = {key: value for key, value in memory.items() if key[0] == LOSSES}
    busy = any(step.left for step in steps)
    seconds = seconds_per_pass(collector, pieces[0]) if busy else 0.0
    return CostPlan(
        collector.loaded.subject.label, tuple(steps), seconds, collector.loaded.model.device.type, tuple(more)
    )


def seconds_per_pass(collector: Collector, piece: Piece) -> float:
    """Of one image in a batch as the audit makes them."""
    model, batch = collector.loaded.model, piece.batch
    timesteps = torch.full((len(batch),), model.num_train_timesteps // 4, device=model.device)

    def once() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            float(model.predict(batch.mean.to(model.device), timesteps, batch.conditioning).float().mean())  # waits
        return time.perf_counter() - began

    first = once()
    return (min(first, once()) if first < QUICK_S else first) / len(batch)


def count_passes(collector: Collector, attack: Attack, piece: Piece, memory: Memory, *, base: bool) -> int:
    """Denoiser passes of ``attack`` on one image that ``memory`` does not spare it; it is filled."""
    model: Any = CountingModel(collector.loaded.model)
    one = Piece(piece.batch[0:1], collector.first_pictures(piece), "")
    kind: Any = CountingWhiteBox if attack.info.access is Access.WHITE_BOX else VIEWS[attack.info.access]
    silent, size = Adapted(model, proxy=collector.loaded.adapted.proxy), collector.loaded.latent_size
    attack.signals(kind(silent, one.batch, collector.seed, one.pictures, memory, size, base))
    return int(model.passes)


class CountingModel:
    """A model whose denoiser gives back what it is asked about, and counts."""

    def __init__(self, model: Any) -> None:
        self._model, self.passes = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, noised: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """See diffusion.LatentDiffusion."""
        self.passes += len(noised)
        return noised

    def generate(
        self, captions: Sequence[str], seeds: Any, *, resolution: int, num_inference_steps: int, guidance_scale: float
    ) -> Tensor:
        """See diffusion.LatentDiffusion."""
        self.passes += num_inference_steps * (2 if guidance_scale != 1 else 1)
        return torch.full((len(captions), 3, resolution, resolution), 0.5)

    def decode(self, latents: Tensor) -> Tensor:
        """See diffusion.LatentDiffusion."""
        height, width = (n * self._model.downsampling for n in latents.shape[-2:])
        return torch.full((len(latents), 3, height, width), 0.5)

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See diffusion.LatentDiffusion."""
        size = [n // self._model.downsampling for n in pixels.shape[-2:]]
        latents = torch.zeros(len(pixels), self._model.latent_channels, *size)
        return latents, latents


class CountingWhiteBox(WhiteBox):
    """Counts what gradients would take."""

    def gradients(self, draws: Sequence[str], timesteps: Sequence[int], layers: str) -> Gradients:
        """See attacks.base.WhiteBoxView."""
        key = ("gradients", tuple(draws), tuple(timesteps), layers, self._base)
        if key not in self._memory:
            self._model.passes += len(draws) * (1 + BACKWARD)  # type: ignore[attr-defined]
            self._memory[key] = True
        one = torch.ones(1, len(draws), 1)
        return Gradients(one, torch.ones(1, 1), one, torch.ones(1, 1))
