"""Options of out-of-fold distillation. docs/training.md is their guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional

from smplora.config.checks import at_least
from smplora.config.synthetic import SYNTHETIC

DISTILLED = "distill_lora"
WITH_TEACHERS = (DISTILLED, SYNTHETIC)


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    num_teachers: int = 2
    """With --objective distill_lora: folds of the training images. For each, a teacher is trained on the other folds; it leaks as plain LoRA does, so keep it private."""
    teacher_steps: Optional[int] = None
    """With --objective distill_lora or synth_lora: steps of each teacher. Default: as many passes over its images as the run itself."""
    teacher_lr_scheduler: Optional[
        Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
    ] = None
    """With --objective distill_lora or synth_lora: how the teachers' learning rate goes on. Default: as --lr_scheduler."""


def distill_problems(options: Any) -> list[str]:
    """What is wrong, one line each."""
    owners = {"num_teachers": (DISTILLED,), "teacher_steps": WITH_TEACHERS, "teacher_lr_scheduler": WITH_TEACHERS}
    problems = [
        f"--{name} is of --objective {' and '.join(of)}; leave it out with {options.objective}"
        for name, of in owners.items()
        if options.objective not in of and getattr(options, name) != getattr(DistillOptions, name)
    ]
    if options.objective in WITH_TEACHERS:
        problems += at_least(options, ("teacher_steps",), 1)
    if options.objective == DISTILLED:
        problems += at_least(options, ("num_teachers",), 2)
    if options.objective == DISTILLED and options.hessian_steps:
        problems.append(f"--objective {DISTILLED} needs --hessian_steps 0: curvature is measured of the loss on images")
    return problems
