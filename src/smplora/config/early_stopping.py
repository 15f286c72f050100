"""Options of a training that ends when it gets no better. docs/training.md is their guide."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Optional

from smplora.config.checks import at_least


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingOptions:
    stop_when: Optional[Literal["held_out_loss"]] = None
    """Publish the step with the lowest loss on held-out images, and end when it falls no more. For what is given away: --privacy_budget."""
    early_stopping_patience: int = 5
    """With --stop_when: looks, a twentieth of the run apart, without a lower loss until the training ends."""


UNSTOPPED: dict[str, Any] = {f.name: f.default for f in fields(EarlyStoppingOptions)}


def early_stopping_problems(options: Any) -> list[str]:
    """What is wrong, one line each."""
    problems = at_least(options, ("early_stopping_patience",), 1)
    if options.stop_when is None:
        given = options.early_stopping_patience != EarlyStoppingOptions.early_stopping_patience
        return problems + (["--early_stopping_patience is of --stop_when; leave it out"] if given else [])
    if options.measured_budget:
        problems.append("--stop_when and --privacy_budget both choose what is published; leave one of them out")
    if options.objective_on_images == "dp_lora":
        problems.append(
            "--stop_when: what is chosen by looking at every step is not covered by the guarantee of dp_lora, nor are the "
            "images that choose; leave it out"
        )
    return problems
