"""Options of differentially private training. docs/training.md is their guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from smplora.config.checks import at_least, positive


@dataclass(frozen=True, kw_only=True)
class PrivateOptions:
    target_epsilon: Optional[float] = None
    """With --objective dp_lora: epsilon of the guarantee after the last step; the noise follows from it."""
    target_delta: float = 1e-5
    """Its delta; well below one in the number of training images."""
    noise_multiplier: Optional[float] = None
    """With --objective dp_lora, in place of --target_epsilon: the noise's standard deviation, in units of --max_grad_norm."""
    noise_multiplicity: int = 4
    """With --objective dp_lora: draws of timestep and noise whose mean is an image's loss. More draws cost time, no epsilon."""


def private_problems(options: Any) -> list[str]:
    """What is wrong, one line each."""
    problems = [
        *positive(options, ("target_epsilon", "noise_multiplier")),
        *at_least(options, ("noise_multiplicity",), 1),
        *(
            []
            if 0 < options.target_delta < 1
            else [f"--target_delta got {options.target_delta}; allowed: above 0, below 1"]
        ),
    ]
    set_options = [name for name in ("target_epsilon", "noise_multiplier") if getattr(options, name) is not None]
    if options.objective_on_images != "dp_lora":
        return problems + [
            f"--{name} is of --objective dp_lora; leave it out with {options.objective}" for name in set_options
        ]
    if len(set_options) != 1 and not (options.privacy_budget and not set_options):
        problems.append(
            "--objective dp_lora needs either --target_epsilon (such as 8) or --noise_multiplier (such as 1)"
        )
    refused = {
        "--adaptation lora (per-image gradients are made of linear layers)": options.adaptation != "lora",
        "--use_dora false": options.use_dora,
        "--mixed_precision no or bf16": options.mixed_precision == "fp16",
        "--gradient_normalisation false": options.gradient_normalisation,
        "--max_grad_norm above 0 (each image's gradient is clipped to it)": not options.max_grad_norm,
        "--gradient_checkpointing false": options.gradient_checkpointing,
        "--hessian_steps and --gradient_steps 0": options.hessian_steps or options.gradient_steps,
        "--with_prior_preservation false": options.preserves_prior,
    }
    return problems + [f"--objective dp_lora needs {what}" for what, wrong in refused.items() if wrong]
