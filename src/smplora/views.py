"""Views of a model for attackers. The view is the threat model: what it does not offer, the attack cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from smplora.contracts import Batch, Draw
from smplora.diffusion import LatentDiffusion
from smplora.streams import generator


class GreyBox:
    """Predictions of the adapted and the base model on one batch, at named draws (contracts.GreyBoxView).

    Latents are the posterior's mode. Answers are remembered: attacks that ask alike share the work.
    """

    def __init__(self, model: LatentDiffusion, batch: Batch, seed: int) -> None:
        self._model, self._seed = model, seed
        self.batch, self.num_train_timesteps = batch, model.num_train_timesteps
        self._answers: dict[tuple[str, int | None, bool], Tensor] = {}

    @torch.no_grad()
    def error_maps(self, draw: str, timesteps: int | None, *, adapted: bool = True) -> Tensor:
        """See contracts.GreyBoxView."""
        key = (draw, timesteps, adapted)
        if key not in self._answers:
            t = self.timesteps_of(draw) if timesteps is None else torch.full((len(self.batch),), timesteps)
            where = self._model.device
            with base_model(self._model, when=not adapted):
                self._answers[key] = self._model.error_maps(
                    self.batch, Draw(t.to(where), self._noise(draw).to(where))
                ).cpu()
        return self._answers[key]

    def timesteps_of(self, draw: str) -> Tensor:
        """See contracts.GreyBoxView."""
        rngs = (generator(self._seed, digest, draw, "timestep") for digest in self.batch.digests)
        return torch.stack([torch.randint(self.num_train_timesteps, (), generator=rng) for rng in rngs])

    def _noise(self, draw: str) -> Tensor:
        """Normal noise [b, c, h, w] on the CPU; of "-name" the negative of "name"."""
        name, shape = draw.removeprefix("-"), self.batch.mean.shape[1:]
        noise = torch.stack(
            [torch.randn(shape, generator=generator(self._seed, d, name, "noise")) for d in self.batch.digests]
        )
        return -noise if draw.startswith("-") else noise


@contextmanager
def base_model(model: LatentDiffusion, when: bool = True) -> Iterator[None]:
    """Inside, the adapter is switched off."""
    if not when:
        yield
        return
    for name in model.adapted:
        model.component(name).disable_adapters()
    try:
        yield
    finally:
        for name in model.adapted:
            model.component(name).enable_adapters()
