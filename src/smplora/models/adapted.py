"""A base model with what is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from smplora.models.diffusion import LatentDiffusion


@dataclass(frozen=True)
class GradientLayers:
    """The layers (linear or convolutional) whose weights' gradients attacks may see; none where none was trained."""

    adapter: Sequence[nn.Module]  # of what was trained
    base: Sequence[nn.Module]  # the base model's under it
    updates: dict[nn.Module, Callable[[], Tensor] | None]  # layer -> dW [O, I ...]; None: its output is what dW adds


class Adaptation(Protocol):
    """What is trained in a base model. How it is handed out: ``adapters/base.py``."""

    @property
    def freezes_base(self) -> bool:
        """The base model's weights stay as they are, so that 16 bits will do for them."""
        ...

    def components(self, model: LatentDiffusion) -> list[str]:
        """The components that carry what is trained: "unet" or "transformer", "text_encoder" .."""
        ...

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Freeze ``model``, add what is trained, tell it where text encoders are (``text_is_trained``); returns what is
        trained by component (fp32). The model still computes what it did."""
        ...

    def base(self, model: LatentDiffusion) -> AbstractContextManager[None]:
        """Inside, ``model`` is the base model, bit for bit."""
        ...

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Switch on or off whatever the adaptation does in training only, such as dropout."""
        ...

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The trained tensors; names begin with the component's, as "unet." or "text_encoder."."""
        ...

    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Restore them exactly.

        Raises:
            KeyError, RuntimeError: tensors that this model does not have, or lacks, or of other shapes.
        """
        ...

    def layers(self, model: LatentDiffusion) -> GradientLayers:
        """What white-box attacks look at."""
        ...


@contextmanager
def exchanged(parameters: Mapping[str, nn.Parameter], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, each parameter has the values of its namesake in ``others``; afterwards its own again, bit for bit.
    Nothing is copied where both are on one device."""
    own = {name: p.data for name, p in parameters.items()}
    for name, p in parameters.items():
        p.data = others[name].to(p.device)
    try:
        yield
    finally:
        for name, p in parameters.items():
            p.data = own[name]


@dataclass(frozen=True)
class Adapted:
    """A base model, what was trained on it (None: nothing) and the proxy that it was trained against, where there is
    one and an audit may ask it."""

    model: LatentDiffusion
    adaptation: Adaptation | None = None
    proxy: nn.Module | None = None
    _off: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)  # inside of ``without``

    @property
    def names(self) -> list[str]:
        """Of the parts of the model that carry what was trained."""
        return self.adaptation.components(self.model) if self.adaptation else []

    @property
    def components(self) -> list[nn.Module]:
        """The parts of the model that carry what was trained."""
        return [self.model.component(name) for name in self.names]

    @property
    def layers(self) -> GradientLayers:
        """What white-box attacks look at."""
        return self.adaptation.layers(self.model) if self.adaptation else GradientLayers([], [], {})

    def checkpoint_activations(self, active: bool) -> None:
        """Compute the activations of the denoiser, and of trained text encoders, again in the backward pass, or keep
        them."""
        self.model.checkpoint_activations(active, [name for name in self.names if name in self.model.text.encoders])

    @contextmanager
    def without(self, when: bool = True) -> Iterator[None]:
        """Inside, the model is the base model, bit for bit. One within another costs nothing: the outer one
        switched."""
        if not when or self.adaptation is None or self._off:
            yield
            return
        with self.adaptation.base(self.model):
            self._off.append(True)
            try:
                yield
            finally:
                self._off.pop()

    @contextmanager
    def without_gradients(self) -> Iterator[None]:
        """Inside, a backward pass leaves no gradient with the weights."""
        trained = [p for part in self.components for p in part.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, dropout is off; afterwards every module is in the mode that it was in."""
        modes = [(module, module.training) for part in self.components for module in part.modules()]
        for part in self.components:
            part.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
