"""Options of out-of-fold distillation. docs/training.md is their guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from smplora.config.checks import at_least

DISTILLED = "distill_lora"


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    num_teachers: int = 2
    """With --objective distill_lora: folds of the training images. For each, a teacher is trained on the other folds; it leaks as plain LoRA does, so keep it private."""
    teacher_steps: Optional[int] = None
    """With --objective distill_lora: steps of each teacher. Default: as many passes over its images as the run itself."""


def distill_problems(options: Any) -> list[str]:
    """What is wrong, one line each."""
    if options.objective != DISTILLED:
        set_options = [
            n for n in ("num_teachers", "teacher_steps") if getattr(options, n) != getattr(DistillOptions, n)
        ]
        return [
            f"--{name} is of --objective {DISTILLED}; leave it out with {options.objective}" for name in set_options
        ]
    problems = [*at_least(options, ("num_teachers",), 2), *at_least(options, ("teacher_steps",), 1)]
    if options.hessian_steps:
        problems.append(f"--objective {DISTILLED} needs --hessian_steps 0: curvature is measured of the loss on images")
    return problems
