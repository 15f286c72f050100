"""Exponential moving average of the adapter, by diffusers: after step n the average moves towards the weights by
1 - d(n), d(1) = 0, d(n) = min(decay, n / (n + 9))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn


@contextmanager
def averaged(ema: EMAModel | None, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, the adapter's weights are their average; without an ``ema`` they are what they are."""
    if ema is None:
        yield
        return
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def ema_tensors(ema: EMAModel) -> dict[str, Tensor]:
    """The averages, in the order of the parameters, and the number of steps, for a checkpoint."""
    averages = {str(i): average.cpu() for i, average in enumerate(ema.shadow_params)}
    return {"step": torch.tensor(ema.optimization_step), **averages}


def load_ema_tensors(ema: EMAModel, tensors: dict[str, Tensor]) -> None:
    """The inverse of ``ema_tensors``.

    Raises:
        KeyError, RuntimeError: tensors that are missing, or of another shape.
    """
    for i, average in enumerate(ema.shadow_params):
        average.copy_(tensors[str(i)])
    ema.optimization_step = int(tensors["step"])
