"""The best adapter so far, by a loss on images that are not trained on: what keepers keep, and what is published."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from smplora.training.distributed import average
from smplora.training.ema import averaged
from smplora.training.setup import Setup

PREFIX = "best."  # of its tensors in a keeper's state


@dataclass
class BestAdapter:
    """As it would be published, but without weight noise, which is added when it is."""

    step: int = 0
    loss: float = math.inf
    state: dict[str, Tensor] = field(default_factory=dict)  # on the CPU

    def take(self, setup: Setup, step: int, loss: float) -> None:
        """The adapter as it is now, averaged where it has an average."""
        self.step, self.loss = step, loss
        with averaged(setup.ema, setup.parameters):
            state = setup.adaptation.state_dict(setup.model)
            self.state = {name: tensor.detach().clone().cpu() for name, tensor in state.items()}

    def put_back(self, setup: Setup) -> int:
        """Make it the adapter; returns its step."""
        setup.ema = None  # it is an average already
        setup.adaptation.load_state_dict(setup.model, self.state)
        return self.step

    def tensors(self) -> dict[str, Tensor]:
        """Its state, for a checkpoint; step and loss are the keeper's to write."""
        return {f"{PREFIX}{name}": tensor for name, tensor in self.state.items()}

    @classmethod
    def of(cls, step: float, loss: float, tensors: dict[str, Tensor]) -> BestAdapter:
        """From numbers and tensors of a checkpoint."""
        state = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        return cls(int(step), loss, state)


def over_processes(setup: Setup, *measured: Tensor) -> tuple[Tensor, ...]:
    """What was measured, the same on every process: all must come to the same end."""
    if setup.accelerator.num_processes == 1:
        return measured
    on_device = [x.float().to(setup.model.device) for x in measured]
    average(setup.accelerator, on_device)
    return tuple(x.double().cpu() for x in on_device)
