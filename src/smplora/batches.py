"""Which samples, noise and timesteps a training step sees: functions of (seed, name, step)."""

from __future__ import annotations

import torch

from smplora.core.random_streams import generator
from smplora.models.batch import Batch, Draw


def join(first: Batch, second: Batch) -> Batch:
    """The rows of both."""
    return Batch(
        mean=torch.cat([first.mean, second.mean]),
        std=torch.cat([first.std, second.std]),
        conditioning={
            name: torch.cat([value, second.conditioning[name]]) for name, value in first.conditioning.items()
        },
        digests=first.digests + second.digests,
    )


def training_draw(
    batch: Batch, num_train_timesteps: int, seed: int, name: str, step: int, noise_offset: float = 0.0
) -> Draw:
    """Uniform timesteps, normal noise and a posterior sample for every row, a function of (seed, name, step).

    With an offset o the noise is eps + o u, u [b, c, 1, 1] standard normal: one shift per channel (diffusers'
    ``--noise_offset``; Guttenberg 2023).
    """
    rng, shape, device = generator(seed, name, step), batch.mean.shape, batch.mean.device
    timesteps = torch.randint(num_train_timesteps, (len(batch),), generator=rng)
    noise, posterior = torch.randn((2, *shape), generator=rng)
    if noise_offset:
        noise = noise + noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator(seed, name, "offset", step))
    return Draw(*(x.to(device, non_blocking=True) for x in (timesteps, noise, posterior)))
