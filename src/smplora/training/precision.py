"""Mixed precision: the frozen base model computes in 16 bits; adapter, optimizer state, proxy and losses stay fp32.

fp16 gradients below 6e-8 are zero and above 65504 infinite, so the loss is scaled before the backward pass, and a step
whose gradient is not finite is skipped, with half the scale from then on (Micikevicius et al. 2018, section 3.2).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from smplora.config.catalogue.adaptations import TRAINS_WEIGHTS
from smplora.core.console import say
from smplora.runs.base_model import DTYPES

PATIENCE = 30  # skipped steps in a row that take the scale from 2^16 to 2^-14: there is nothing left to scale away


def frozen_type(mixed_precision: str, adaptation: str) -> torch.dtype:
    """What the base model's numbers may be kept in from the start: of fewer bits where nothing changes them."""
    return DTYPES["no" if adaptation in TRAINS_WEIGHTS else mixed_precision]


def fastest(device: torch.device) -> Literal["no", "bf16"]:
    """What ``--mixed_precision auto`` means: bf16 on GPUs that multiply in it. On processors that do, a step
    takes longer in it (benchmarks/precision.py)."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "no"


def compile_denoiser(denoiser: nn.Module, device: torch.device, *, backend: Any = "inductor") -> None:
    """torch.compile in place, names unchanged; a part that cannot be compiled runs as it is. torch keeps what it
    compiled in a cache of its own, so that a resumed run starts faster. On a CPU it gained 1 % and is left out."""
    if device.type == "cpu" and backend == "inductor":
        say("--compile: nothing is compiled on a CPU, where it would gain nothing")
        return
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    denoiser.compile(backend=backend)


class LossScaler(torch.amp.GradScaler):
    """torch's, which also counts the steps skipped in a row, on the device. Does nothing unless ``enabled``.

    In order: ``scale(loss).backward()``, ``unscale_(optimizer)``, clip, ``step(optimizer)``, ``update_after(norm)``.
    """

    def __init__(self, device: torch.device, *, enabled: bool, initial: float = 2.0**16) -> None:
        super().__init__(device.type, init_scale=initial, enabled=enabled)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)

    def update_after(self, gradient_norm: Tensor) -> None:
        """Adapt the scale to a step with this gradient norm (a scalar; not finite: the step was skipped)."""
        if self.is_enabled():
            self.skipped = (self.skipped + 1) * ~gradient_norm.detach().isfinite()
            self.update()

    def always_skips(self, steps: int) -> bool:
        """Whether the last 30 steps, or all of a run of fewer ``steps``, were skipped. The host waits."""
        return self.is_enabled() and int(self.skipped) >= min(PATIENCE, steps)

    def tensors(self) -> dict[str, Tensor]:
        """Scale, steps since it changed, and steps skipped in a row, for a checkpoint."""
        state = self.state_dict()
        return {
            "scale": torch.tensor(state["scale"], dtype=torch.float64),
            "growth_tracker": torch.tensor(state["_growth_tracker"]),
            "skipped": self.skipped.cpu(),
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        state = {"scale": tensors["scale"].item(), "_growth_tracker": int(tensors["growth_tracker"])}
        self.load_state_dict(self.state_dict() | state)
        self.skipped = tensors["skipped"].to(self.skipped.device)
