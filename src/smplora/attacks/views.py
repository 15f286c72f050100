"""Views of a model for attackers. The view is the threat model: what it does not offer, the attack cannot use.

The views of one batch share one memory: attacks that ask alike share the work, without knowing each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from smplora.attacks.base import Access, Pictures
from smplora.core.errors import ConfigError
from smplora.core.random_streams import generator, stream_seed
from smplora.models import ddim
from smplora.models.adapted import Adapted
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import adaptation_loss
from smplora.models.proxy import log_odds
from smplora.models.sample_gradients import Gradients, sample_gradients
from smplora.models.text import TIME_IDS

Memory = dict[Any, Any]
LOSSES = "losses"  # how the keys of numbers begin that are worth keeping when the maps are forgotten
ENCODED_AT_ONCE = 8
GRADIENT_NUMBERS = 2**28  # held at once for the samples' gradients: 1 GiB


class BlackBox:
    """Images for captions, and variations of images (attacks.base.BlackBoxView)."""

    def __init__(
        self,
        adapted: Adapted,
        batch: Batch,
        seed: int,
        pictures: Pictures | None = None,
        memory: Memory | None = None,
        latent_size: tuple[int, int] | None = None,
        base: bool = False,
    ) -> None:
        """``pictures`` may be missing where no attack asks for captions or pixels; ``latent_size`` is given where the
        images have several shapes; with ``base`` the base model makes every prediction, as if nothing had been
        trained."""
        self.latent_size = latent_size
        self._base = base
        self._adapted, self._model, self._batch, self._seed = adapted, adapted.model, batch, seed
        self._memory: Memory = {} if memory is None else memory
        self._load_pixels = pictures.load_pixels if pictures else None
        self.captions = pictures.captions if pictures else ()
        self.other_captions = pictures.other_captions if pictures else ()
        self.digests = batch.digests

    @property
    def pixels(self) -> Tensor:
        """See attacks.base.BlackBoxView."""
        if self._load_pixels is None:
            raise TypeError("this view was made without pictures")
        return self._once("pixels", self._load_pixels)

    def generate(self, draw: str, *, num_inference_steps: int, guidance_scale: float) -> Tensor:
        """See attacks.base.BlackBoxView."""

        def compute() -> Tensor:
            with self._adapted.without(self._base):
                return self._model.generate(
                    self.captions,
                    [stream_seed(self._seed, digest, draw, "generate") for digest in self._batch.digests],
                    resolution=self._resolution,
                    num_inference_steps=num_inference_steps,
                    guidance_scale=guidance_scale,
                )

        return self._once(("generate", draw, num_inference_steps, guidance_scale, self._base), compute)

    def vary(self, draw: str, *, strength: float, steps: int) -> Tensor:
        """See attacks.base.BlackBoxView."""

        timestep = int(strength * (self._model.num_train_timesteps - 1))

        def compute() -> Tensor:
            abar = self._model.alphas_cumprod.cpu()
            clean = self._batch.mean.cpu()
            noised = abar[timestep].sqrt() * clean + (1 - abar[timestep]).sqrt() * self._noise(draw)
            levels = ddim.levels(timestep, 0, steps)
            return self._model.decode(ddim.walk(lambda z, t: self._predict(z, t), noised, levels, abar))

        return self._once(("vary", draw, strength, steps, self._base), compute)

    @property
    def _resolution(self) -> int:
        width = self.latent_size[1] if self.latent_size else self._batch.mean.shape[-1]
        return int(width * self._model.downsampling)

    def _once(self, key: Any, compute: Callable[[], Tensor]) -> Tensor:
        if key not in self._memory:
            self._memory[key] = compute()
        value: Tensor = self._memory[key]
        return value

    def _noise(self, draw: str) -> Tensor:
        name, shape = draw.removeprefix("-"), self._batch.mean.shape[1:]
        noise = self._once(
            ("noise", name),
            lambda: torch.stack(
                [torch.randn(shape, generator=generator(self._seed, d, name, "noise")) for d in self._batch.digests]
            ),
        )
        return -noise if draw.startswith("-") else noise

    def _predict(
        self, latents: Tensor, timestep: int, adapted: bool = True, captions: Sequence[str] | None = None
    ) -> Tensor:
        t, where = torch.full((len(self._batch),), timestep), self._model.device
        noised = latents * self._model.level_scale(t.to(where)).cpu()  # what the model takes for these
        prediction = self._predicted(noised, t, adapted, captions).to(where)
        return self._model.predicted_noise(prediction, noised.to(where), t.to(where)).cpu()

    @torch.no_grad()
    def _predicted(self, noised: Tensor, timesteps: Tensor, adapted: bool, captions: Sequence[str] | None) -> Tensor:
        """The denoiser's own prediction, [b, c, h, w] fp32 on the CPU. Known again by the content of the question."""
        content = b"".join(x.cpu().contiguous().numpy().tobytes() for x in (noised, timesteps))
        text = None if captions is None else tuple(captions)
        adapted = adapted and not self._base
        where = self._model.device

        def compute() -> Tensor:
            with self._adapted.without(not adapted):
                conditioning = self._batch.conditioning if text is None else self._conditioning(text)
                return self._model.predict(noised.to(where), timesteps.to(where), conditioning).float().cpu()

        return self._once(("prediction", blake2b(content, digest_size=16).digest(), adapted, text), compute)

    def _conditioning(self, captions: tuple[str, ...]) -> dict[str, Tensor]:
        conditioning = (
            self._model.encode_captions(captions, self._resolution)
            if any(captions)
            else self._model.unconditional(len(captions), self._resolution)
        )
        return {
            **conditioning,
            **{name: self._batch.conditioning[name] for name in (TIME_IDS,) if name in conditioning},
        }


