"""Low-rank adapters on linear layers, W + (alpha / r) B A (Hu et al. 2021), through peft."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from smplora.adapters.files.read import read_adapter
from smplora.adapters.files.write import (
    ADAPTER_FILE,
    KOHYA_FILE,
    AdapterFacts,
    LoraSettings,
    adapter_bytes,
    kohya_bytes,
    needs_kohya,
)
from smplora.core.files import write_atomically
from smplora.models.adapted import GradientLayers
from smplora.models.sample_gradients import adapted_layers

if TYPE_CHECKING:
    from smplora.models.diffusion import LatentDiffusion

TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_TARGETS = {"attention": TEXT_ATTENTION, "all": (*TEXT_ATTENTION, "fc1", "fc2")}


@dataclass(frozen=True)
class LoRAAdaptation:
    """``lora_targets`` is "attention" (diffusers' choice) or "all" (attention, feed-forward, projections; kohya's).

    ``use_rslora`` scales by alpha / sqrt(r) (Kalajdzievski 2023); ``use_dora`` also learns the norm of each row of the
    weight (Liu et al. 2024); ``lora_dropout`` is that of the adapter's input, in training only.
    """

    freezes_base: ClassVar[bool] = True
    noun: ClassVar[str] = "adapter"
    tags: ClassVar[tuple[str, ...]] = ("lora",)
    rank: int = 4
    lora_alpha: float | None = None
    lora_targets: str = "attention"
    train_text_encoder: bool = False
    lora_dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def alpha(self) -> float:
        """``lora_alpha``, or the rank: a scale of 1."""
        return self.lora_alpha or self.rank

    def target_modules(self, model: LatentDiffusion, component: str) -> tuple[str, ...]:
        """Endings of the names of a component's adapted layers."""
        return (model.lora_targets if component == model.denoiser_name else TEXT_TARGETS)[self.lora_targets]

    def components(self, model: LatentDiffusion) -> list[str]:
        """What is adapted."""
        return [model.denoiser_name, *(model.text.encoders if self.train_text_encoder else ())]

    def peft_config(self, model: LatentDiffusion, component: str) -> LoraConfig:
        """How peft is to adapt it."""
        options: dict[str, Any] = {"lora_dropout": self.lora_dropout, "init_lora_weights": "gaussian"}
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(self.target_modules(model, component)),
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            **options,
        )

    def check(self, model: LatentDiffusion) -> None:
        """Fits every model."""

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Add adapters in fp32: A normal with deviation 1/r, B zero (drawn from torch's global generator)."""
        trained = {}
        names = self.components(model)
        model.text_is_trained = names != [model.denoiser_name]
        for name in names:
            component = model.component(name).requires_grad_(False)
            component.add_adapter(self.peft_config(model, name))
            component.eval()  # the adapter's dropout too, until ``train``
            trained[name] = [p for p in component.parameters() if p.requires_grad]
            # peft gives them the base model's dtype, and bf16 weights would hardly move (decision 004)
            for parameter in trained[name]:
                parameter.data = parameter.data.float()
        return trained

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Switch the adapter's dropout on or off. The models' own layers stay in evaluation mode."""
        for name in self.components(model) if self.lora_dropout else ():
            for path, module in model.component(name).named_modules():
                if ".lora_dropout." in path:
                    module.train(active)

    @contextmanager
    def base(self, model: LatentDiffusion) -> Iterator[None]:
        """Adapters switched off."""
        for name in self.components(model):
            model.component(name).disable_adapters()
        try:
            yield
        finally:
            for name in self.components(model):
                model.component(name).enable_adapters()

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The adapter's tensors under peft's names, as "unet.<module>.lora_A.weight"."""
        return {
            f"{component}.{name}": tensor.detach().cpu().contiguous()
            for component in self.components(model)
            for name, tensor in _peft_state(model, component).items()
        }

    @torch.no_grad()
    def load_state_dict(self, model: LatentDiffusion, state: dict[str, Tensor]) -> None:
        """Put them back.

        Raises:
            KeyError: names that this model does not have, or lacks.
        """
        known = self.state_dict(model)
        if known.keys() != state.keys():
            raise KeyError(f"adapter tensors that do not match: {sorted(known.keys() ^ state.keys())[:3]}")
        for component in self.components(model):
            prefix = f"{component}."
            part = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            set_peft_model_state_dict(model.component(component), part)

    def layers(self, model: LatentDiffusion) -> GradientLayers:
        """A and B; dW is what B adds, with DoRA also by how much the rows of the weight grew."""
        parts = [model.component(name) for name in self.components(model)]
        down, up, base = adapted_layers(*parts)
        updates: dict[nn.Module, Callable[[], Tensor] | None] = dict.fromkeys(up)
        if self.use_dora:
            tuned = [m for part in parts for m in part.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
            updates = {m.base_layer: partial(dora_update, m) for m in tuned}
        return GradientLayers([*down, *up], base, updates)

    def publish(
        self, model: LatentDiffusion, folder: Path, facts: AdapterFacts, *, precision: str, complete: bool
    ) -> list[str]:
        """One file in diffusers' layout; where it is to be complete, another one in kohya's, if programs that read it
        need it."""
        state = self.state_dict(model)
        components = {
            name: LoraSettings(self.rank, self.alpha, self.target_modules(model, name), self.use_rslora, self.use_dora)
            for name in self.components(model)
        }
        write_atomically(folder / ADAPTER_FILE, adapter_bytes(state, components, facts, precision=precision))
        if complete and needs_kohya(components):
            try:
                write_atomically(folder / KOHYA_FILE, kohya_bytes(state, components, facts, precision=precision))
            except ValueError as error:
                return [f"no {KOHYA_FILE}: {error}"]
        return []

    def weights(self, folder: Path) -> list[Path]:
        """The one in diffusers' layout."""
        return [folder / ADAPTER_FILE]

    def published(self, folder: Path) -> list[str]:
        """Both layouts, where both are there."""
        return [name for name in (ADAPTER_FILE, KOHYA_FILE) if (folder / name).exists()]

    def read(self, folder: Path) -> dict[str, Tensor]:
        """That in diffusers' layout."""
        return read_adapter(folder / ADAPTER_FILE, transformer=True).state

    def usage(self, source: str, pipeline: str, base: str) -> list[str]:
        """``load_lora_weights``."""
        return [
            f'pipeline = {pipeline}.from_pretrained("{base}")',
            f'pipeline.load_lora_weights("{source}", weight_name="{ADAPTER_FILE}")',
        ]


@torch.no_grad()
def dora_update(layer: Any) -> Tensor:
    """What DoRA adds to a layer's weight, as the layer under it feels it: [O, I, ...].

    W' = g V with V = W + s B A and g = magnitude / ||V|| of each row (Liu et al. 2024, Eq. 5). The output of
    the layer under it passes the factor g too, so that the gradient there is g times the one at y, and <gradient at y,
    (W' - W) a> = <gradient there, (W' - W) / g a>: V - W / g is returned.
    """
    name = layer.active_adapters[0]
    weight = layer.base_layer.weight.float()
    turned: Tensor = weight + layer.get_delta_weight(name).float()
    length: Tensor = turned.flatten(1).norm(dim=1) / layer.lora_magnitude_vector[name].weight.float().flatten()
    update: Tensor = turned - weight * length.view(-1, *[1] * (weight.ndim - 1))
    return update


def _peft_state(model: LatentDiffusion, component: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = get_peft_model_state_dict(model.component(component), save_embedding_layers=False)
    return state
