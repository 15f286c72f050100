"""Another kind of model behind the same contract: flow matching, as docs/decisions/007 describes it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from smplora.adapters.lora import LoRAAdaptation
from smplora.models.batch import Batch, Draw
from smplora.models.diffusion import LatentDiffusion, adaptation_loss
from smplora.models.load import load_model
from smplora.objectives.smp_lora import SMPLoRA


class Flow(LatentDiffusion):
    """z_t = (1 - sigma) z0 + sigma eps, the target is the velocity eps - z0."""

    def sigma(self, timesteps: Tensor) -> Tensor:
        return ((timesteps.double() + 1) / self.num_train_timesteps).view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, draw: Draw) -> Tensor:
        sigma = self.sigma(draw.timesteps).to(latents)
        return (1 - sigma) * latents + sigma * draw.noise

    def target(self, latents: Tensor, draw: Draw) -> Tensor:
        return draw.noise - latents

    def predicted_noise(self, prediction: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        return noised + (1 - self.sigma(timesteps)) * prediction

    def loss_weights(self, timesteps: Tensor, gamma: float | None) -> float:
        return 1.0


def test_a_flow_model_trains_behind_the_same_contract() -> None:
    tiny = load_model("tiny", torch.device("cpu"))
    model = Flow(**{f.name: getattr(tiny, f.name) for f in fields(LatentDiffusion)})
    parameters = LoRAAdaptation().attach(model)["unet"]
    generator = torch.Generator().manual_seed(0)
    mean, noise = torch.randn((2, 2, 4, 8, 8), generator=generator)
    batch = Batch(mean, mean, model.encode_captions(["a", "b"], 32), ("a", "b"))
    draw = Draw(torch.tensor([10, 900]), noise)
    optimizer: Any = torch.optim.AdamW(parameters, lr=1e-2)
    losses = []
    for _ in range(8):
        maps = model.error_maps(batch, draw)
        loss = SMPLoRA()(adaptation_loss(maps), torch.full((2,), -0.7)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_velocity_gives_the_noise_back() -> None:
    """The note's formulas, and its variance-preserving twin with the same noise."""
    tiny = load_model("tiny", torch.device("cpu"))
    model = Flow(**{f.name: getattr(tiny, f.name) for f in fields(LatentDiffusion)})
    z0, noise = torch.randn((2, 3, 1, 4, 4), generator=torch.Generator().manual_seed(0)).double()
    draw = Draw(torch.tensor([0, 500, 998]), noise)
    noised = model.add_noise(z0, draw)
    torch.testing.assert_close(model.predicted_noise(model.target(z0, draw), noised, draw.timesteps), noise)
    sigma = model.sigma(draw.timesteps)
    c = ((1 - sigma) ** 2 + sigma**2).sqrt()
    abar = ((1 - sigma) / c) ** 2
    torch.testing.assert_close(noised / c, abar.sqrt() * z0 + (1 - abar).sqrt() * noise)
