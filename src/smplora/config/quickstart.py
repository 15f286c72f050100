"""Options of the quickstart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Optional

from smplora.config.checks import at_least, positive, with_sizes
from smplora.config.data import (
    CacheOptions,
    DataOptions,
    ModelOptions,
    SplitOptions,
    cache_problems,
    data_problems,
    model_problems,
    split_problems,
)
from smplora.core.files import BUNDLED_FLOW_MODEL, BUNDLED_MODEL

CHECKPOINT_EVERY = 100  # steps, of every run
OWN_BASE = "--base is of the bundled models; leave it out with --pretrained_model_name_or_path {}"


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig(ModelOptions, DataOptions, CacheOptions, SplitOptions):
    """Adapt with LoRA, MP-LoRA, SMP-LoRA and Distill-LoRA, stop LoRA early at two points, attack all six, and put everything on one page. Without --train_data_dir or --dataset_name the private images are the handwritten digits 5 to 9, which the bundled model has never seen."""

    base: Literal["unet", "flow"] = "unet"
    """The bundled model to adapt: 'unet' is built like Stable Diffusion 1.x, 'flow' (flow matching) like Z-Image."""
    output_dir: str = "runs/quickstart"
    """Everything goes here. Run the same command again to resume."""
    aux_size: Optional[int] = None
    """Images in each of the two aux cells (members, non-members). Default: 50 of the digits; of your own images about a fifth of the pool, at most 100."""
    max_train_steps: int = 1500
    """Steps of each method, but of Distill-LoRA."""
    early_stops: list[int] = field(default_factory=lambda: [200, 600])
    """LoRA is also audited as if it had been stopped at these steps: the honest baseline. Multiples of 100."""
    train_batch_size: int = 10
    """Images per step."""
    learning_rate: float = 3e-3
    """Learning rate of the adapters."""
    rank: int = 32
    """Rank of the adapters."""
    lora_targets: Literal["attention", "all"] = "all"
    """Adapted layers: attention projections, or those plus feed-forward and block projections."""
    mp_lambda: float = 0.05
    """Lambda of MP-LoRA."""
    smp_lambda: float = 1.0
    """Lambda of SMP-LoRA. The paper's 0.05 changes nothing on the bundled model; see docs/log/2026-11-22-quickstart-settings.md."""
    distill_steps: Optional[int] = None
    """Steps of Distill-LoRA. Default: two fifths of --max_train_steps."""
    teacher_steps: Optional[int] = None
    """Steps of each of its two teachers. Default: a quarter of --max_train_steps."""
    proxy_learning_rate: float = 1e-3
    """Learning rate of the proxy attack model; the paper's 1e-5 is for 400 epochs of SD 1.5."""
    num_images: int = 300
    """Images generated per method."""
    seed: int = 0
    """Seed of everything but the split."""
    workers: Optional[int] = None
    """Processes side by side. Default: one per processor core, at most 3; 1 on a GPU."""
    json: bool = False
    """Print the summary as JSON on standard output."""

    @with_sizes
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        stops = [
            f"--early_stops got {s}; allowed: multiples of {CHECKPOINT_EVERY} below --max_train_steps "
            f"({self.max_train_steps})"
            for s in self.early_stops
            if s % CHECKPOINT_EVERY or not 0 < s < self.max_train_steps
        ]
        own = self.pretrained_model_name_or_path not in (BUNDLED_MODEL, self.model)
        return [
            *([OWN_BASE.format(self.pretrained_model_name_or_path)] if self.base != "unet" and own else []),
            *model_problems(self),
            *cache_problems(self, self.train_data_dir),
            *(data_problems(self) if self.train_data_dir or self.dataset_name else []),
            *split_problems(self),
            *stops,
            *at_least(
                self, ("max_train_steps", "train_batch_size", "rank", "workers", "distill_steps", "teacher_steps"), 1
            ),
            *at_least(self, ("num_images",), 20),
            *at_least(self, ("resolution",), 8),
            *at_least(self, ("mp_lambda", "smp_lambda", "seed"), 0),
            *positive(self, ("learning_rate", "proxy_learning_rate")),
        ]

    @property
    def model(self) -> str:
        """``--pretrained_model_name_or_path``, or what ``--base`` names."""
        return BUNDLED_FLOW_MODEL if self.base == "flow" else self.pretrained_model_name_or_path
