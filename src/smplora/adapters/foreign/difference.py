"""Whole changes of weights and biases, as files of other programs hold them (LoHa, LoKr, differences of weights)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from smplora.adapters.files.products import Difference
from smplora.models.adapted import GradientLayers, exchanged

if TYPE_CHECKING:
    from smplora.models.diffusion import LatentDiffusion


@dataclass
class DifferenceAdaptation:
    """W + dW, b + db: ``differences`` by the names of parameters, "unet.conv_in.weight", with as many numbers."""

    freezes_base: ClassVar[bool] = False
    differences: Mapping[str, Difference]
    changed: dict[str, nn.Parameter] = field(default_factory=dict, init=False, repr=False)
    untouched: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)  # the base model's
    touched: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False)  # linear layers, convolutions

    def components(self, model: LatentDiffusion) -> list[str]:
        """Those that something is added to."""
        return [c for c in model.component_names if any(n.startswith(f"{c}.") for n in self.differences)]

    @torch.no_grad()
    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Change the weights, and keep the base model's. What else is attached comes later: peft renames parameters.

        Raises:
            KeyError, RuntimeError: names or sizes that are not the model's.
        """
        names = self.components(model)
        model.text_is_trained = names != [model.denoiser_name]
        for component in names:
            part = model.component(component).requires_grad_(False)
            parameters = {f"{component}.{name}": p for name, p in part.named_parameters()}
            self.changed |= {n: parameters[n] for n in self.differences if n.startswith(f"{component}.")}
            layers = {f"{component}.{n}.weight": m for n, m in part.named_modules() if _is_layer(m)}
            self.touched |= {name: layer for name, layer in layers.items() if name in self.differences}
        for name, p in self.changed.items():
            self.untouched[name] = p.detach()
            p.data = p + self.differences[name].tensor().to(p).reshape(p.shape)
        return {c: [p for name, p in self.changed.items() if name.startswith(f"{c}.")] for c in names}

    def base(self, model: LatentDiffusion) -> AbstractContextManager[None]:
        """The base model's weights take their places."""
        return exchanged(self.changed, self.untouched)

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Nothing differs."""

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The changed weights, W + dW."""
        return {name: p.detach().cpu().contiguous() for name, p in self.changed.items()}

    @torch.no_grad()
    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Put them back.

        Raises:
            KeyError: names that this model does not have, or lacks.
        """
        if self.changed.keys() != state.keys():
            raise KeyError(f"weights that do not match: {sorted(self.changed.keys() ^ state.keys())[:3]}")
        for name, p in self.changed.items():
            p.copy_(state[name])

    def layers(self, model: LatentDiffusion) -> GradientLayers:
        """The linear layers and convolutions whose weights are changed, each with its dW."""
        every = list(self.touched.values())
        return GradientLayers(
            every, every, {layer: partial(self._update, name) for name, layer in self.touched.items()}
        )

    def _update(self, name: str) -> Tensor:
        update: Tensor = (self.changed[name] - self.untouched[name].to(self.changed[name].device)).detach()
        return update


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv2d))
