"""Means of a run's numbers between two lines of metrics.jsonl."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from smplora.training.distributed import mean


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
