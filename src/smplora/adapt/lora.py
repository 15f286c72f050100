"""Low-rank adapters on the denoiser's linear layers: W + (alpha / r) B A (Hu et al. 2021), through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

if TYPE_CHECKING:
    from smplora.config import TrainConfig

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TARGETS = {"attention": ATTENTION, "all": (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")}


@dataclass(frozen=True)
class LoRAAdaptation:
    """``targets`` is "attention" (diffusers' choice) or "all" (attention, feed-forward, projections; kohya's)."""

    rank: int = 4
    alpha: float = 4
    targets: str = "attention"

    @classmethod
    def from_config(cls, config: TrainConfig) -> LoRAAdaptation:
        """``--rank``, ``--lora_alpha``, ``--lora_targets``."""
        return cls(config.rank, config.lora_alpha or config.rank, config.lora_targets)

    def attach(self, denoiser: nn.Module) -> list[nn.Parameter]:
        """Add adapters: A normal with deviation 1/r, B zero (drawn from torch's global generator), in fp32."""
        denoiser.requires_grad_(False)
        config: Any = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules=list(TARGETS[self.targets]), init_lora_weights="gaussian"
        )
        denoiser.add_adapter(config)  # type: ignore[operator]
        trained = [p for p in denoiser.parameters() if p.requires_grad]
        for parameter in trained:  # peft gives them the base model's dtype; bf16 weights would not move (peers.md, 7.1)
            parameter.data = parameter.data.float()
        return trained

    def state_dict(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """A and B of every adapted layer, under peft's names."""
        state: dict[str, Tensor] = get_peft_model_state_dict(denoiser)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def load_state_dict(self, denoiser: nn.Module, state: dict[str, Tensor]) -> None:
        """Put them back.

        Raises:
            KeyError: names that this denoiser does not have, or lacks.
        """
        known = self.state_dict(denoiser)
        if known.keys() != state.keys():
            raise KeyError(f"adapter tensors that do not match: {sorted(known.keys() ^ state.keys())[:3]}")
        set_peft_model_state_dict(denoiser, state)
