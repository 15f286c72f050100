"""The proxy attack model h, the membership-inference gain and its ascent step (paper, Eq. 5, Algorithms 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANCE_GAIN = -math.log(2)  # the gain of a proxy that knows nothing
WEIGHT_DECAY = 1e-4  # of Adam on the proxy, as in the paper's released code


def at_size(error_maps: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Error maps of other shapes, averaged over even patches: [b, c, h, w] -> [b, c, *size]; those of this size, and
    all where it is None, stay as they are."""
    if size is None or tuple(error_maps.shape[2:]) == size:
        return error_maps
    return F.adaptive_avg_pool2d(error_maps, size)


class ProxyAttackModel(nn.Module):
    """MLP input -> 512 -> 256 -> 2 with ReLU and dropout 0.5 that tells members from non-members by their errors.

    ``inputs`` is "error_map" (the flattened element-wise squared errors, what the paper's released code does) or
    "loss" (their mean, what the paper's text says). With ``sees_timestep`` t/T joins the input. Error maps of another
    ``size`` (images of several aspect ratios) are averaged down to it.
    """

    def __init__(
        self,
        elements: int,
        *,
        inputs: str = "error_map",
        sees_timestep: bool = False,
        num_train_timesteps: int = 1000,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.inputs, self.sees_timestep, self.num_train_timesteps = inputs, sees_timestep, num_train_timesteps
        width = (elements if inputs == "error_map" else 1) + sees_timestep
        self.layers = nn.Sequential(
            nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(256, 2),
        )  # fmt: skip

    def forward(self, error_maps: Tensor, timesteps: Tensor) -> Tensor:
        """log(1 - h), log h of each sample: [b, c, h, w], [b] -> [b, 2]."""
        if self.inputs == "loss":
            features = error_maps.flatten(1).mean(1, keepdim=True)
        else:
            features = at_size(error_maps, self.size).flatten(1)
        if self.sees_timestep:
            features = torch.cat([features, (timesteps / self.num_train_timesteps)[:, None].to(features)], 1)
        return F.log_softmax(self.layers(features), dim=1)


@dataclass(frozen=True)
class GainStep:
    """What one ascent step saw, on the device."""

    mi_gain: Tensor  # scalar, Eq. 5
    accuracy: Tensor  # scalar in [0, 1], member when h > 1/2


def mi_gain(log_h: Tensor, is_member: Tensor) -> Tensor:
    """G = 1/2 mean over members of log h + 1/2 mean over non-members of log(1 - h) (Eq. 5), a scalar <= 0.

    Args:
        log_h: [b, 2], the proxy's output.
        is_member: [b] bool, both kinds present.
    """
    inside, outside = is_member.to(log_h), (~is_member).to(log_h)  # weights: a mask would make the host wait
    return ((log_h[:, 1] * inside).sum() / inside.sum() + (log_h[:, 0] * outside).sum() / outside.sum()) / 2


def ascend(
    proxy: nn.Module, optimizer: torch.optim.Optimizer, error_maps: Tensor, timesteps: Tensor, is_member: Tensor
) -> GainStep:
    """One step of w up the gain. ``error_maps`` [b, c, h, w] are detached here: the adapter gets no gradient."""
    proxy.train()
    log_h = proxy(error_maps.detach(), timesteps)
    gain = mi_gain(log_h, is_member)
    (-gain).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # at once: they would be alive when the adapter's step takes most memory
    return GainStep(gain.detach(), ((log_h[:, 1] > log_h[:, 0]) == is_member).float().mean())


@contextmanager
def frozen(proxy: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through the proxy to its input and stop short of its weights; dropout is off."""
    was_training = proxy.training
    proxy.eval().requires_grad_(False)
    try:
        yield
    finally:
        proxy.train(was_training).requires_grad_(True)


@torch.no_grad()
def log_odds(proxy: nn.Module, error_maps: Tensor, timesteps: Tensor) -> Tensor:
    """log h - log(1 - h) of each sample, dropout off: [b, c, h, w], [b] -> [b]."""
    with frozen(proxy):
        log_h: Tensor = proxy(error_maps, timesteps)
    return log_h[:, 1] - log_h[:, 0]


def log_membership(proxy: nn.Module, error_maps: Tensor, timesteps: Tensor) -> Tensor:
    """log h of each sample, differentiable with respect to ``error_maps`` only: [b, c, h, w], [b] -> [b]."""
    with frozen(proxy):
        log_h: Tensor = proxy(error_maps, timesteps)
    return log_h[:, 1]
