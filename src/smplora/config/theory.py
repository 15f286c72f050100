"""Options of the paper's measurements of gradients and curvature. None of them changes the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from smplora.config.checks import at_least


@dataclass(frozen=True, kw_only=True)
class TheoryOptions:
    gradient_steps: int = 0
    """Steps between measurements of gradient norm, gradient scales and rescaling factors; 0: none (paper: 1). With a proxy each takes one more backward pass."""
    hessian_steps: int = 0
    """Steps between measurements of the Hessian norm and of Propositions 1 and 2; 0: none (paper: 100). Each takes as long as some 200 steps, and more memory."""
    hessian_method: Literal["both", "power", "lanczos"] = "both"
    """How the Hessian norm is estimated, in at most 50 products: power iteration (paper), Lanczos, which needs fewer products, or both, one checking the other."""
    hessian_batch: Literal["fixed", "step"] = "fixed"
    """Where it is measured: always on the first step's batch, timesteps and noise, or on those of the step that comes next (paper)."""


def theory_problems(options: Any) -> list[str]:
    """What is wrong with the values."""
    problems = at_least(options, ("gradient_steps", "hessian_steps"), 0)
    if options.hessian_steps > 0 and options.mixed_precision == "fp16":
        problems.append(
            "--hessian_steps cannot be had with --mixed_precision fp16, whose gradients overflow; give no or bf16"
        )
    if options.hessian_steps > 0 and options.shard_base_model:
        problems.append(
            "--hessian_steps cannot be had with --shard_base_model: split weights have no second derivatives; leave one out"
        )
    return problems
