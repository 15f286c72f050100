"""Options of what is measured, drawn and shown while training. None of them changes the adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Optional

from smplora.config.checks import at_least

# for runs that serve another one: nothing but the adapter
UNWATCHED: dict[str, Any] = {
    **dict.fromkeys(("monitor_steps", "validation_steps", "gradient_steps", "hessian_steps"), 0),
    "run_page": False,
    "report_to": None,
    "json": False,
    "resume_from_checkpoint": "latest",
}


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    monitor_steps: Optional[int] = None
    """Steps between measurements of the held-out loss and of an attack on the aux cells; 0: none. Default: so that they take about 3 % of the time, at most 50 times."""
    monitor_images: int = 32
    """Images of each cell that these measurements look at; more give narrower intervals and take longer."""
    validation_steps: Optional[int] = None
    """Steps between rounds of validation images; 0: none. Default: so that they take about 2 % of the time, at most 20 times."""
    validation_prompts: list[str] = field(default_factory=list)
    """Captions to draw. Default: four of the held-out images'."""
    num_validation_images: int = 1
    """Images for each caption."""
    validation_inference_steps: int = 25
    """DDIM steps of a validation image."""
    validation_guidance_scale: Optional[float] = None
    """Classifier-free guidance of validation images; 1 is none. Default: 7.5; 1 for the bundled model and flow matching."""
    run_page: bool = True
    """Keep index.html in the run folder: curves, validation images and time left, refreshing while the run goes on."""
    report_to: Optional[Literal["tensorboard", "wandb", "trackio", "all", "none"]] = None
    """Also log the numbers to TensorBoard (logs/ of the run folder), Weights & Biases, Trackio, or all that are installed. Options, paths and captions are not sent."""
    log_images: bool = False
    """Also send validation images to the trackers. They can resemble private images."""


def monitor_problems(config: MonitorOptions) -> list[str]:
    """What is wrong with the values."""
    return [
        *at_least(config, ("monitor_steps", "validation_steps"), 0),
        *at_least(config, ("monitor_images",), 2),
        *at_least(config, ("num_validation_images", "validation_inference_steps", "validation_guidance_scale"), 1),
        *(
            ["--log_images got true without --report_to; say where to"]
            if config.log_images and config.report_to in (None, "none")
            else []
        ),
    ]