class GreyBox(BlackBox):
    """Predictions of the adapted and the base model at named draws or any latents (attacks.base.GreyBoxView).

    Latents are the posterior's mode.
    """

    def __init__(self, adapted: Adapted, batch: Batch, *others: Any, **named: Any) -> None:
        super().__init__(adapted, batch, *others, **named)
        self.batch, self.num_train_timesteps = batch, adapted.model.num_train_timesteps
        self.alphas_cumprod = adapted.model.alphas_cumprod.cpu()

    def predict(
        self, latents: Tensor, timestep: int, *, adapted: bool = True, captions: Sequence[str] | None = None
    ) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return self._predict(latents, timestep, adapted, captions)

    def noise(self, draw: str) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return self._noise(draw)

    def error_maps(
        self,
        draw: str,
        timesteps: int | None,
        *,
        adapted: bool = True,
        captions: Sequence[str] | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return self.residuals(draw, timesteps, adapted=adapted, captions=captions, latents=latents).square()

    def residuals(
        self,
        draw: str,
        timesteps: int | None,
        *,
        adapted: bool = True,
        captions: Sequence[str] | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """What ``error_maps`` squares, prediction minus target: [b, c, h, w]."""
        t, where = self._timesteps(draw, timesteps), self._model.device
        clean = (self.batch.mean if latents is None else latents).to(where)
        drawn = Draw(t.to(where), self._noise(draw).to(where))
        prediction = self._predicted(self._model.add_noise(clean, drawn), t, adapted, captions)
        return prediction - self._model.target(clean, drawn).float().cpu()

    def noised(self, draw: str, timestep: int) -> Tensor:
        """See attacks.base.GreyBoxView."""
        where = self._model.device
        t = self._timesteps(draw, timestep).to(where)
        noised = self._model.add_noise(self.batch.mean.to(where), Draw(t, self._noise(draw).to(where)))
        return (noised / self._model.level_scale(t)).cpu()

    def losses(self, draw: str, timestep: int, *, adapted: bool = True) -> Tensor:
        """See attacks.base.GreyBoxView."""
        key = (LOSSES, draw, timestep, adapted and not self._base)
        return self._once(key, lambda: adaptation_loss(self.error_maps(draw, timestep, adapted=adapted)))

    def timesteps_of(self, draw: str) -> Tensor:
        """See attacks.base.GreyBoxView."""
        rngs = (generator(self._seed, digest, draw, "timestep") for digest in self.batch.digests)
        return torch.stack([torch.randint(self.num_train_timesteps, (), generator=rng) for rng in rngs])

    def _timesteps(self, draw: str, timesteps: int | None) -> Tensor:
        return self.timesteps_of(draw) if timesteps is None else torch.full((len(self.batch),), timesteps)

    def difference(self, one: Tensor, other: Tensor) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return one - other

    def encode(self, pixels: Tensor) -> Tensor:
        """See attacks.base.GreyBoxView."""
        content = pixels.contiguous().numpy().tobytes()
        return self._once(
            ("encode", blake2b(content, digest_size=16).digest()),
            lambda: torch.cat([self._model.encode_images(part)[0].cpu() for part in pixels.split(ENCODED_AT_ONCE)]),
        )

    def decode(self, latents: Tensor) -> Tensor:
        """See attacks.base.GreyBoxView."""
        return self._model.decode(latents)


class WhiteBox(GreyBox):
    """Adds exact per-sample gradients (attacks.base.WhiteBoxView)."""

    def gradients(self, draws: Sequence[str], timesteps: Sequence[int], layers: str) -> Gradients:
        """See attacks.base.WhiteBoxView.

        Raises:
            ConfigError: no layer was trained.
        """
        key = ("gradients", tuple(draws), tuple(timesteps), layers, self._base)
        if key not in self._memory:
            watched = self._adapted.layers
            if not watched.updates:
                raise ConfigError(f"--attacks got one that looks at gradients; {NO_LAYER}: leave it out")
            modules = watched.base if layers == "base" else watched.adapter
            updates = {modules[0]: None} if self._base else watched.updates  # an adapter that is off adds nothing
            weights = sum(module.weight.numel() for module in modules)  # type: ignore[operator, misc]
            rows = max(1, min(len(self.batch), GRADIENT_NUMBERS // weights))
            parts = []
            for start in range(0, len(self.batch), rows):
                part = slice(start, min(start + rows, len(self.batch)))
                losses = partial(self._losses, part, draws, timesteps)
                # of the weights no gradients are kept: those of the samples are gathered on the way
                with self._adapted.without_gradients(), self._adapted.without(self._base):
                    parts.append(sample_gradients(losses, part.stop - start, len(draws), modules, updates))
            self._memory[key] = Gradients(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Gradients)))
        gradients: Gradients = self._memory[key]
        return gradients

    def _losses(self, rows: slice, draws: Sequence[str], timesteps: Sequence[int], k: int) -> Tensor:
        batch, where = self.batch[rows], self._model.device
        t = torch.full((len(batch),), timesteps[k], device=where)
        return adaptation_loss(self._model.error_maps(batch, Draw(t, self._noise(draws[k])[rows].to(where))))


class Insider(WhiteBox):
    """Adds the proxy (attacks.base.InsiderView)."""

    def log_odds(self, draw: str, timesteps: int | None, *, adapted: bool = True) -> Tensor:
        """See attacks.base.InsiderView.

        Raises:
            ConfigError: there is no proxy.
        """
        if self._adapted.proxy is None:
            raise ConfigError(f"--attacks got one that asks the proxy; {NO_PROXY}: leave it out")
        maps, t = self.error_maps(draw, timesteps, adapted=adapted), self._timesteps(draw, timesteps)
        where = self._model.device
        return log_odds(self._adapted.proxy, maps.to(where), t.to(where)).double().cpu()


VIEWS = {
    Access.BLACK_BOX: BlackBox,
    Access.GREY_BOX: GreyBox,
    Access.WHITE_BOX: WhiteBox,
    Access.INSIDER: Insider,
}
NO_LAYER, NO_PROXY = "no layer was trained", "no proxy that was trained on aux alone is at hand"


def out_of_reach(adapted: Adapted) -> dict[Access, str]:
    """Which views have nothing to show, and why."""
    layers = adapted.adaptation is None or bool(adapted.layers.updates)
    return {
        **({} if layers else {Access.WHITE_BOX: NO_LAYER}),
        **({Access.INSIDER: NO_PROXY} if adapted.proxy is None else {}),
    }
