"""Low-rank adapters on linear layers, W + (alpha / r) B A (Hu et al. 2021), through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

if TYPE_CHECKING:
    from smplora.config import TrainConfig
    from smplora.diffusion import LatentDiffusion

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TARGETS = {"attention": ATTENTION, "all": (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")}
TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_TARGETS = {"attention": TEXT_ATTENTION, "all": (*TEXT_ATTENTION, "fc1", "fc2")}


@dataclass(frozen=True)
class LoRAAdaptation:
    """``targets`` is "attention" (diffusers' choice) or "all" (attention, feed-forward, projections; kohya's).

    ``use_rslora`` scales by alpha / sqrt(r) (Kalajdzievski 2023); ``use_dora`` also learns the norm of each row of the
    weight (Liu et al. 2024); ``dropout`` is that of the adapter's input, in training only.
    """

    rank: int = 4
    alpha: float = 4
    targets: str = "attention"
    text_encoder: bool = False
    dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False

    @classmethod
    def from_config(cls, config: TrainConfig) -> LoRAAdaptation:
        """``--rank``, ``--lora_alpha``, ``--lora_targets``, ``--train_text_encoder``, ``--lora_dropout``,
        ``--use_rslora``, ``--use_dora``."""
        return cls(
            rank=config.rank,
            alpha=config.lora_alpha or config.rank,
            targets=config.lora_targets,
            text_encoder=config.train_text_encoder,
            dropout=config.lora_dropout,
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
        )

    def target_modules(self, component: str) -> tuple[str, ...]:
        """Endings of the names of a component's adapted layers."""
        return (TARGETS if component == "unet" else TEXT_TARGETS)[self.targets]

    def attach(self, model: LatentDiffusion) -> dict[str, list[nn.Parameter]]:
        """Add adapters in fp32: A normal with deviation 1/r, B zero (drawn from torch's global generator)."""
        model.adapted = ["unet", *(model.text.encoders if self.text_encoder else ())]
        trained = {}
        for name in model.adapted:
            component = model.component(name).requires_grad_(False)
            options: dict[str, Any] = {"lora_dropout": self.dropout, "init_lora_weights": "gaussian"}
            component.add_adapter(
                LoraConfig(
                    r=self.rank,
                    lora_alpha=self.alpha,
                    target_modules=list(self.target_modules(name)),
                    use_rslora=self.use_rslora,
                    use_dora=self.use_dora,
                    **options,
                )
            )
            component.eval()  # the adapter's dropout too, until ``train``
            trained[name] = [p for p in component.parameters() if p.requires_grad]
            # peft gives them the base model's dtype, and bf16 weights would not move (peers.md, 7.1)
            for parameter in trained[name]:
                parameter.data = parameter.data.float()
        return trained

    def train(self, model: LatentDiffusion, active: bool) -> None:
        """Switch the adapter's dropout on or off. The models' own layers stay in evaluation mode."""
        for name in model.adapted if self.dropout else ():
            for path, module in model.component(name).named_modules():
                if ".lora_dropout." in path:
                    module.train(active)

    def state_dict(self, model: LatentDiffusion) -> dict[str, Tensor]:
        """The adapter's tensors under peft's names, as "unet.<module>.lora_A.weight"."""
        return {
            f"{component}.{name}": tensor.detach().cpu().contiguous()
            for component in model.adapted
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
        for component in model.adapted:
            prefix = f"{component}."
            part = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            set_peft_model_state_dict(model.component(component), part)


def _peft_state(model: LatentDiffusion, component: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = get_peft_model_state_dict(model.component(component), save_embedding_layers=False)
    return state
